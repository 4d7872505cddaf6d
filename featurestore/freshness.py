"""How old what a view answers is, in event time and in wall time, and whether that is too old.

Pure functions over clocks, offsets and publishing times; the wall clock is the caller's. docs/features.md defines the
ages for readers.

**Event age**: how far what was applied lies behind what was asked for. A read as of T lies behind by T minus the
store's clock where T is later; a read of "now" by the newest event time on the log minus the clock, as long as the log
holds anything that is not applied. After the end of the run nothing follows, so nothing is behind. The event age of
embeddings is the moment asked for minus the event time up to which their version knows; the end of a run makes them no
younger.

**Wall age**: how long the oldest record that was published and is not applied has waited, 0 where none waits. The
wall age of embeddings, since their version was written, only informs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from featurestore.embeddings import EmbeddingVersion
from featurestore.reader import AppliedOffset
from streams.events import DAY_S, HOUR_S

__all__ = [
    "VIEWS",
    "Freshness",
    "FreshnessLimits",
    "LogAhead",
    "StoreProgress",
    "StoreView",
    "embedding_freshness",
    "event_age_s",
    "view_freshness",
    "wall_age_s",
]

StoreView = Literal["users", "items", "popular"]
VIEWS: tuple[StoreView, ...] = ("users", "items", "popular")
"""The views that follow the log, all of them in the same transactions."""


@dataclass(frozen=True, slots=True)
class FreshnessLimits:
    """The TTL of each view: an answer that is older is stale. Event time but for ``waiting_ttl_s``, which is wall time
    and holds for every view that follows the log."""

    users_ttl_s: float = DAY_S
    items_ttl_s: float = DAY_S
    popular_ttl_s: float = 7 * DAY_S
    embeddings_ttl_s: float = 28 * DAY_S
    waiting_ttl_s: float = 60.0


@dataclass(frozen=True, slots=True)
class StoreProgress:
    """How far a store is. ``clock``: event time that every partition has reached; ``complete``: the run has ended."""

    clock: int
    complete: bool

    @classmethod
    def of(cls, applied: Sequence[AppliedOffset], ahead: LogAhead | None = None) -> StoreProgress:
        """``applied``: of one topic. A partition of the log that the store has never seen has no clock."""
        all_seen = bool(applied) and len(applied) >= (ahead.n_partitions if ahead else 0)
        clock = min((row.clock for row in applied), default=0) if all_seen else 0
        return cls(clock, all_seen and all(row.end_of_run for row in applied))


@dataclass(frozen=True, slots=True)
class LogAhead:
    """What a log holds that a store has not applied.

    n_partitions: of the log. waiting_since_ms: when the oldest such record of each partition that has any was
    published, wall time. newest_event_time: how far they reach in event time, 0 for none.
    """

    n_partitions: int = 0
    waiting_since_ms: tuple[int, ...] = ()
    newest_event_time: int = 0


@dataclass(frozen=True, slots=True)
class Freshness:
    """The ages of one answer. ``wall_age_s`` is None where the log is not known, ``wall_ttl_s`` where it only informs.

    stale: older than a TTL allows; ``why`` says so in words, and is empty for what is fresh.
    """

    view: str
    event_age_s: int
    event_ttl_s: float
    wall_age_s: float | None
    wall_ttl_s: float | None
    why: str

    @property
    def stale(self) -> bool:
        return bool(self.why)

    def as_json(self) -> dict[str, Any]:
        return {
            "stale": self.stale,
            "why": self.why,
            "event_age_s": self.event_age_s,
            "event_ttl_s": self.event_ttl_s,
            "wall_age_s": self.wall_age_s,
            "wall_ttl_s": self.wall_ttl_s,
        }


def event_age_s(progress: StoreProgress, ahead: LogAhead | None = None, as_of: int | None = None) -> int:
    """Seconds of event time by which the store lies behind ``as_of``, or, for now, behind what waits on the log.

    >>> event_age_s(StoreProgress(clock=1_000, complete=False), as_of=1_600)
    600
    >>> event_age_s(StoreProgress(clock=1_000, complete=True), as_of=1_600)
    0
    """
    if progress.complete:
        return 0
    asked = as_of if as_of is not None else ahead.newest_event_time if ahead else 0
    return max(asked - progress.clock, 0)


def wall_age_s(waiting_since_ms: Iterable[int], now_s: float) -> float:
    """Seconds for which the oldest of the records has waited; 0 where none does, or its clock is ahead of ours.

    >>> wall_age_s([8_000, 9_500], now_s=10.0), wall_age_s([], now_s=10.0)
    (2.0, 0.0)
    """
    return max([0.0, *(now_s - since_ms / 1_000 for since_ms in waiting_since_ms)])


def view_freshness(
    view: StoreView,
    progress: StoreProgress,
    limits: FreshnessLimits,
    *,
    now_s: float,
    ahead: LogAhead | None = None,
    as_of: int | None = None,
) -> Freshness:
    """The freshness of a read of ``view``, of now or as of an event time.

    ahead: what the log holds beyond the store, None where the log is not known. What waits does not touch a read of a
    time that the store's clock has passed.
    """
    event_age, event_ttl = event_age_s(progress, ahead, as_of), getattr(limits, f"{view}_ttl_s")
    wall_age = None if ahead is None else round(wall_age_s(ahead.waiting_since_ms, now_s), 3)
    reasons = []
    if event_age > event_ttl:
        reasons.append(f"{_words(event_age)} of event time behind {'now' if as_of is None else 'the time asked for'}")
    reaches_what_waits = as_of is None or as_of > progress.clock
    if wall_age is not None and wall_age > limits.waiting_ttl_s and reaches_what_waits:
        reasons.append(f"a published record has waited {_words(wall_age)} to be applied")
    return Freshness(view, event_age, event_ttl, wall_age, limits.waiting_ttl_s, "; ".join(reasons))


def embedding_freshness(
    version: EmbeddingVersion, progress: StoreProgress, limits: FreshnessLimits, *, now_s: float, as_of: int | None
) -> Freshness:
    """The freshness of a version of embeddings, for a read of now or as of an event time."""
    asked = progress.clock if as_of is None else min(as_of, progress.clock) if progress.complete else as_of
    age = max(asked - version.as_of, 0)
    why = f"trained on nothing of the last {_words(age)} of event time" if age > limits.embeddings_ttl_s else ""
    wall_age = round(max(now_s - version.created_ms / 1_000, 0.0), 3)
    return Freshness("embeddings", age, limits.embeddings_ttl_s, wall_age, None, why)


def _words(seconds: float) -> str:
    """A duration in its largest fitting unit.

    >>> [_words(s) for s in (59, 5_400, 200_000, 90_000_000)]
    ['59 s', '1.5 h', '2.3 days', '1,041.7 days']
    """
    for unit, length in (("days", DAY_S), ("h", HOUR_S)):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"

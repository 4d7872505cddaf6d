"""What a step of the loop puts on ``impressions`` and ``feedback``: records as JSON lines, with running ids.

Slates and boundary ticks go to ``impressions``, what came of each slate and the ticks to ``feedback``, both in the
order of the log. One sequence numbers them all, so that on either topic the ids rise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from agents.sessions import Session, ShownSlate, Step
from streams.events import FEEDBACK, IMPRESSIONS, Feedback, Slate, Tick

__all__ = ["Lines", "Tally", "records_of"]

_MOST_LINES = 2_000
"""Of one batch: about half a megabyte."""


class Lines(NamedTuple):
    """Records of one topic, values and keys joined by newlines, as a producer's ``send_batch`` takes them."""

    topic: str
    n_records: int
    keys: bytes
    lines: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a variant. slates: made; shown, clicks: movies of those whose session is over."""

    slates: int = 0
    shown: int = 0
    clicks: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.slates + other.slates, self.shown + other.shown, self.clicks + other.clicks)


class _Page:
    """The records of one topic so far."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.values: list[bytes] = []
        self.keys: list[bytes] = []

    def put(self, record: msgspec.Struct, user_id: int | None = None) -> None:
        self.values.append(_encode(record))
        self.keys.append(b"" if user_id is None else b"%d" % user_id)

    def batches(self) -> Iterable[Lines]:
        for first in range(0, len(self.values), _MOST_LINES):
            values, keys = (part[first : first + _MOST_LINES] for part in (self.values, self.keys))
            yield Lines(self.topic, len(values), b"\n".join(keys), b"\n".join(values))


_encode = msgspec.json.Encoder().encode


def records_of(step: Step, source: str, emitted: int) -> tuple[list[Lines], int, dict[str, Tally]]:
    """The records of a finished step, the last id given, and what each variant gains.

    emitted: the last id that was given before.
    """
    impressions, feedback = _Page(IMPRESSIONS), _Page(FEEDBACK)
    gained: dict[str, list[int]] = {}
    for told in step.told:
        if isinstance(told, ShownSlate):
            emitted += 1
            impressions.put(_slate(told, source, emitted), told.session.user_id)
            gained.setdefault(told.variant, [0, 0, 0])[0] += 1
        elif isinstance(told, Session):
            for slate in told.slates:
                emitted += 1
                feedback.put(_feedback(told, slate, source, emitted), told.user_id)
                counts = gained.setdefault(slate.variant, [0, 0, 0])
                counts[1] += len(slate.movie_ids)
                counts[2] += len(slate.clicked)
        else:
            for page in (impressions, feedback):
                emitted += 1
                page.put(Tick(told.event_time, source, emitted, end_of_run=told.ends_run))
    tallies = {variant: Tally(*counts) for variant, counts in gained.items()}
    return [*impressions.batches(), *feedback.batches()], emitted, tallies


def _slate(slate: ShownSlate, source: str, event_id: int) -> Slate:
    return Slate(
        slate_id=slate.slate_id,
        session_id=slate.session.session_id,
        user_id=slate.session.user_id,
        variant=slate.variant,
        model_version=slate.model_version,
        movie_ids=slate.movie_ids,
        timestamp=slate.timestamp,
        source=source,
        event_id=event_id,
    )


def _feedback(session: Session, slate: ShownSlate, source: str, event_id: int) -> Feedback:
    return Feedback(
        slate_id=slate.slate_id,
        session_id=session.session_id,
        user_id=session.user_id,
        variant=slate.variant,
        model_version=slate.model_version,
        n_shown=len(slate.movie_ids),
        clicked=slate.clicked,
        n_ratings=session.n,
        session_seconds=session.last - session.start,
        timestamp=session.over_at,
        source=source,
        event_id=event_id,
    )

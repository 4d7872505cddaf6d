"""Aligned mode: how far the loop may go ahead of features, monitors and trainer, so that speed changes no result.

Every wait is on earlier event time, or on the stage before, so that no two agents can wait for each other: features
wait for nobody, monitors for the boundary ticks that the loop has passed, the trainer for features.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import MetaData, Table

from featurestore.database import Database, open_tables, url_beside
from featurestore.reader import FeatureReader, LoggedHistories
from streams.errors import StoreError, StoreMissing, StoreUnavailable
from streams.events import RATINGS

__all__ = ["Features", "Progress", "ProgressReader", "needed_boundary", "read_progress", "waits_for"]

FEATURES_AGENT = "features"
_FINAL = ("promoted", "rejected", "failed", "done")
_REOPEN_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far monitors and trainer are. monitors_closed: event time, None where no monitors have run yet.

    initial: the state of the trainer's initial job, None for none yet. open_due: event time at which the first answer
    is due that is not there yet, to a request of the monitors or of the trainer's own; None for none. asked: its id.
    """

    monitors_closed: int | None = None
    initial: str | None = None
    open_due: int | None = None
    asked: str = ""


def needed_boundary(boundaries: Sequence[int], moment: int, train_delay_s: int) -> int | None:
    """The last of ``boundaries``, event times that rise, whose decisions may take effect at ``moment``.

    >>> needed_boundary([0, 86_400, 172_800], 172_800, 86_400)
    86400
    """
    at = bisect_right(boundaries, moment - train_delay_s)
    return boundaries[at - 1] if at else None


def waits_for(moment: int, boundaries: Sequence[int], progress: Progress, *, train_delay_s: int) -> str:
    """What must be done before anything from event time ``moment`` on may be served; empty for nothing.

    boundaries: those that were passed, rising.
    """
    if progress.initial not in _FINAL:
        state = "it has not begun" if progress.initial is None else f"it is {progress.initial}"
        return f"the trainer's first training, {state}"
    needed = needed_boundary(boundaries, moment, train_delay_s)
    if needed is not None and (progress.monitors_closed is None or progress.monitors_closed < needed):
        found = "nothing yet" if progress.monitors_closed is None else _shown(progress.monitors_closed)
        return f"the monitors to close {_shown(needed)}, they have closed {found}"
    if progress.open_due is not None and progress.open_due <= moment:
        return f"the trainer's answer to {progress.asked}, due at {_shown(progress.open_due)}"
    return ""


def _shown(event_time: int) -> str:
    return f"{datetime.fromtimestamp(event_time, UTC):%Y-%m-%d %H:%M}"


def _tables(*names: str) -> MetaData:
    found = MetaData()
    for name in names:
        Table(name, found)
    return found


_MONITORS, _TRAINER = _tables("monitor", "requests"), _tables("jobs")


def read_progress(store_url: str) -> Progress:
    """Of the monitors and the trainer beside the store, as :class:`ProgressReader` has it."""
    with closing(ProgressReader(store_url)) as reader:
        return reader.read()


class ProgressReader:
    """Monitors and trainer beside the store at ``store_url``; what has no store, or one that is just being made, has
    done nothing. One that did not change costs no query. Not thread-safe.
    """

    def __init__(self, store_url: str) -> None:
        self._monitors = _Beside(store_url, "monitors", _MONITORS)
        self._trainer = _Beside(store_url, "trainer", _TRAINER)
        self._seen: tuple[int | None, int | None] = (None, None)
        self._found = Progress()

    def read(self) -> Progress:
        """Raises StoreUnavailable where one cannot be read for now."""
        try:
            seen = (self._monitors.changes(), self._trainer.changes())  # before the reads: what comes later is new
            if None in seen or seen != self._seen:
                self._found, self._seen = self._read(), seen
        except BaseException:
            self.close()
            raise
        return self._found

    def _read(self) -> Progress:
        # Requests first: an answer that is read later may be newer, a request may not.
        closed: int | None = None
        requests: list[tuple[str, int]] = []
        if (monitors := self._monitors.database) is not None:
            with monitors.snapshot():
                rows = monitors.rows("SELECT closed FROM monitor")
                closed = int(rows[0][0]) if rows else None
                requests = monitors.rows("SELECT id, due FROM requests")
        jobs: list[tuple[str, str, int, str]] = []
        if (trainer := self._trainer.database) is not None:
            jobs = trainer.rows("SELECT id, kind, due, state FROM jobs")
        final = {job_id for job_id, _, _, state in jobs if state in _FINAL}
        initial = [state for _, kind, _, state in jobs if kind == "initial"]
        due = {request_id: due for request_id, due in requests if request_id not in final}
        due |= {job_id: due for job_id, kind, due, state in jobs if kind != "initial" and state not in _FINAL}
        asked = min(due, key=lambda request_id: (due[request_id], request_id), default="")
        return Progress(closed, initial[0] if initial else None, due.get(asked), asked)

    def close(self) -> None:
        self._monitors.close()
        self._trainer.close()
        self._seen = (None, None)


class _Beside:
    """Another agent's store, opened once it is there, and anew where it was."""

    def __init__(self, store_url: str, name: str, tables: MetaData) -> None:
        self._url = url_beside(store_url, name)
        self._name = name
        self._tables = tables
        self.database: Database | None = None

    def changes(self) -> int | None:
        """None where it was opened just now, is not there, or cannot tell."""
        if self.database is not None:
            try:
                return self.database.changes()
            except StoreUnavailable:
                raise
            except StoreError:  # removed, or replaced by another
                self.close()
        with suppress(StoreMissing):
            missing = StoreMissing(f"{self._name}: not there yet")
            self.database = open_tables(
                self._url, self._tables, what=self._name, repair="start its worker", missing=missing
            )
            self.database.hold_identity()
        return None

    def close(self) -> None:
        if self.database is not None:
            self.database.close()
            self.database = None


class Features:
    """The feature store as the loop reads it; opened once it is there, and anew where it was. Not thread-safe.

    monotonic_s: a clock that only rises.
    """

    def __init__(self, store_url: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._url = store_url
        self._monotonic_s = monotonic_s
        self._reader: FeatureReader | None = None
        self._applied: dict[int, int] = {}
        self._changed_at = 0.0

    def applied(self) -> Mapping[int, int]:
        """The offset up to which each partition is applied; none where there is no store."""
        try:
            self._reader = self._reader or FeatureReader(self._url)
            rows = self._reader.database.rows(
                "SELECT partition, next_offset FROM applied WHERE agent = ? AND topic = ?", FEATURES_AGENT, RATINGS
            )
        except (StoreMissing, StoreUnavailable):
            self.close()
            return {}
        found, now = {partition: int(offset) for partition, offset in rows}, self._monotonic_s()
        if found != self._applied:
            self._applied, self._changed_at = found, now
        elif now - self._changed_at > _REOPEN_S:  # SQLite goes on reading a file that was deleted
            self._changed_at = now
            self.close()
        return found

    def histories(self, user_ids: Sequence[int], partition: int) -> LoggedHistories:
        """See :meth:`FeatureReader.logged_histories`. Raises StoreUnavailable where there is no store any more."""
        try:
            self._reader = self._reader or FeatureReader(self._url)
            return self._reader.logged_histories(user_ids, partition)
        except StoreError as error:
            self.close()
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

"""Records of a partition that wait for their turn, decoded once, and how far they may be taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.aggregate import Cursor
from streams.batch import RatingBatch, decode_ratings
from streams.records import Int64s, RecordBatch

__all__ = ["Backlog", "Enter", "Taken", "Waiting", "closed_at", "pass_boundaries", "pass_times"]

Enter = Callable[[int, Sequence[int]], str]
"""Given an event time and the boundaries passed by then, what has to be waited for before it; empty for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A decoded batch, and when each of its ratings was published: int64 (n,), milliseconds since the epoch."""

    batch: RatingBatch
    published_ms: Int64s

    @classmethod
    def of(cls, records: RecordBatch) -> Waiting:
        batch = decode_ratings(records)
        return cls(batch, records.timestamps_ms[np.searchsorted(records.offsets, batch.offset)])

    def cut(self, offset: int) -> tuple[Waiting, Waiting]:
        """What stands below ``offset``, and the rest."""
        below, above = self.batch.cut(offset)
        return Waiting(below, self.published_ms[: len(below)]), Waiting(above, self.published_ms[len(below) :])


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What may be done now, in order. n_whole: how many waiting batches that ends; rest: of one that it begins.

    why: what the next record waits for, empty where there is none, or the step was full.
    """

    parts: list[Waiting]
    n_whole: int
    rest: Waiting | None
    why: str


class Backlog:
    """Grows by :meth:`add` from any thread; all else by one thread at a time."""

    def __init__(self) -> None:
        self._records: deque[RecordBatch] = deque()
        self._decoded: deque[Waiting] = deque()

    def __bool__(self) -> bool:
        return bool(self._records or self._decoded)

    @property
    def n_records(self) -> int:
        """How many wait."""
        return sum(map(len, list(self._records))) + sum(len(one.batch) for one in list(self._decoded))

    def add(self, records: RecordBatch) -> None:
        self._records.append(records)

    def take(
        self, cursor: Cursor, *, applied: int, most: int, live_from: int, boundaries: Sequence[int], enter: Enter
    ) -> Taken:
        """About ``most`` records from the cursor on, as far as the features have ``applied`` them, up to the first live
        rating that may not be entered. Nothing is removed: see :meth:`done`.
        """
        closed, passed = cursor.closed, list(boundaries)
        parts: list[Waiting] = []
        n_whole = n_records = 0
        while n_records < most and self._decode(n_whole):
            waiting = self._decoded[n_whole]
            batch = waiting.batch
            begin = max(batch.first_offset, cursor.next_offset)
            end, why = closed_at(batch, cursor, live_from, closed, passed, enter)
            if applied < end:
                end, why = applied, f"features to apply offset {end - 1}, they have applied all below {applied}"
            if end < batch.next_offset:
                rest = None
                if end > begin:
                    done, rest = waiting.cut(end)
                    parts.append(done)
                return Taken(parts, n_whole, rest, why)
            n_whole += 1
            if batch.next_offset > cursor.next_offset:
                parts.append(waiting)
                n_records += batch.next_offset - begin
                closed = pass_boundaries(batch, cursor, closed, passed)
        return Taken(parts, n_whole, None, "")

    def _decode(self, place: int) -> bool:
        """Whether there is a batch at ``place``, decoded now."""
        while len(self._decoded) <= place and self._records:
            self._decoded.append(Waiting.of(self._records.popleft()))
        return len(self._decoded) > place

    def done(self, taken: Taken) -> None:
        """Forget what was taken."""
        for _ in range(taken.n_whole):
            self._decoded.popleft()
        if taken.rest is not None:
            self._decoded[0] = taken.rest


def closed_at(
    batch: RatingBatch, cursor: Cursor, live_from: int, closed: int, passed: Sequence[int], enter: Enter
) -> tuple[int, str]:
    """The offset of the first live rating that may not be entered, and why; the batch's end where all may.

    closed, passed: the last boundary before the batch, and all that are remembered, rising. Ticks, and ratings of the
    training part, need nobody.
    """
    live = np.flatnonzero((batch.timestamp >= live_from) & (batch.offset >= cursor.next_offset))
    if not len(live):
        return batch.next_offset, ""
    boundaries = list(passed)
    ticks = np.flatnonzero(batch.tick_boundary & (batch.tick_offset >= cursor.next_offset))
    starts, times = [0, *batch.tick_position[ticks].tolist()], [closed, *batch.tick_time[ticks].tolist()]
    for start, end, tick in zip(starts, [*starts[1:], len(batch)], times, strict=True):
        if tick > closed:
            closed = tick
            boundaries.append(tick)
        first = int(np.searchsorted(live, start))
        if first < len(live) and live[first] < end and (why := enter(max(closed, live_from), boundaries)):
            return int(batch.offset[live[first]]), why
    return batch.next_offset, ""


def pass_boundaries(batch: RatingBatch, cursor: Cursor, closed: int, passed: list[int]) -> int:
    """Add the boundaries of what lies beyond the cursor to ``passed``; returns the last of all."""
    new = batch.tick_boundary & (batch.tick_offset >= cursor.next_offset)
    return pass_times(batch.tick_time[new].tolist(), closed, passed)


def pass_times(event_times: Iterable[int], closed: int, passed: list[int]) -> int:
    """Add those that rise above ``closed``; returns the last of all."""
    for event_time in event_times:
        if event_time > closed:
            closed = event_time
            passed.append(event_time)
    return closed

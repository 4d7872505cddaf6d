"""What was read of several logs and waits for its day: held by partition until each has the tick that ends the day.

A day's records are those that stand before its tick, so what a close is made of depends on the logs alone: not on
batches, speed, the order in which partitions come, or restarts. A close says how far it has read each partition; from
there a successor reads on, and has what this one held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from agents.monitor_columns import Columns
from agents.monitor_records import NOTHING, TakenRecords
from featurestore.aggregate import Cursor, find_duplicates
from streams.batch import InvalidRecord
from streams.events import RATINGS
from streams.records import TopicPartition

__all__ = ["DayLog", "DayRecords", "Rejected"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An invalid record, and where it stood. number: of its partition's rejected ones, from 1 on."""

    topic: str
    partition: int
    number: int
    record: InvalidRecord


@dataclass(frozen=True, slots=True, eq=False)
class DayRecords:
    """All that stands before the boundary ``event_time``, by topic, and how far each partition is read with it.

    end_of_run: the boundary is the end of the run. sources: by partition, those whose last ids may have moved.
    """

    event_time: int
    end_of_run: bool
    columns: dict[str, Columns]
    rejected: list[Rejected]
    cursors: dict[TopicPartition, Cursor]
    sources: dict[TopicPartition, set[str]]


@dataclass(slots=True, eq=False)
class _Stretch:
    """What stands between two boundary ticks of a partition. before, after: the cursor at the tick that ends it."""

    before: Cursor
    after: Cursor
    time: int = 0
    end_of_run: bool = False
    records: list[Columns] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)


class _Lane:
    """One partition: stretches that are over, the one that is open, and how far both were read."""

    def __init__(self, tp: TopicPartition, cursor: Cursor) -> None:
        self.tp = tp
        self.read = cursor
        self.taken = cursor
        self.over: deque[_Stretch] = deque()
        self.open = _Stretch(cursor, cursor)
        self.held = 0

    def take(self, batch: TakenRecords) -> None:
        if batch.next_offset <= self.read.next_offset:
            return
        begin = int(np.searchsorted(batch.offset, self.read.next_offset))
        invalid = deque(record for record in batch.invalid if record.offset >= self.read.next_offset)
        self.read = replace(self.read, published_ms=batch.published_ms)
        ticks = zip(batch.tick_position, batch.tick_offset, batch.tick_time, batch.tick_end, strict=True)
        for position, offset, time, end in ticks:
            if offset < self.read.next_offset:
                continue
            self._take(batch.columns, begin, position, invalid, offset)
            begin = max(begin, position)
            self._tick(offset, time, end)
        self._take(batch.columns, begin, len(batch.columns), invalid, batch.next_offset)
        self.read = replace(self.read, next_offset=batch.next_offset, clock=max(self.read.clock, batch.clock))

    def _take(self, columns: Columns, begin: int, end: int, invalid: deque[InvalidRecord], before: int) -> None:
        """Records ``begin`` to ``end``, and what is invalid below the offset ``before``."""
        cursor, stretch = self.read, self.open
        while invalid and invalid[0].offset < before:
            cursor = replace(cursor, invalid=cursor.invalid + 1, emitted=cursor.emitted + 1)
            stretch.rejected.append(Rejected(*self.tp, cursor.emitted, invalid.popleft()))
        if end > begin:
            part = columns.take(slice(begin, end))
            duplicate, last_ids = find_duplicates(part, cursor.last_ids)
            if duplicate.any():
                part = part.take(~duplicate)
            stretch.records.append(part)
            stretch.sources.update(part.sources)
            n_duplicates = int(duplicate.sum())
            self.held += len(part)
            cursor = replace(
                cursor,
                ratings=cursor.ratings + len(part),
                duplicates=cursor.duplicates + n_duplicates,
                last_ids=last_ids,
            )
        self.read = cursor

    def _tick(self, offset: int, time: int, end: bool) -> None:
        before = replace(self.read, next_offset=offset)
        self.read = replace(before, next_offset=offset + 1, clock=max(before.clock, time))
        if end:
            self.read = replace(self.read, end_of_run=True)
        if time <= before.closed:
            return  # told again, or by somebody whose clock is behind: it ends nothing
        self.read = replace(self.read, closed=time)
        self.open.time, self.open.end_of_run, self.open.before, self.open.after = time, end, before, self.read
        self.over.append(self.open)
        self.open = _Stretch(self.read, self.read)

    def give(self, event_time: int) -> _Stretch:
        """What stands before the first tick at ``event_time`` or after it; ``taken`` moves on with it."""
        first = self.over[0]
        if first.time == event_time:
            self.over.popleft()
            given, self.taken = first, first.after
        else:  # this partition has no tick of that time: what stands before its next one has come by then
            given, self.taken = replace(first, end_of_run=False), first.before
            first.records, first.rejected, first.sources = [], [], set()
        self.held -= sum(map(len, given.records))
        return given


class DayLog:
    """Records of the partitions in ``cursors``, each from its cursor on."""

    def __init__(self, cursors: Mapping[TopicPartition, Cursor]) -> None:
        self._lanes = {tp: _Lane(tp, cursor) for tp, cursor in sorted(cursors.items())}

    def take(self, batches: Iterable[TakenRecords]) -> None:
        """Take in what was read; what was read before, and what is of other partitions, is left out."""
        for batch in batches:
            if (lane := self._lanes.get(TopicPartition(batch.topic, batch.partition))) is not None:
                lane.take(batch)

    def next_boundary(self) -> int | None:
        """The event time up to which all that comes before it is here; None while a partition has no tick to tell."""
        if not self._lanes or not all(lane.over for lane in self._lanes.values()):
            return None
        return min(lane.over[0].time for lane in self._lanes.values())

    def close(self) -> DayRecords:
        """Give what stands before the next boundary, which there must be."""
        event_time = self.next_boundary()
        assert event_time is not None
        given = {tp: lane.give(event_time) for tp, lane in self._lanes.items()}
        parts: dict[str, list[Columns]] = {topic: [nothing] for topic, nothing in NOTHING.items()}
        for tp, stretch in given.items():
            parts[tp.topic] += stretch.records
        return DayRecords(
            event_time=event_time,
            end_of_run=all(stretch.end_of_run for tp, stretch in given.items() if tp.topic == RATINGS),
            columns={topic: type(held[0]).concat(held) for topic, held in parts.items()},
            rejected=[rejected for stretch in given.values() for rejected in stretch.rejected],
            cursors={tp: lane.taken for tp, lane in self._lanes.items()},
            sources={tp: stretch.sources for tp, stretch in given.items()},
        )

    @property
    def held(self) -> int:
        """Records that wait for their day."""
        return sum(lane.held for lane in self._lanes.values())

    def ahead(self) -> frozenset[TopicPartition]:
        """Partitions that a close does not wait for."""
        return frozenset(tp for tp, lane in self._lanes.items() if lane.over)

    def behind(self) -> frozenset[TopicPartition]:
        """Partitions that the next close waits for, while others have their tick."""
        return frozenset() if not self.ahead() else frozenset(self._lanes) - self.ahead()

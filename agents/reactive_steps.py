"""The work of reactive users: slates in, what came of each out, one transaction for all that was read.

Answers and boundary ticks go to ``feedback`` in the order of ``impressions``, under running ids. What a slate is
answered with depends on the slate alone, so batches, speed and restarts change no byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from agents.lines import Page
from agents.lines_store import write_lines
from agents.loop_stats import LoopStats
from agents.reactive_store import REACTIVE, ReactiveWriter
from agents.reactive_users import ReactiveUsers
from agents.slate_reader import BoundaryTick, ReadRecords, identities_of, read_records
from agents.tally import Tally, add_tallies
from featurestore.aggregate import Cursor, find_duplicates
from featurestore.database import Database
from streams.bus import OffsetRange, TopicInfo
from streams.events import FEEDBACK, Feedback, Slate, Tick
from streams.records import Int64s, RecordBatch, TopicPartition

__all__ = ["ReactiveSteps"]


@dataclass(slots=True)
class _Part:
    """A partition's part of a step. after: its cursor then. published_ms: of its slates."""

    after: Cursor
    page: Page = field(default_factory=lambda: Page(FEEDBACK))
    sources: set[str] = field(default_factory=set)
    gained: dict[str, Tally] = field(default_factory=dict)
    published_ms: list[Int64s] = field(default_factory=list)


class ReactiveSteps:
    """One thread at a time, which may be another each time; what only tells may be called meanwhile.

    A cursor's ``ratings`` are the slates of its partition; those of them that are in no tally were strangers'.
    """

    def __init__(
        self,
        writer: ReactiveWriter,
        users: ReactiveUsers,
        *,
        run_id: str = "",
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.writer = writer
        self.stats = LoopStats()
        self._users = users
        self._run_id = run_id
        self._wall_ms = wall_ms
        self._tallies: dict[int, dict[str, Tally]] = {}

    def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        start = self.writer.assign(log, ranges)
        self._tallies = self._tallies | {tp.partition: self.writer.tallies(tp.partition) for tp in ranges}
        return start

    def release(self, partitions: Iterable[int]) -> None:
        """Do nothing more for these partitions."""
        gone = set(partitions)
        self.writer.release(gone)
        self._tallies = {p: tallies for p, tallies in self._tallies.items() if p not in gone}

    def close(self) -> None:
        self.writer.close()

    @property
    def tallies(self) -> dict[str, Tally]:
        """Counts of each variant by its name, of the partitions held, over the store's life."""
        return add_tallies(list(self._tallies.values()))

    @property
    def strangers(self) -> int:
        """Slates that nobody answered, since their user or a movie is not of the world."""
        seen = sum(cursor.ratings for cursor in self.writer.cursors.values())
        return seen - sum(tally.slates for tally in self.tallies.values())

    def apply(self, batches: Sequence[RecordBatch]) -> None:
        """Answer what is in the batches and was not answered before; those of partitions not held are left alone.

        Raises what a PartitionWriter does; then all is as it was before, and the same call may be made again.
        """
        while not self._step(batches):
            self._tallies = {p: self.writer.tallies(p) for p in self.writer.cursors}

    def _step(self, batches: Sequence[RecordBatch]) -> bool:
        """False where the store was further than was known here, by this writer's own doing: nothing was done then."""
        cursors = self.writer.cursors
        parts: dict[int, _Part] = {}
        for batch in batches:
            if (cursor := cursors.get(batch.partition)) is not None:
                self._read(parts.setdefault(batch.partition, _Part(cursor)), batch)
        parts = {p: part for p, part in parts.items() if part.after is not cursors[p]}
        if not parts:
            return True
        tallies = {p: add_tallies([self._tallies[p], part.gained]) for p, part in parts.items()}

        def write(database: Database) -> None:
            for partition, part in sorted(parts.items()):
                write_lines(database, partition, tallies[partition], list(part.page.batches()))

        after = cursors | {p: part.after for p, part in parts.items()}
        if not self.writer.commit(after, {p: part.sources for p, part in parts.items()}, write):
            return False
        self._tallies = self._tallies | tallies
        n_records = sum(part.after.next_offset - cursors[p].next_offset for p, part in parts.items())
        published_ms = [stamps for part in parts.values() for stamps in part.published_ms]
        self.stats.add(n_records, self._wall_ms() - np.concatenate([np.zeros(0, np.int64), *published_ms]))
        return True

    def _read(self, part: _Part, batch: RecordBatch) -> None:
        """Take the batch in from the part's cursor on."""
        begin = part.after.next_offset
        if batch.next_offset <= begin:
            return
        read = read_records(batch.slice(int(np.searchsorted(batch.offsets, begin)), len(batch)))
        identities = identities_of(read.records)
        duplicate, last_ids = find_duplicates(identities, part.after.last_ids)
        part.sources.update(identities.sources)
        fresh = [slate for slate, known in zip(read.records, duplicate.tolist(), strict=True) if not known]
        part.after = replace(
            part.after,
            next_offset=batch.next_offset,
            clock=max(part.after.clock, read.clock),
            ratings=part.after.ratings + len(fresh),
            duplicates=part.after.duplicates + int(duplicate.sum()),
            invalid=part.after.invalid + len(read.invalid),  # the monitors, who read them too, dead-letter them
            published_ms=int(batch.timestamps_ms[-1]),
            last_ids=last_ids,
        )
        answers = iter(self._users.answer_known(fresh))
        for event in _in_order(read, duplicate.tolist()):
            if isinstance(event, BoundaryTick):
                self._pass_tick(part, event)
            elif (told := next(answers)) is not None:
                self._put(part, told, told.user_id)
                gain = Tally(1, told.n_shown, len(told.clicked))
                part.gained[told.variant] = part.gained.get(told.variant, Tally()) + gain
        at = np.searchsorted(batch.offsets, np.array(read.offsets, np.int64)[~duplicate])
        part.published_ms.append(batch.timestamps_ms[at])

    def _pass_tick(self, part: _Part, tick: BoundaryTick) -> None:
        """On to ``feedback``, unless it was there before: the loop may publish one again."""
        cursor = part.after
        if tick.event_time <= cursor.closed and (cursor.end_of_run or not tick.end_of_run):
            return
        part.after = replace(
            cursor,
            closed=max(cursor.closed, tick.event_time),
            end_of_run=cursor.end_of_run or tick.end_of_run,
        )
        self._put(part, Tick(tick.event_time, end_of_run=tick.end_of_run))

    def _put(self, part: _Part, record: Feedback | Tick, user_id: int | None = None) -> None:
        emitted = part.after.emitted + 1
        part.after = replace(part.after, emitted=emitted)
        source = f"{self._run_id}/{REACTIVE}/{self.writer.topic}/{part.after.partition}"
        part.page.put(msgspec.structs.replace(record, source=source, event_id=emitted), user_id)


def _in_order(read: ReadRecords, duplicate: Sequence[bool]) -> Iterable[Slate | BoundaryTick]:
    """Slates that are no duplicates, and ticks, as they stand in the log."""
    ticks = iter(read.ticks)
    tick = next(ticks, None)
    for position, (slate, known) in enumerate(zip(read.records, duplicate, strict=True)):
        while tick is not None and tick.position <= position:
            yield tick
            tick = next(ticks, None)
        if not known:
            yield slate
    while tick is not None:
        yield tick
        tick = next(ticks, None)

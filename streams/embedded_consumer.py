"""The consumer of the embedded bus. It reads in the event loop: 10,000 records take it about a millisecond."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from streams.bus import OffsetRange
from streams.errors import BusError, OffsetOutOfRange
from streams.log import EmbeddedLog
from streams.records import RecordBatch, TopicPartition
from streams.tail import Tail

__all__ = ["EmbeddedConsumer"]

_MAX_PARTITION_BYTES = 4 << 20
_MAX_FETCH_BYTES = 64 << 20
"""What a fetch stops at, so that memory is bounded for large records; a batch larger than that still comes whole."""


class _Held(NamedTuple):
    """A stored batch of which only a part was asked for: cut further by the next fetches, not read again."""

    batch: RecordBatch
    position: int


class EmbeddedConsumer:
    """See :class:`streams.bus.Consumer`. Belongs to the event loop it was made in."""

    def __init__(
        self,
        log: EmbeddedLog,
        tail: Tail,
        positions: dict[TopicPartition, int],
        group: str | None,
        leave: Callable[[], None] | None,
    ) -> None:
        self._log = log
        self._tail = tail
        self._positions = positions
        self._topics = sorted({tp.topic for tp in positions})
        self._turns = sorted(positions)
        self._group = group
        self._leave = leave
        self._paused: set[TopicPartition] = set()
        self._held: dict[TopicPartition, _Held] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """Every partition of the consumer's topics."""
        return frozenset(self._positions)

    # Reading

    async def fetch(
        self,
        *,
        timeout_s: float = 1.0,
        max_records: int = 10_000,
        partitions: Iterable[TopicPartition] | None = None,
    ) -> list[RecordBatch]:
        """See :meth:`streams.bus.Consumer.fetch`. Raises OffsetOutOfRange, and BusError for a corrupt batch.

        Then no position has moved, not even of the partitions that could be read.
        """
        self._check_open()
        if max_records < 1:
            raise ValueError(f"max_records: expected at least 1, found {max_records}")
        wanted = None if partitions is None else self._assigned(partitions)
        await asyncio.sleep(0)  # or a loop of fetches from a full log lets nobody else run
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not self._closed:
            seen = self._tail.version()
            if batches := self._read(wanted, max_records):
                return batches
            left_s = deadline - loop.time()
            if left_s <= 0 or not await self._tail.changed(seen, left_s):
                break
        return []

    def _read(self, wanted: set[TopicPartition] | None, max_records: int) -> list[RecordBatch]:
        ranges = self._log.offsets(self._topics)
        batches: list[RecordBatch] = []
        n_bytes = 0
        next_turn = 1
        for n_served, tp in enumerate(self._turns):
            if n_bytes >= _MAX_FETCH_BYTES:
                next_turn = n_served
                break
            if tp in self._paused or (wanted is not None and tp not in wanted):
                continue
            if (batch := self._read_partition(tp, ranges[tp], max_records)) is not None:
                batches.append(batch)
                n_bytes += batch.n_bytes
        # Only now: had one partition raised, what was read of the others would be lost to who seeks and fetches again.
        for batch in batches:
            self._positions[batch.tp] = batch.next_offset
        if batches:
            self._turns = self._turns[next_turn:] + self._turns[:next_turn]
        return batches

    def _read_partition(self, tp: TopicPartition, held: OffsetRange, max_records: int) -> RecordBatch | None:
        position = self._positions[tp]
        if not held.start <= position <= held.end:
            why = "retention has removed what was there" if position < held.start else "the log ends before it"
            raise OffsetOutOfRange(
                f"bus {self._log.name}: topic {tp.topic}, partition {tp.partition}: expected an offset from "
                f"{held.start} to {held.end}, found {position}: {why}; seek to an offset in between"
            )
        if position == held.end:
            return None
        kept = self._held.pop(tp, None)
        batch = kept.batch if kept is not None and kept.position == position else None
        if batch is None:
            batch = self._log.read(tp, position, max_records=max_records, max_bytes=_MAX_PARTITION_BYTES)
        if batch is None or batch.first_offset > position:
            return None  # retention came in between: the next look at the range tells
        start = position - batch.first_offset
        stop = min(start + max_records, len(batch))
        if stop < len(batch):
            self._held[tp] = _Held(batch, batch.first_offset + stop)
        return batch.slice(start, stop)

    # Positions

    def position(self, tp: TopicPartition) -> int:
        """The offset of the next record to fetch."""
        self._assigned([tp])
        return self._positions[tp]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on at ``offset``; one outside the log is noticed by the next fetch."""
        self._assigned([tp])
        self._positions[tp] = offset
        self._tail.wake()

    async def seek_to_beginning(self, *tps: TopicPartition) -> None:
        """Go to the oldest records still held; all partitions if none are named."""
        for tp, held in self._ranges(tps).items():
            self.seek(tp, held.start)

    async def seek_to_end(self, *tps: TopicPartition) -> None:
        """Go behind the newest records; all partitions if none are named."""
        for tp, held in self._ranges(tps).items():
            self.seek(tp, held.end)

    def _ranges(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        wanted = self._assigned(tps) or self._positions
        return {tp: held for tp, held in self._log.offsets(self._topics).items() if tp in wanted}

    def pause(self, *tps: TopicPartition) -> None:
        """Fetch nothing from these until :meth:`resume`."""
        self._paused |= self._assigned(tps)

    def resume(self, *tps: TopicPartition) -> None:
        """End :meth:`pause`."""
        self._paused -= self._assigned(tps)
        self._tail.wake()

    def _assigned(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        asked = set(tps)
        if not asked <= self._positions.keys():
            strangers = ", ".join(sorted(f"{tp[0]}/{tp[1]}" for tp in asked - self._positions.keys()))
            raise BusError(f"bus {self._log.name}: expected partitions of {', '.join(self._topics)}, found {strangers}")
        return asked

    # Group

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Commit ``offsets``, or all positions; durable on return."""
        self._check_open()
        if self._group is None:
            raise BusError(f"bus {self._log.name}: expected a consumer with a group to commit, found one without")
        chosen = dict(self._positions if offsets is None else offsets)
        self._assigned(chosen)
        if not chosen:
            return
        await asyncio.to_thread(self._log.commit, self._group, chosen)

    async def close(self) -> None:
        """Leave the group, at once; a fetch under way returns nothing. Positions are not committed."""
        self._closed = True
        self._held.clear()
        self._tail.wake()
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _check_open(self) -> None:
        if self._closed:
            raise BusError(f"bus {self._log.name}: the consumer is closed; open another")

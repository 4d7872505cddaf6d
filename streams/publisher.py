"""What the replayer puts on the ``ratings`` topic: a chunk of the total order, split by partition, ticks in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from streams.bus import Producer, RecordMetadata
from streams.chunks import Chunk
from streams.dataset import Ratings
from streams.encode import encode_batch
from streams.errors import BusError
from streams.events import RATINGS, Tick
from streams.records import Int64s
from streams.resume import PartitionTail

__all__ = ["RatingsPublisher"]

_MAX_LINES = 10_000
"""Records per send: what one fetch takes, so that no reader has to cut a stored batch."""


class RatingsPublisher:
    """Publishes parts of chunks as ``source``, to each partition only what follows its tail.

    The first failed send is raised by the next call, and that partition takes nothing more (the producer sees to it),
    so what is on the log is always a prefix of each partition's order.
    """

    def __init__(self, producer: Producer, source: str, tails: Sequence[PartitionTail]) -> None:
        self._producer = producer
        self.source = source
        self.partitions = len(tails)
        self._tails = tails
        self._resumed_to = max(tail.ordinal for tail in tails)
        self._failure: BaseException | None = None
        self.n_ratings = 0
        self.n_ticks = 0

    async def publish(self, chunk: Chunk, start: int, stop: int, ticks: range) -> None:
        """Ratings ``start`` to ``stop`` of the chunk, and its boundary ticks ``ticks``, each at its place."""
        part = chunk.partition[start:stop]
        order = np.argsort(part, kind="stable")  # radix sort on int16: the order within a partition stays
        ends = np.cumsum(np.bincount(part, minlength=len(self._tails)))
        places = chunk.ticks.position[ticks.start : ticks.stop]
        structs = [
            Tick(int(chunk.ticks.event_time[k]), self.source, chunk.first_ordinal + int(chunk.ticks.position[k]) - 1)
            for k in ticks
        ]
        begin = 0
        for partition, end in enumerate(ends.tolist()):
            index = order[begin:end] + start
            begin = end
            before = np.searchsorted(index, places).tolist()
            await self._publish_partition(partition, chunk, index, list(zip(before, structs, strict=True)))

    async def _publish_partition(
        self, partition: int, chunk: Chunk, index: Int64s, ticks: list[tuple[int, Tick]]
    ) -> None:
        """Ratings at ``index`` of the chunk to their partition; ticks as (how many of them stand before it, tick)."""
        tail = self._tails[partition]
        if chunk.first_ordinal <= self._resumed_to + 1:  # the tick before it may be there already
            skip = int(np.searchsorted(index + chunk.first_ordinal, tail.ordinal, "right"))
            index = index[skip:]
            ticks = [(before - skip, tick) for before, tick in ticks if not tail.holds(tick)]
        while len(index) or ticks:
            k = sum(before + place < _MAX_LINES for place, (before, _) in enumerate(ticks))
            here, piece, index = ticks[:k], index[: _MAX_LINES - k], index[_MAX_LINES - k :]
            ticks = [(before - len(piece), tick) for before, tick in ticks[k:]]
            batch = encode_batch(chunk.ratings.take(piece), piece + chunk.first_ordinal, self.source, here)
            await self._send(partition, batch.lines, batch.keys, batch.count)
            self.n_ratings += len(piece)
            self.n_ticks += k

    async def tick(self, tick: Tick) -> None:
        """One tick to every partition whose run has not ended."""
        batch = encode_batch(_NO_RATINGS, _NO_IDS, self.source, [(0, tick)])
        for partition, tail in enumerate(self._tails):
            if not tail.end_of_run:
                await self._send(partition, batch.lines, batch.keys, 1)
                self.n_ticks += 1

    async def flush(self) -> None:
        """Wait until all is durable; raises the first error of any send."""
        await self._producer.flush()
        self._raise_failure()

    async def _send(self, partition: int, lines: bytes, keys: bytes, count: int) -> None:
        self._raise_failure()
        try:
            sent = await self._producer.send_batch(RATINGS, partition, lines, count=count, keys=keys)
        except BusError:
            await self.flush()  # refused because an earlier send failed: that error is the one to tell
            raise
        sent.add_done_callback(self._sent)

    def _sent(self, future: asyncio.Future[RecordMetadata]) -> None:
        if not future.cancelled():
            failure = future.exception()
            self._failure = self._failure or failure

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


_NO_IDS = np.empty(0, np.int64)
_NO_RATINGS = Ratings(_NO_IDS, _NO_IDS, np.empty(0, np.float64), _NO_IDS)

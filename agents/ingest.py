"""Record batches into the feature store: retried while the store is away, taken apart when a record breaks the core.

Errors of the store are waited out or stop the worker, and never touch a record. An error of decoding or of the pure
core is tried three times, then the batch is bisected until the guilty record stands alone; it is dead-lettered, and
everything around it is applied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog

from agents.latency_log import LatencyLog
from agents.store_thread import StoreThread
from featurestore.partition_writer import OutboxRow
from featurestore.writer import AppliedBatch, FeatureWriter
from streams.batch import InvalidRecord, RatingBatch, decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.errors import StreamLensError
from streams.records import RecordBatch, TopicPartition

__all__ = ["FeatureIngest", "IngestStats"]

_TRIES = 3

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class IngestStats:
    """What the ingest has done since it started; latencies: of records, from publishing to stored.

    Added to by the store's thread, read by the event loop's.
    """

    records: int = 0
    ratings: int = 0
    duplicates: int = 0
    late: int = 0
    invalid: int = 0
    transactions: int = 0
    store_errors: int = 0
    waiting_for_store: str = ""
    latencies: LatencyLog = field(default_factory=LatencyLog)

    def add(self, applied: AppliedBatch, batches: Sequence[RecordBatch], now_ms: int) -> None:
        self.transactions += 1
        self.ratings += applied.ratings
        self.duplicates += applied.duplicates
        self.late += applied.late
        self.invalid += applied.invalid
        for batch in batches:
            self.records += len(batch)
            self.latencies.add(now_ms - batch.timestamps_ms)


class FeatureIngest:
    """Applies record batches of the ``ratings`` topic through a writer, on a thread of its own.

    ``store_patience_s``: how long to retry a store that is away before giving up with its error.
    """

    def __init__(
        self,
        writer: FeatureWriter,
        *,
        store_patience_s: float = 30.0,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        decode: Callable[[RecordBatch], RatingBatch] = decode_ratings,
    ) -> None:
        self.writer = writer
        self.stats = IngestStats()
        self._store = StoreThread("feature-store", patience_s=store_patience_s, stats=self.stats)
        self._wall_ms = wall_ms
        self._decode = decode
        self._term = 0  # ends whenever partitions are released

    async def apply(self, batches: Sequence[RecordBatch]) -> None:
        """Apply the batches; returns once they are committed. Raises the store's error when patience ran out.

        Once partitions are released, batches from before are left alone: they come again to whoever goes on from the
        store's offsets, which may lie before them, where the store has lost its last transactions.
        """
        await self._store.patiently(self._apply_of_term, self._term, batches)

    def _apply_of_term(self, term: int, batches: Sequence[RecordBatch]) -> None:
        if term == self._term:
            self._apply(batches)

    async def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        return await self._store.patiently(self.writer.assign, log, ranges)

    async def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions; returns once nothing of them is under way."""
        self._term += 1
        await self._store.run(self.writer.release, partitions)

    async def check(self) -> None:
        """Raise StoreSetBack where the store has lost what was applied, StoreUnavailable where it is away."""
        await self._store.run(self.writer.check)

    async def outbox(self) -> list[OutboxRow]:
        """The oldest records still to be published."""
        return await self._store.run(self.writer.outbox)

    async def published(self, rows: Sequence[OutboxRow]) -> None:
        """Forget outbox rows that the bus has acknowledged."""
        await self._store.run(self.writer.published, rows)

    def _apply(self, batches: Sequence[RecordBatch]) -> None:
        """On the store's thread: one transaction if all goes well, more when a record must be found."""
        held = self.writer.cursors
        batches = [batch for batch in batches if batch.partition in held]
        if not batches:
            return
        for attempt in range(_TRIES):
            try:
                applied = self.writer.apply([self._decode(batch) for batch in batches])
            except StreamLensError:
                raise
            except Exception as error:  # whatever a record does to the core must not stop the stream
                log.warning("applying records failed", attempt=attempt + 1, error=repr(error))
                reason = f"cannot be applied: {error!r}"
            else:
                self.stats.add(applied, batches, self._wall_ms())
                return
        if sum(map(len, batches)) == 1:
            (guilty,) = (batch for batch in batches if len(batch))
            applied = self.writer.apply([_rejected(guilty, reason)])
            self.stats.add(applied, batches, self._wall_ms())
            return
        for half in _halves(batches):
            self._apply(half)

    def close(self) -> None:
        """Wait for the transaction under way, then close the store."""
        self._store.close()
        self.writer.close()


def _halves(batches: Sequence[RecordBatch]) -> tuple[Sequence[RecordBatch], Sequence[RecordBatch]]:
    if len(batches) > 1:
        middle = len(batches) // 2
        return batches[:middle], batches[middle:]
    middle = len(batches[0]) // 2
    return [batches[0].slice(0, middle)], [batches[0].slice(middle, len(batches[0]))]


def _rejected(record: RecordBatch, reason: str) -> RatingBatch:
    """A batch of one record that holds no rating and no tick, only the record as invalid."""
    nothing = np.zeros(0, np.int64)
    return RatingBatch(
        topic=record.topic,
        partition=record.partition,
        first_offset=record.first_offset,
        next_offset=record.next_offset,
        published_ms=int(record.timestamps_ms[-1]),
        offset=nothing,
        source=nothing,
        event_id=nothing,
        user_id=nothing,
        movie_id=nothing,
        half_stars=nothing,
        timestamp=nothing,
        sources=[],
        tick_position=nothing,
        tick_offset=nothing,
        tick_time=nothing,
        tick_boundary=np.zeros(0, bool),
        tick_ends_run=np.zeros(0, bool),
        invalid=[InvalidRecord(record.first_offset, reason, record.values[0])],
    )

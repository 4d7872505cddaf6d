"""What an aiokafka consumer has fetched, taken as columns.

aiokafka makes an object of 11 fields of each record, which costs more than all that is done with it afterwards. This
reads the fetched batches below that, by what aiokafka 0.14 keeps in its fetcher; the bus contract suite runs over it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException

from streams.records import RecordBatch, TopicPartition, join_values

__all__ = ["fetched_batches"]


class _Columns:
    """The rest of one partition's fetch. Stands where aiokafka has its iterator over records."""

    def __init__(self, tp: TopicPartition, fetched: Any) -> None:
        self.next_fetch_offset: int = fetched.next_fetch_offset
        self._tp = tp
        self._fetched = fetched
        self._held: list[Any] = []
        self._held_end = self.next_fetch_offset

    @property
    def empty(self) -> bool:
        return not self._held and not self._fetched._records.has_next()

    def take(self, max_records: int) -> RecordBatch | None:
        """At most so many records; None where only markers or aborted records came, which are passed over."""
        records: list[Any] = []
        while len(records) < max_records and (self._held or self._next_batch()):
            room = max_records - len(records)
            records += self._held[:room]
            self._held = self._held[room:]
        self.next_fetch_offset = self._held[0].offset if self._held else self._held_end
        if not records:
            return None
        values = [record.value or b"" for record in records]
        keys = [record.key for record in records]
        return RecordBatch(
            topic=self._tp.topic,
            partition=self._tp.partition,
            offsets=np.array([record.offset for record in records], np.int64),
            timestamps_ms=np.array([record.timestamp for record in records], np.int64),
            next_offset=self.next_fetch_offset,
            lines=join_values(values),
            _values=values,
            _keys=keys if any(key is not None for key in keys) else None,
        )

    def _next_batch(self) -> bool:
        """Hold the records of the next stored batch, which may have none for us; False after the last."""
        fetched = self._fetched
        if not fetched._records.has_next():
            return False
        batch = fetched._records.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"{self._tp.topic}/{self._tp.partition} at offset {self._held_end}")
        wanted = not batch.is_control_batch
        if fetched._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            fetched._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and fetched._contains_abort_marker(batch):
                fetched._aborted_producers.discard(batch.producer_id)
            wanted &= not (batch.is_transactional and batch.producer_id in fetched._aborted_producers)
        # A fetch from the middle of a stored batch gets all of it; compaction leaves gaps.
        at = self._held_end
        self._held = [record for record in batch if record.offset >= at] if wanted else []
        self._held_end = max(batch.next_offset, at)
        return True


async def fetched_batches(
    reader: AIOKafkaConsumer, wanted: Collection[TopicPartition], timeout_s: float, max_records: int
) -> list[RecordBatch]:
    """At most one batch of at most ``max_records`` of each wanted partition; [] if none came in time.

    Topics are as on the wire. Raises the error of a partition that could not be read, once no other has anything.
    """
    fetcher = reader._fetcher
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not reader._closed:
        batches: list[RecordBatch] = []
        for tp in [tp for tp in fetcher._records if tp in wanted]:
            result = fetcher._records[tp]
            if type(result) is FetchResult:
                try:
                    batch = _take(result, tp, max_records)
                except CorruptRecordException:
                    _remove(fetcher, tp)  # to be fetched once more, and found corrupt by who has nothing else to get
                    if batches:
                        continue
                    raise
                if not result.has_more():
                    _remove(fetcher, tp)
                if batch is not None:
                    batches.append(batch)
            elif not batches:
                _remove(fetcher, tp)
                result.check_raise()
        if batches:
            return batches
        left_s = deadline - loop.time()
        if left_s <= 0:
            break
        waiter = fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=left_s)
        if not done:
            waiter.cancel()
            break
        waiter.result()  # raises what the group's coordinator was refused
    return []


def _take(result: FetchResult, tp: TopicPartition, max_records: int) -> RecordBatch | None:
    if not isinstance(result._partition_records, _Columns):
        result._partition_records = _Columns(TopicPartition(*tp), result._partition_records)
    if not result.check_assignment(tp):  # paused, revoked or gone elsewhere meanwhile: fetched again when wanted
        return None
    columns = result._partition_records
    with _collector_paused():
        batch = columns.take(max_records)
    result._update_position()
    if columns.empty:
        result._partition_records = None
    return batch


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No cycles are looked for meanwhile: ten thousand short-lived objects would have Python go through all it holds,
    several times a fetch, which took a third of a worker's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _remove(fetcher: Any, tp: TopicPartition) -> None:
    """Let the partition be fetched again."""
    del fetcher._records[tp]
    fetcher._notify(fetcher._wait_consume_future)

"""What the producers of all buses share: checks, the choice of a partition, back-pressure, what became of a send."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, Self, TypeVar

from streams.bus import RecordMetadata
from streams.errors import BusError
from streams.murmur2 import partition_for
from streams.records import TopicPartition

__all__ = ["MAX_SEND_BYTES", "BoundedProducer", "first_of_all", "refused_after"]

MAX_SEND_BYTES = 64 << 20
"""The most that one send takes: it has to be held in memory at once, and a record by its readers, too."""

_YIELD_EVERY = 512

Records = TypeVar("Records")


class BoundedProducer(ABC, Generic[Records]):
    """See :class:`streams.bus.Producer`. Belongs to the event loop it was made in.

    ``Records`` is what a bus makes of one send. It queues them (:meth:`_enqueue`), and settles each future that it has
    returned (:meth:`_settle`); until then their bytes count against ``max_pending_bytes``.
    """

    def __init__(self, bus_name: str, max_pending_bytes: int) -> None:
        self._bus_name = bus_name
        self._max_pending_bytes = max_pending_bytes
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[str, int] = {}
        self._next_partition = 0
        self._sent = 0
        self._pending_bytes = 0
        self._queue_for_room = asyncio.Lock()
        self._progress = asyncio.Event()
        self._first_failure: BusError | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # What a bus does in its own way

    @abstractmethod
    async def _partitions_of(self, topic: str) -> int:
        """How many partitions the topic has. Raises UnknownTopic."""

    @abstractmethod
    async def _put_record(
        self, tp: TopicPartition, value: bytes, key: bytes | None, timestamp_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        """:meth:`_put` one record."""

    @abstractmethod
    async def _put_lines(
        self, tp: TopicPartition, lines: bytes, keys: bytes | None, count: int, timestamp_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        """:meth:`_put` the ``count`` records of a batch; the future is the first one's, once all are durable."""

    @abstractmethod
    def _enqueue(self, tp: TopicPartition, records: Records, size: int) -> asyncio.Future[RecordMetadata]:
        """Queue what has room."""

    @abstractmethod
    def refusal(self, tp: TopicPartition) -> BusError | None:
        """Why the partition takes nothing more from this producer; None if it does."""

    @abstractmethod
    def _hurry(self) -> None:
        """Let nothing that is queued linger."""

    # What is the same on all

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """See :meth:`streams.bus.Producer.send`. Raises UnknownTopic, and BusError after a failure."""
        if partition is None:
            partition = await self._choose_partition(topic, key)
        return await self._put_record(TopicPartition(topic, partition), value, key, _published_ms(timestamp_ms))

    async def send_batch(
        self,
        topic: str,
        partition: int,
        lines: bytes,
        *,
        count: int,
        keys: bytes | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """See :meth:`streams.bus.Producer.send_batch`. Raises as :meth:`send`."""
        if count < 1:
            raise ValueError(f"count: expected at least 1, found {count}")
        for name, joined in (("lines", lines), ("keys", keys)):
            if joined is not None and (found := joined.count(b"\n") + 1) != count:
                raise ValueError(f"{name}: expected {count} lines, found {found}")
        return await self._put_lines(TopicPartition(topic, partition), lines, keys, count, _published_ms(timestamp_ms))

    async def _count_of(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = await self._partitions_of(topic)
        return self._partitions[topic]

    async def _choose_partition(self, topic: str, key: bytes | None) -> int:
        partitions = await self._count_of(topic)
        if key is not None:
            return partition_for(key, partitions)
        self._next_partition = (self._next_partition + 1) % partitions
        return self._next_partition

    async def _put(self, tp: TopicPartition, records: Records, size: int) -> asyncio.Future[RecordMetadata]:
        """Queue ``records`` of ``size`` bytes once there is room."""
        if not 0 <= tp.partition < await self._count_of(tp.topic):
            raise BusError(
                f"bus {self._bus_name}: topic {tp.topic!r}: expected a partition from 0 to "
                f"{self._partitions[tp.topic] - 1}, found {tp.partition}"
            )
        if size > MAX_SEND_BYTES:
            raise BusError(
                f"bus {self._bus_name}: topic {tp.topic!r}: expected at most {MAX_SEND_BYTES} bytes in one send, "
                f"found {size}; send less at a time"
            )
        self._sent += 1
        if self._sent % _YIELD_EVERY == 0:
            await asyncio.sleep(0)  # a tight loop of sends lets nobody else run until it is held back
        if self._queue_for_room.locked() or not self._has_room(size):
            async with self._queue_for_room:  # one after the other, so that the order stays
                while not self._has_room(size):
                    await self._wait_for_progress()
        if self._closed:
            raise BusError(f"bus {self._bus_name}: the producer is closed; open another to publish")
        if (refusal := self.refusal(tp)) is not None:
            raise refusal
        written = self._enqueue(tp, records, size)
        self._pending_bytes += size
        return written

    def _has_room(self, size: int) -> bool:
        return not self._pending_bytes or self._pending_bytes + size <= self._max_pending_bytes

    async def _wait_for_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    def _settle(self, written: asyncio.Future[RecordMetadata], size: int, outcome: RecordMetadata | BusError) -> None:
        """``size`` bytes of what was put are durable, or have failed."""
        self._pending_bytes -= size
        self._progress.set()
        if isinstance(outcome, BusError):
            self._first_failure = self._first_failure or outcome
        if written.done():
            return  # cancelled by who waited
        if isinstance(outcome, BusError):
            written.set_exception(outcome)
            written.exception()  # flush and the log tell; asyncio need not warn of each future
        else:
            written.set_result(outcome)

    async def flush(self) -> None:
        """Wait until all that was sent is durable; raises the first error."""
        await self._drain()
        if self._first_failure is not None:
            raise self._first_failure

    async def close(self) -> None:
        """Wait until all that was sent is settled; what failed was raised by its send's future and by flush."""
        self._closed = True
        await self._drain()

    async def _drain(self) -> None:
        while self._pending_bytes:
            self._hurry()
            await self._wait_for_progress()


def _published_ms(timestamp_ms: int | None) -> int:
    return time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms


def refused_after(failure: BusError, tp: TopicPartition) -> BusError:
    """Why a partition takes nothing more after ``failure``."""
    return type(failure)(
        f"{tp.topic}/{tp.partition}: refused, because an earlier send failed and nothing may overtake it "
        f"({failure}); publish from there with a new producer"
    )


def first_of_all(futures: list[asyncio.Future[RecordMetadata]]) -> asyncio.Future[RecordMetadata]:
    """The first one's result, once all have one, which they get in this order; the first error instead."""
    if len(futures) == 1:
        return futures[0]
    whole: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()

    def last_settled(last: asyncio.Future[RecordMetadata]) -> None:
        if whole.done():
            return
        failures = [error for future in futures if (error := future.exception()) is not None]
        if failures:
            whole.set_exception(failures[0])
            whole.exception()
        else:
            whole.set_result(futures[0].result())

    futures[-1].add_done_callback(last_settled)
    return whole

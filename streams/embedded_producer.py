"""The producer of the embedded bus: checks, chooses partitions, holds back senders; the appender does the writing."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from streams.appender import Appender, Outcome, Send
from streams.bus import RecordMetadata
from streams.errors import BusError
from streams.log import MAX_STORED_RECORDS, EmbeddedLog
from streams.murmur2 import partition_for
from streams.records import TopicPartition
from streams.stored_batch import Pending

__all__ = ["MAX_SEND_BYTES", "EmbeddedProducer"]

MAX_SEND_BYTES = 64 << 20
"""The largest record, and the largest stored batch: a reader has to hold it in memory."""

_YIELD_EVERY = 512


class EmbeddedProducer:
    """See :class:`streams.bus.Producer`. Belongs to the event loop it was made in."""

    def __init__(self, log: EmbeddedLog, appender: Appender, linger_s: float, max_pending_bytes: int) -> None:
        self.linger_s = linger_s
        self._log = log
        self._appender = appender
        self._max_pending_bytes = max_pending_bytes
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[str, int] = {}
        self._next_partition = 0
        self._sent = 0
        self._pending_bytes = 0
        self._queue_for_room = asyncio.Lock()
        self._progress = asyncio.Event()
        self._failures: dict[TopicPartition, BusError] = {}
        self._first_failure: BusError | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

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
            partition = self._choose_partition(topic, key)
        published_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        return await self._put(TopicPartition(topic, partition), Pending.record(value, key, published_ms))

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
        """See :meth:`streams.bus.Producer.send_batch`: ``lines`` goes to the log as it is."""
        if count < 1:
            raise ValueError(f"count: expected at least 1, found {count}")
        for name, joined in (("lines", lines), ("keys", keys)):
            if joined is not None and (found := joined.count(b"\n") + 1) != count:
                raise ValueError(f"{name}: expected {count} lines, found {found}")
        published_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        tp = TopicPartition(topic, partition)
        if count <= MAX_STORED_RECORDS:
            return await self._put(tp, Pending(count, published_ms, lines, keys))
        # Readers take whole stored batches: a huge one would cost each of its readers its whole size at once.
        each_key = None if keys is None else keys.split(b"\n")
        return await self._put_cut(tp, lines.split(b"\n"), each_key, published_ms)

    async def _put_cut(
        self, tp: TopicPartition, values: list[bytes], keys: list[bytes] | None, published_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        """Put in pieces; the result is the first one's, when all are durable."""
        futures = []
        for start in range(0, len(values), MAX_STORED_RECORDS):
            stop = start + MAX_STORED_RECORDS
            piece = values[start:stop]
            key_lines = None if keys is None else b"\n".join(keys[start:stop])
            futures.append(await self._put(tp, Pending(len(piece), published_ms, b"\n".join(piece), key_lines)))
        whole: asyncio.Future[RecordMetadata] = self._loop.create_future()

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

    def _count_of(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = self._log.topic(topic).partitions
        return self._partitions[topic]

    def _choose_partition(self, topic: str, key: bytes | None) -> int:
        partitions = self._count_of(topic)
        if key is not None:
            return partition_for(key, partitions)
        self._next_partition = (self._next_partition + 1) % partitions
        return self._next_partition

    async def _put(self, tp: TopicPartition, pending: Pending) -> asyncio.Future[RecordMetadata]:
        if not 0 <= tp.partition < self._count_of(tp.topic):
            raise BusError(
                f"bus {self._log.name}: topic {tp.topic!r}: expected a partition from 0 to "
                f"{self._count_of(tp.topic) - 1}, found {tp.partition}"
            )
        size = pending.size
        if size > MAX_SEND_BYTES:
            raise BusError(
                f"bus {self._log.name}: topic {tp.topic!r}: expected at most {MAX_SEND_BYTES} bytes in one send, found "
                f"{size}; send less at a time"
            )
        self._sent += 1
        if self._sent % _YIELD_EVERY == 0:
            await asyncio.sleep(0)  # a tight loop of sends lets nobody else run until it is held back
        if self._queue_for_room.locked() or not self._has_room(size):
            await self._wait_for_room(size)
        if self._closed:
            raise BusError(f"bus {self._log.name}: the producer is closed; open another to publish")
        if (refusal := self.refusal(tp)) is not None:
            raise refusal
        written: asyncio.Future[RecordMetadata] = self._loop.create_future()
        self._appender.put(Send(self, tp, pending, size, written))
        self._pending_bytes += size
        return written

    def _has_room(self, size: int) -> bool:
        return not self._pending_bytes or self._pending_bytes + size <= self._max_pending_bytes

    async def _wait_for_room(self, size: int) -> None:
        async with self._queue_for_room:  # one after the other, so that the order stays
            while not self._has_room(size):
                await self._wait_for_progress()

    async def _wait_for_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    # Called in the appending thread

    def refusal(self, tp: TopicPartition) -> BusError | None:
        """Why the partition takes nothing more from this producer; None if it does."""
        failure = self._failures.get(tp)
        if failure is None:
            return None
        return type(failure)(
            f"{tp.topic}/{tp.partition}: refused, because an earlier send failed and nothing may overtake it "
            f"({failure}); publish from there with a new producer"
        )

    def failed(self, tp: TopicPartition, error: BusError) -> None:
        """An append of this partition failed."""
        self._failures.setdefault(tp, error)

    def settled(self, outcomes: list[Outcome]) -> None:
        """These sends are durable, or have failed. Nobody waits in a loop that was closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, outcomes)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for send, outcome in outcomes:
            self._pending_bytes -= send.size
            if isinstance(outcome, BusError):
                self._first_failure = self._first_failure or outcome
            if send.written.done():
                continue  # cancelled by who waited
            if isinstance(outcome, BusError):
                send.written.set_exception(outcome)
                send.written.exception()  # flush and the log tell; asyncio need not warn of each future
            else:
                send.written.set_result(outcome)
        self._progress.set()

    async def flush(self) -> None:
        """Wait until all that was sent is durable; raises the first error."""
        self._appender.hurry()
        while self._pending_bytes:
            await self._wait_for_progress()
        if self._first_failure is not None:
            raise self._first_failure

    async def close(self) -> None:
        """Wait until all that was sent is settled; what failed was raised by its send's future and by flush."""
        self._closed = True
        self._appender.hurry()
        while self._pending_bytes:
            await self._wait_for_progress()

"""The producer of the embedded bus: the appender, a thread, does the writing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from streams.appender import Appender, Outcome, Send
from streams.bounded_producer import BoundedProducer, first_of_all, refused_after
from streams.bus import RecordMetadata
from streams.errors import BusError
from streams.log import MAX_STORED_RECORDS, EmbeddedLog
from streams.records import TopicPartition
from streams.stored_batch import Pending

__all__ = ["EmbeddedProducer"]


class EmbeddedProducer(BoundedProducer[Pending]):
    """See :class:`streams.bus.Producer`. Belongs to the event loop it was made in. Made by the bus."""

    def __init__(self, log: EmbeddedLog, appender: Appender, linger_s: float, max_pending_bytes: int) -> None:
        super().__init__(log.name, max_pending_bytes)
        self.linger_s = linger_s
        self._log = log
        self._appender = appender
        self._failures: dict[TopicPartition, BusError] = {}

    async def _partitions_of(self, topic: str) -> int:
        return self._log.topic(topic).partitions

    async def _put_record(
        self, tp: TopicPartition, value: bytes, key: bytes | None, timestamp_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        pending = Pending.record(value, key, timestamp_ms)
        return await self._put(tp, pending, pending.size)

    async def _put_lines(
        self, tp: TopicPartition, lines: bytes, keys: bytes | None, count: int, timestamp_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        """``lines`` goes to the log as it is, but for a huge batch."""
        if count <= MAX_STORED_RECORDS:
            pending = Pending(count, timestamp_ms, lines, keys)
            return await self._put(tp, pending, pending.size)
        # Readers take whole stored batches: a huge one would cost each of its readers its whole size at once.
        values = lines.split(b"\n")
        each_key = None if keys is None else keys.split(b"\n")
        futures = []
        for start in range(0, count, MAX_STORED_RECORDS):
            stop = start + MAX_STORED_RECORDS
            piece = values[start:stop]
            key_lines = None if each_key is None else b"\n".join(each_key[start:stop])
            pending = Pending(len(piece), timestamp_ms, b"\n".join(piece), key_lines)
            futures.append(await self._put(tp, pending, pending.size))
        return first_of_all(futures)

    def _enqueue(self, tp: TopicPartition, records: Pending, size: int) -> asyncio.Future[RecordMetadata]:
        written: asyncio.Future[RecordMetadata] = self._loop.create_future()
        self._appender.put(Send(self, tp, records, size, written))
        return written

    def _hurry(self) -> None:
        self._appender.hurry()

    # Called in the appending thread, too

    def refusal(self, tp: TopicPartition) -> BusError | None:
        """Why the partition takes nothing more from this producer; None if it does."""
        failure = self._failures.get(tp)
        return None if failure is None else refused_after(failure, tp)

    def failed(self, tp: TopicPartition, error: BusError) -> None:
        """An append of this partition failed."""
        self._failures.setdefault(tp, error)

    def settled(self, outcomes: list[Outcome]) -> None:
        """These sends are durable, or have failed. Nobody waits in a loop that was closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle_all, outcomes)

    def _settle_all(self, outcomes: list[Outcome]) -> None:
        for send, outcome in outcomes:
            self._settle(send.written, send.size, outcome)

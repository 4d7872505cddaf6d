"""Faust's producer on the embedded bus. The log keeps no headers: they are dropped, as for an old broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from faust.transport import base
from faust.types import TP, HeadersArg, RecordMetadata
from mode.utils.times import Seconds

from streams.bus import Producer as Writer
from streams.bus import RecordMetadata as Written
from streams.shared_bus import SharedBus

__all__ = ["Producer"]


class Producer(base.Producer):
    """Faust's producer over a bus producer."""

    def __init__(self, transport: Any, **options: Any) -> None:
        super().__init__(transport, **options)
        self._shared: SharedBus = transport.shared
        self._writer: Writer | None = None

    async def on_start(self) -> None:
        """Open the bus."""
        await super().on_start()
        bus = await self._shared.open()
        self._writer = bus.producer(linger_ms=self.linger_ms)

    async def on_shutdown(self) -> None:
        """Close the bus, after everything that was sent is durable."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
            await self._shared.close()
        await super().on_shutdown()

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Queue one record; await the result for its offset. Waits while too much is pending."""
        assert self._writer is not None, "the producer has not started"
        timestamp_ms = None if timestamp is None else int(timestamp * 1000)
        pending = await self._writer.send(topic, value or b"", key=key, partition=partition, timestamp_ms=timestamp_ms)
        sent: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()

        def resolve(written: asyncio.Future[Written]) -> None:
            if sent.done():
                return
            if written.cancelled():
                sent.cancel()
            elif error := written.exception():
                sent.set_exception(error)
            else:
                where = written.result()
                tp = TP(where.topic, where.partition)
                sent.set_result(RecordMetadata(*tp, tp, where.offset, timestamp, 0))

        pending.add_done_callback(resolve)
        return sent

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Publish one record and wait until it is durable."""
        return await (await self.send(topic, key, value, partition, timestamp, headers))

    async def flush(self) -> None:
        """Wait until all that was sent is durable."""
        await self.buffer.flush()
        if self._writer is not None:
            await self._writer.flush()

    async def create_topic(
        self, topic: str, partitions: int, replication: int, *, retention: Seconds | None = None, **_: Any
    ) -> None:
        """Create the topic unless it exists. Replication, compaction and other broker options mean nothing here."""
        await self._shared.create_topic(topic, partitions, retention)

    def key_partition(self, topic: str, key: bytes) -> TP:
        """The partition a record of ``key`` belongs to."""
        return TP(topic, self._shared.key_partition(topic, key))

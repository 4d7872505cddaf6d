"""Publishing what a transaction left in the outbox: in order, at least once, forgotten only after the ack."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from featurestore.partition_writer import OutboxRow
from streams.bus import Bus
from streams.errors import BusError, StoreUnavailable

__all__ = ["Outbox", "drain_outbox", "publish_outbox"]

_LONGEST_DELAY_S = 5.0

log = structlog.get_logger(__name__)


class Outbox(Protocol):
    """Whoever writes one."""

    async def outbox(self) -> list[OutboxRow]:
        """The oldest records still to be published."""
        ...

    async def published(self, rows: Sequence[OutboxRow]) -> None:
        """Forget rows that the bus has acknowledged."""
        ...


async def publish_outbox(bus: Bus, ingest: Outbox, *, poll_s: float = 0.25) -> None:
    """Publish outbox rows until cancelled, trying again with a new producer while the bus refuses them."""
    delay = poll_s
    while True:
        try:
            await drain_outbox(bus, ingest)
            delay = poll_s
        except (BusError, StoreUnavailable) as error:
            delay = min(2 * delay, _LONGEST_DELAY_S)
            log.warning("outbox not published, trying again", error=str(error), delay_s=delay)
        await asyncio.sleep(delay)


async def drain_outbox(bus: Bus, ingest: Outbox) -> int:
    """Publish all rows there are; returns how many. Raises BusError when one was not acknowledged."""
    published = 0
    while rows := await ingest.outbox():
        async with bus.producer() as producer:
            acks = [await producer.send(row.topic, row.value, key=row.key) for row in rows]
            await asyncio.gather(*acks)
        await ingest.published(rows)
        published += len(rows)
    return published

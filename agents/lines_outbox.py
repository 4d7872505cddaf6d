"""Publishing the batches of records that steps have left: in order, at least once, forgotten only after the ack."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from agents.lines_store import OutgoingRow
from streams.bus import Bus
from streams.errors import BusError, StoreUnavailable

__all__ = ["LinesOutbox", "drain_lines", "publish_lines"]

_LONGEST_DELAY_S = 5.0

log = structlog.get_logger(__name__)


class LinesOutbox(Protocol):
    """Whoever leaves them. stored: set where there may be something to publish."""

    stored: asyncio.Event

    async def outgoing(self) -> list[OutgoingRow]: ...
    async def sent(self, rows: Iterable[OutgoingRow]) -> None: ...


async def publish_lines(bus: Bus, ingest: LinesOutbox) -> None:
    """Publish records as they are stored, until cancelled, trying again while the bus refuses them."""
    delay = 0.25
    while True:
        ingest.stored.clear()
        try:
            await drain_lines(bus, ingest)
            delay = 0.25
        except (BusError, StoreUnavailable) as error:
            delay = min(2 * delay, _LONGEST_DELAY_S)
            log.warning("records not published, trying again", error=str(error), delay_s=delay)
            await asyncio.sleep(delay)
            continue
        await ingest.stored.wait()


async def drain_lines(bus: Bus, ingest: LinesOutbox) -> int:
    """Publish all records there are, each to the partition of its cause; returns how many.

    Raises BusError when some were not acknowledged: these are published again, with the ids that they have.
    """
    published = 0
    while rows := await ingest.outgoing():
        async with bus.producer(linger_ms=0.0) as producer:
            acks = [
                await producer.send_batch(row.topic, row.partition, row.lines, count=row.records, keys=row.keys)
                for row in rows
            ]
            await asyncio.gather(*acks)
        await ingest.sent(rows)
        published += sum(row.records for row in rows)
    return published

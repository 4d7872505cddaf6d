"""What waits for an agent, taken at once: small steps when idle, large ones under backlog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import faust
from faust.types import EventT

from streams.delivery import BatchedDelivery
from streams.records import RecordBatch

__all__ = ["gather_batches"]

_MAX_BYTES = 16 << 20
"""More than a step of ratings ever holds."""

_STRAGGLER_S = 0.01
"""How long to wait for a batch that is on its way; without it a rebalance could leave the agent holding the others."""


async def gather_batches(stream: faust.Stream[Any], max_records: int = 100_000) -> AsyncIterator[list[RecordBatch]]:
    """The batches that wait for this agent, oldest first, until they hold ``max_records`` records or none is left.

    Large records end a step earlier: memory is bounded by their bytes, whatever their number.
    They are acked once the loop's body is done with them. If it raises they are not, and the error stops the app:

        @app.agent(topic)
        async def features(stream):
            async for batches in gather_batches(stream):
                await apply(batches)
    """
    acking = stream.noack()
    events = aiter(acking.events())
    coming: asyncio.Future[EventT[Any] | None] | None = None
    try:
        while True:
            first = await (coming or _following(events))
            coming = None
            if first is None:
                return
            taken = [first]
            held, held_bytes = len(_batch_of(first)), _batch_of(first).n_bytes
            while held < max_records and held_bytes < _MAX_BYTES and _more_waits(stream):
                coming = asyncio.ensure_future(_following(events))
                await asyncio.wait({coming}, timeout=_STRAGGLER_S)
                if not coming.done() or coming.result() is None:
                    break
                taken.append(cast(EventT[Any], await coming))
                coming = None
                held += len(_batch_of(taken[-1]))
                held_bytes += _batch_of(taken[-1]).n_bytes
            yield [_batch_of(event) for event in taken]
            for event in taken:
                await acking.ack(event)
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})


async def _following(events: AsyncIterator[EventT[Any]]) -> EventT[Any] | None:
    """The next event; None once the app stops."""
    return await anext(events, None)


def _batch_of(event: EventT[Any]) -> RecordBatch:
    return cast(RecordBatch, event.value)


def _more_waits(stream: faust.Stream[Any]) -> bool:
    consumer = stream.app.consumer
    queue = cast(faust.ChannelT[Any], stream.channel).queue
    return not queue.empty() or (isinstance(consumer, BatchedDelivery) and consumer.delivering)

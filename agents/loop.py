"""The loop agent: slates for the ratings that trigger them, and what came of each, as soon as all it needs is there.

What the agent is given it holds until its turn (:mod:`agents.loop_steps`). A partition of which much waits is paused,
so that memory stays bounded and the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from faust.types import TP

from agents.loop_steps import LoopSteps
from agents.loop_store import LOOP, OutgoingRow
from agents.store_app import beginning_anew, create_store_app
from agents.store_thread import StoreThread
from streams.app import BatchedApp
from streams.bus import Bus, OffsetRange, TopicInfo
from streams.delivery import batched_topic
from streams.errors import BusError, StoreUnavailable
from streams.events import RATINGS
from streams.gather import gather_batches
from streams.records import RecordBatch, TopicPartition

__all__ = ["LoopIngest", "create_loop_app", "drain_lines", "follow_waits", "publish_lines"]

_PAUSED_ABOVE = 40_000
_RESUMED_BELOW = 10_000
_LONGEST_DELAY_S = 5.0

log = structlog.get_logger(__name__)


class LoopIngest:
    """Takes the steps of a loop on a thread of their own. store_patience_s: how long its store may be away."""

    def __init__(self, steps: LoopSteps, *, store_patience_s: float = 30.0) -> None:
        self.steps = steps
        self.stored = asyncio.Event()
        """Set by each step: there may be something to publish."""
        self.paused: set[int] = set()
        """Partitions of which nothing more is to be fetched for now."""
        self._store = StoreThread("loop-store", patience_s=store_patience_s, stats=steps.stats)
        self._advancing = asyncio.Lock()

    async def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        self.paused.clear()  # Faust has forgotten too
        self.stored.set()
        return await self._store.patiently(self.steps.assign, log, ranges)

    async def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions; returns once nothing of them is under way."""
        await self._store.run(self.steps.release, partitions)

    async def check(self) -> None:
        """Raise StoreSetBack where the store has lost what was done, StoreUnavailable where it is away."""
        await self._store.run(self.steps.writer.check)

    async def apply(self, batches: Iterable[RecordBatch] = ()) -> None:
        """Take them in, and do all that may be done now. Raises the store's error when patience ran out."""
        self.steps.offer(batches)
        async with self._advancing:
            while await self._store.patiently(self.steps.advance):
                self.stored.set()

    async def outgoing(self) -> list[OutgoingRow]:
        """The oldest records still to be published."""
        return await self._store.run(self.steps.writer.outgoing)

    async def sent(self, rows: Iterable[OutgoingRow]) -> None:
        """Forget what the bus has acknowledged."""
        await self._store.run(self.steps.writer.sent, rows)

    def close(self) -> None:
        """Wait for the step under way, then close the stores."""
        self._store.close()
        self.steps.close()


def create_loop_app(
    bus: Bus, ingest: LoopIngest, *, linger_s: float = 0.01, instance_id: str | None = None
) -> BatchedApp:
    """A Faust app with the one agent ``loop``, see :func:`create_store_app`."""
    app = create_store_app(LOOP, bus, ingest, linger_s=linger_s, instance_id=instance_id)

    @app.agent(batched_topic(app, RATINGS), name=LOOP)
    async def loop(stream: Any) -> None:
        async for batches in gather_batches(stream):
            async with beginning_anew(app):
                await ingest.apply(batches)
            _hold_back(app, ingest)

    return app


async def follow_waits(app: BatchedApp, ingest: LoopIngest, *, every_s: float = 0.005) -> None:
    """Do what waits for other agents once they are far enough; until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        if ingest.steps.waits:
            async with beginning_anew(app):
                await ingest.apply()
            _hold_back(app, ingest)


def _hold_back(app: BatchedApp, ingest: LoopIngest) -> None:
    """Pause the partitions of which much waits, and go on with those of which little does."""
    backlogs = ingest.steps.backlogs
    full = {p for p, n in backlogs.items() if n > _PAUSED_ABOVE} - ingest.paused
    free = {p for p in ingest.paused if backlogs.get(p, 0) < _RESUMED_BELOW}
    consumer = app.consumer
    if full:
        consumer.pause_partitions({TP(RATINGS, p) for p in full})
    if free:
        consumer.resume_partitions({TP(RATINGS, p) for p in free})
    ingest.paused = (ingest.paused | full) - free


async def publish_lines(bus: Bus, ingest: LoopIngest) -> None:
    """Publish slates and feedback as they are stored, until cancelled, trying again while the bus refuses them."""
    delay = 0.25
    while True:
        ingest.stored.clear()
        try:
            await drain_lines(bus, ingest)
            delay = 0.25
        except (BusError, StoreUnavailable) as error:
            delay = min(2 * delay, _LONGEST_DELAY_S)
            log.warning("slates not published, trying again", error=str(error), delay_s=delay)
            await asyncio.sleep(delay)
            continue
        await ingest.stored.wait()


async def drain_lines(bus: Bus, ingest: LoopIngest) -> int:
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

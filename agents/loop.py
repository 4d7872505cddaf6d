"""The loop agent: slates for the ratings that trigger them, and what came of each, as soon as all it needs is there.

What the agent is given it holds until its turn (:mod:`agents.loop_steps`). A partition of which much waits is paused,
so that memory stays bounded and the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from faust.types import TP

from agents.lines_ingest import LinesIngest
from agents.loop_steps import LoopSteps
from agents.loop_store import LOOP
from agents.store_app import beginning_anew, create_store_app
from streams.app import BatchedApp
from streams.bus import Bus, OffsetRange, TopicInfo
from streams.delivery import batched_topic
from streams.events import RATINGS
from streams.gather import gather_batches
from streams.records import RecordBatch, TopicPartition

__all__ = ["LoopIngest", "create_loop_app", "follow_waits"]

_PAUSED_ABOVE = 40_000
_RESUMED_BELOW = 10_000


class LoopIngest(LinesIngest[LoopSteps]):
    """Takes the steps of a loop on a thread of their own. store_patience_s: how long its store may be away."""

    def __init__(self, steps: LoopSteps, *, store_patience_s: float = 30.0) -> None:
        super().__init__(LOOP, steps, store_patience_s=store_patience_s)
        self.paused: set[int] = set()
        """Partitions of which nothing more is to be fetched for now."""
        self._advancing = asyncio.Lock()

    async def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        self.paused.clear()  # Faust has forgotten too
        return await super().assign(log, ranges)

    async def apply(self, batches: Iterable[RecordBatch] = ()) -> None:
        """Take them in, and do all that may be done now. Raises the store's error when patience ran out."""
        self.steps.offer(batches)
        async with self._advancing:
            while await self.store.patiently(self.steps.advance):
                self.stored.set()


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

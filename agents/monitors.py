"""The monitors agent: ratings, slates and feedback in; alerts and retrain events out, in event time.

One worker has all partitions of all its topics, for what is measured is of the whole run and detectors depend on order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from faust.types import TP

from agents.monitor_events import MONITORS
from agents.monitor_ingest import MonitorIngest
from streams.app import BatchedApp
from streams.bus import Bus, OffsetRange, TopicInfo
from streams.delivery import batched_topic
from streams.errors import BusUnavailable, StoreSetBack, StoreUnavailable, WriterFenced
from streams.gather import gather_batches
from streams.records import TopicPartition

__all__ = ["create_monitors_app", "keep_monitors"]

_RETRY_S = 0.5
_TAKEN_RECORDS = 20_000
"""At a time: closing the days of so many takes a fraction of a second."""

log = structlog.get_logger(__name__)


def create_monitors_app(
    bus: Bus, ingest: MonitorIngest, *, linger_s: float = 0.01, instance_id: str | None = None
) -> BatchedApp:
    """A Faust app with the one agent ``monitors``, writing through ``ingest``.

    It goes on from the offsets of the stored state. ``instance_id``: as for the features agent.
    """
    topics = ingest.settings.topics

    async def start_offsets(assigned: set[TP]) -> Mapping[TP, int]:
        logs, held = await _logs_of(bus, topics)
        start = await ingest.assign(logs, {tp: held[tp] for tp in (TopicPartition(*tp) for tp in assigned)})
        return {TP(*tp): offset for tp, offset in start.items()}

    async def on_revoked(revoked: set[TP]) -> None:
        held_back.clear()
        await ingest.release([TopicPartition(*tp) for tp in revoked])

    held_back: set[TP] = set()
    app = BatchedApp(
        MONITORS,
        broker=bus.url,
        start_offsets=start_offsets,
        on_revoked=on_revoked,
        linger_s=linger_s,
        consumer_group_instance_id=instance_id,
    )

    @app.agent(batched_topic(app, *topics, maxsize=8 * len(topics)), name=MONITORS)
    async def monitors(stream: Any) -> None:
        async for batches in gather_batches(stream, max_records=_TAKEN_RECORDS):
            try:
                await ingest.apply(batches)
            except StoreSetBack as error:
                _begin_anew(app, error)
            except WriterFenced as error:
                if not app.shares_partitions:
                    raise WriterFenced(f"{error}; two workers monitor one run from two buses: stop one") from error
                _begin_anew(app, error)
            _hold_back(app, ingest, held_back)

    return app


def _hold_back(app: BatchedApp, ingest: MonitorIngest, held_back: set[TP]) -> None:
    """Fetch no more of what is far ahead, so that memory is bounded, until the others have caught up."""
    wanted = {TP(*tp) for tp in ingest.ahead()}
    if paused := wanted - held_back:
        app.consumer.pause_partitions(paused)
    if resumed := held_back - wanted:
        app.consumer.resume_partitions(resumed)
    held_back.clear()
    held_back.update(wanted)


async def _logs_of(
    bus: Bus, topics: tuple[str, ...]
) -> tuple[Mapping[str, TopicInfo], Mapping[TopicPartition, OffsetRange]]:
    """The logs and their ends; a broker that goes away meanwhile is waited for."""
    while True:
        try:
            ranges: dict[TopicPartition, OffsetRange] = {}
            for topic in topics:
                ranges |= await bus.offsets(topic)
            return await bus.topics(), ranges
        except BusUnavailable as error:
            log.warning("log not there to start from, trying again", error=str(error))
            await asyncio.sleep(_RETRY_S)


async def keep_monitors(app: BatchedApp, ingest: MonitorIngest, *, every_s: float = 0.25) -> None:
    """Write what is closed when nothing more comes, and notice where the store has lost something; until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await ingest.save_if_due()
            await ingest.check()
        except (StoreSetBack, WriterFenced) as error:
            if isinstance(error, WriterFenced) and not app.shares_partitions:
                raise
            _begin_anew(app, error)
        except StoreUnavailable:  # whoever has something to write waits for it, and says so
            continue


def _begin_anew(app: BatchedApp, error: Exception) -> None:
    """What is still on its way is left alone, and read again after the assignment."""
    log.warning("monitors go on from what is stored", error=str(error))
    app.reassign()

"""The features agent: ratings in, features out, written as soon as nothing more waits.

Flushing is adaptive: a batch that comes alone is written at once; under backlog up to ``flush_records`` records go
into one transaction, because most of a transaction's cost does not grow with its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from faust.types import TP

from agents.ingest import FeatureIngest
from streams.app import BatchedApp
from streams.bus import Bus, OffsetRange, TopicInfo
from streams.delivery import batched_topic
from streams.errors import BusUnavailable, StoreError, StoreSetBack, StoreUnavailable, WriterFenced
from streams.events import RATINGS
from streams.gather import gather_batches
from streams.records import TopicPartition

__all__ = ["FEATURES", "create_features_app", "follow_store"]

FEATURES = "features"
"""The agent's name: its Faust app id and consumer group, and its rows in the store."""

_RETRY_S = 0.5

log = structlog.get_logger(__name__)


def create_features_app(
    bus: Bus,
    ingest: FeatureIngest,
    *,
    flush_records: int = 100_000,
    linger_s: float = 0.01,
    instance_id: str | None = None,
) -> BatchedApp:
    """A Faust app with the one agent ``features``, writing through ``ingest``.

    On assignment it becomes the writer of its partitions and goes on from the store's applied offsets; what the group
    committed serves lag only. So it does where the store was set back, and where others of its group took over while it
    was frozen. ``instance_id``: the worker's own, of which there is no other at a time (Kafka).
    """

    async def start_offsets(assigned: set[TP]) -> Mapping[TP, int]:
        topic, held = await _log_of(bus)
        ranges = {tp: held[tp] for tp in (TopicPartition(*tp) for tp in assigned)}
        start = await ingest.assign(topic, ranges)
        return {TP(*tp): offset for tp, offset in start.items()}

    async def on_revoked(revoked: set[TP]) -> None:
        await ingest.release([tp.partition for tp in revoked])

    app = BatchedApp(
        FEATURES,
        broker=bus.url,
        start_offsets=start_offsets,
        on_revoked=on_revoked,
        linger_s=linger_s,
        consumer_group_instance_id=instance_id,
    )

    @app.agent(batched_topic(app, RATINGS), name=FEATURES)
    async def features(stream: Any) -> None:
        async for batches in gather_batches(stream, max_records=flush_records):
            try:
                await ingest.apply(batches)
            except StoreSetBack as error:
                _begin_anew(app, error)
            except WriterFenced as error:
                # A zombie has its share again from the group. A group of one has none to give: whoever took over is
                # a stranger, and would be fenced in turn.
                if not app.shares_partitions:
                    raise WriterFenced(f"{error}; two workers write one store from two buses: stop one") from error
                _begin_anew(app, error)

    return app


async def _log_of(bus: Bus) -> tuple[TopicInfo, Mapping[TopicPartition, OffsetRange]]:
    """The log and its ends.

    A broker that goes away in the middle of a rebalance is waited for, as long as whoever awaits this allows.
    """
    while True:
        try:
            return (await bus.topics())[RATINGS], await bus.offsets(RATINGS)
        except BusUnavailable as error:
            log.warning("log not there to start from, trying again", error=str(error))
            await asyncio.sleep(_RETRY_S)


async def follow_store(app: BatchedApp, ingest: FeatureIngest, *, every_s: float = 1.0) -> None:
    """Where the store has lost what was applied, apply it again, though no record comes to show it; until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await ingest.check()
        except StoreSetBack as error:
            _begin_anew(app, error)
        except StoreUnavailable:  # whoever has something to write waits for it, and says so
            continue


def _begin_anew(app: BatchedApp, error: StoreError) -> None:
    """Nothing is held any more: what is still on its way is not applied, and is read again after the assignment."""
    log.warning("reading on from what the store has applied", error=str(error))
    app.reassign()

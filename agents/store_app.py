"""Faust apps of agents that keep a store of their own: where they start, whose partitions they write, when anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from faust.types import TP

from streams.app import BatchedApp
from streams.bus import Bus, OffsetRange, TopicInfo
from streams.errors import BusUnavailable, StoreError, StoreSetBack, StoreUnavailable, WriterFenced
from streams.events import RATINGS
from streams.records import TopicPartition

__all__ = ["AgentStore", "beginning_anew", "create_store_app", "follow_store"]

_RETRY_S = 0.5

log = structlog.get_logger(__name__)


class AgentStore(Protocol):
    """What an agent writes through, into its store."""

    async def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""

    async def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions; returns once nothing of them is under way."""

    async def check(self) -> None:
        """Raise StoreSetBack where the store has lost what was applied, StoreUnavailable where it is away."""


def create_store_app(
    name: str,
    bus: Bus,
    store: AgentStore,
    *,
    topic: str = RATINGS,
    linger_s: float = 0.01,
    instance_id: str | None = None,
) -> BatchedApp:
    """A Faust app that reads ``topic`` for an agent that writes into ``store``. name: its id, and its group's.

    On assignment it becomes the writer of its partitions and goes on from the store's applied offsets; what the group
    committed serves lag only. So it does where the store was set back, and where others of its group took over while it
    was frozen. ``instance_id``: the worker's own, of which there is no other at a time (Kafka).
    """

    async def start_offsets(assigned: set[TP]) -> Mapping[TP, int]:
        log_of_topic, held = await _log_of(bus, topic)
        ranges = {tp: held[tp] for tp in (TopicPartition(*tp) for tp in assigned)}
        start = await store.assign(log_of_topic, ranges)
        return {TP(*tp): offset for tp, offset in start.items()}

    async def on_revoked(revoked: set[TP]) -> None:
        await store.release([tp.partition for tp in revoked])

    return BatchedApp(
        name,
        broker=bus.url,
        start_offsets=start_offsets,
        on_revoked=on_revoked,
        linger_s=linger_s,
        consumer_group_instance_id=instance_id,
    )


async def _log_of(bus: Bus, topic: str) -> tuple[TopicInfo, Mapping[TopicPartition, OffsetRange]]:
    """The log and its ends.

    A broker that goes away in the middle of a rebalance is waited for, as long as whoever awaits this allows.
    """
    while True:
        try:
            return (await bus.topics())[topic], await bus.offsets(topic)
        except BusUnavailable as error:
            log.warning("log not there to start from, trying again", error=str(error))
            await asyncio.sleep(_RETRY_S)


@asynccontextmanager
async def beginning_anew(app: BatchedApp) -> AsyncIterator[None]:
    """Where the block finds that the store was set back, or has another writer, start from its offsets anew.

    Raises WriterFenced where the other writer cannot be of the same group.
    """
    try:
        yield
    except StoreSetBack as error:
        _begin_anew(app, error)
    except WriterFenced as error:
        # A zombie has its share again from the group. A group of one has none to give: whoever took over is
        # a stranger, and would be fenced in turn.
        if not app.shares_partitions:
            raise WriterFenced(f"{error}; two workers write one store from two buses: stop one") from error
        _begin_anew(app, error)


async def follow_store(app: BatchedApp, store: AgentStore, *, every_s: float = 1.0) -> None:
    """Where the store has lost what was applied, apply it again, though no record comes to show it; until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await store.check()
        except StoreSetBack as error:
            _begin_anew(app, error)
        except StoreUnavailable:  # whoever has something to write waits for it, and says so
            continue


def _begin_anew(app: BatchedApp, error: StoreError) -> None:
    """Nothing is held any more: what is still on its way is not applied, and is read again after the assignment."""
    log.warning("reading on from what the store has applied", error=str(error))
    app.reassign()

"""Faust on Kafka: the transport behind ``broker="kafka://HOST:PORT"`` of a :class:`streams.app.BatchedApp`.

As on the embedded bus, but that a group has many members, and partitions come and go with its rebalances. Faust's own
transport is not used: it hands over records one by one, from another thread, and waits 1.5 s for an empty partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from faust.types import TP

from streams.delivery import BatchedDelivery
from streams.errors import BusError, BusUnavailable
from streams.kafka import KafkaBus
from streams.kafka_consumer import KafkaConsumer, Membership
from streams.records import TopicPartition
from streams.transport import LogConsumer
from streams.transport import Transport as LogTransport

__all__ = ["Consumer", "GroupConsumer", "Transport"]

_RETRY_S = 0.5


class GroupConsumer(LogConsumer):
    """Faust's consumer over a member of a Kafka consumer group."""

    async def _rebalance(self, topics: tuple[str, ...]) -> None:
        if self._reader is not None:
            self.app.on_rebalance_start()
            await self.on_partitions_revoked(self.assignment())
            await self._leave()
        conf = self.app.conf
        bus = cast(KafkaBus, self._shared.bus)
        membership = Membership(
            starting=self.app.on_rebalance_start,
            revoked=self._revoked,
            assigned=self._assigned,
            instance_id=conf.consumer_group_instance_id,
            session_timeout_s=conf.broker_session_timeout,
            heartbeat_s=conf.broker_heartbeat_interval,
            rebalance_timeout_s=conf.broker_rebalance_timeout,
        )
        self._topics = topics
        await self._shared.refresh()
        self._reader = member = await bus.member(*topics, group=conf.id, membership=membership)
        await member.admitted()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to the committed offsets. A broker that goes away in the middle of a rebalance is waited for."""
        while True:
            try:
                return await super().seek_to_committed()
            except BusUnavailable as error:
                self.log.warning("Committed offsets not read, trying again: %s", error)
                await asyncio.sleep(_RETRY_S)

    def reassign(self) -> None:
        """Join the group again: if it has changed nothing else, the others do not notice."""
        if self._reader is not None:
            cast(KafkaConsumer, self._reader).rejoin()

    async def _revoked(self, revoked: set[TopicPartition]) -> None:
        try:
            await self.on_partitions_revoked({TP(*tp) for tp in revoked})
        except Exception as error:  # aiokafka logs what its listener raises, and goes on
            await self.crash(error)

    async def _assigned(self, assigned: set[TopicPartition], generation: int) -> None:
        try:
            self.app.consumer_generation_id = generation
            with suppress(BusUnavailable):  # of a broker that has just gone: they serve lag, and each commit reads them
                self._highwaters = await self.highwaters(*self.assignment())
            await self.on_partitions_assigned(self.assignment(), generation)
        except Exception as error:
            await self.crash(error)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        held = self.assignment()
        try:
            return await super()._commit({tp: offset for tp, offset in offsets.items() if tp in held})
        except BusError as error:
            if self._reader is not None and held != self.assignment():
                return False  # partitions went meanwhile: who has them now commits for them
            raise error

    def close(self) -> None:
        """Faust's call for a rebalance while it stops: stopping closes the reader anyway."""


class Consumer(BatchedDelivery, GroupConsumer):
    """The consumer of the Kafka bus, with batched delivery."""


class Transport(LogTransport):
    """What Faust makes the consumer and the producer of an app with."""

    Consumer = Consumer  # type: ignore[assignment]
    driver_version = "streamlens-kafka"

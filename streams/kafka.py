"""The Kafka bus: :mod:`streams.bus` over Redpanda or Apache Kafka, with aiokafka.

``kafka://HOST:PORT[,HOST:PORT][/PREFIX]``; security and compression stand in settings (:mod:`streams.kafka_settings`).
With a prefix the bus sees only the topics and groups whose names begin with it, as if they were all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from aiokafka.codec import has_lz4

from streams.bus import OffsetRange, TopicInfo, TopicSpec
from streams.errors import BusError, ConfigError, PartitionMismatch, UnknownTopic
from streams.kafka_cluster import KafkaCluster
from streams.kafka_consumer import KafkaConsumer, Membership
from streams.kafka_groups import KafkaGroups
from streams.kafka_producer import KafkaProducer, ProducerIdentity
from streams.kafka_settings import KafkaAddress, kafka_settings
from streams.records import TopicPartition

__all__ = ["KafkaBus"]

_MAX_MESSAGE_BYTES = 8 << 20
"""Of topics made here: a dead letter holds a whole record, and its text may be longer than that was."""

_FOR_EVER = "-1"
_TOPICS_LAST_S = 1.0


class KafkaBus:
    """See :mod:`streams.bus`. Raises ConfigError for a URL or a setting that cannot be used."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = KafkaAddress.parse(url)
        settings = kafka_settings()
        if settings.compression == "lz4" and not has_lz4():
            raise ConfigError("kafka.compression: lz4 needs cramjam; install it with `pip install 'streamlens[kafka]'`")
        self._cluster = KafkaCluster(self.address, settings)
        self._open = False
        self._identities: list[ProducerIdentity] = []
        self._asked_for: dict[str, TopicSpec] = {}
        self._partitions: dict[str, int] = {}
        self._partitions_at = 0.0

    async def __aenter__(self) -> Self:
        if not self._open:
            await self._cluster.open()
            self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; producers and consumers are closed by who opened them. A second call does nothing."""
        self._open = False
        await self._cluster.close()

    def _use(self) -> KafkaCluster:
        if not self._open:
            raise BusError(f"bus {self.url}: not open; use `async with open_bus(url) as bus`")
        return self._cluster

    # Topics and offsets

    async def create_topics(self, *specs: TopicSpec) -> None:
        """See :meth:`streams.bus.Bus.create_topics`; one by one, what stands before the error is made."""
        cluster = self._use()
        for spec in specs:
            if spec.partitions < 1:
                raise BusError(f"topic {spec.name!r}: expected at least 1 partition, found {spec.partitions}")
        known = await self._counts()
        for spec in specs:
            if spec.name not in known:
                configs = {
                    "retention.ms": _FOR_EVER if spec.retention_ms is None else str(spec.retention_ms),
                    "max.message.bytes": str(_MAX_MESSAGE_BYTES),
                }
                if await cluster.create_topic(self.address.wire(spec.name), spec.partitions, configs):
                    known[spec.name] = spec.partitions
                else:  # somebody else was faster
                    known = await self._counts()
            if (found := known.get(spec.name)) != spec.partitions:
                raise PartitionMismatch(
                    f"topic {spec.name!r} has {found} partitions, expected {spec.partitions}: "
                    "a topic's partition count is fixed for its life"
                )
            self._asked_for[spec.name] = spec

    async def delete_topics(self, *names: str) -> None:
        """Remove topics with all they hold, as benchmarks and tests do on a cluster they share; no run needs it."""
        await self._use().delete_topics(map(self.address.wire, names))

    async def topics(self) -> dict[str, TopicInfo]:
        """All topics by name; of those with the prefix, where there is one. The log id is the topic's id."""
        cluster = self._use()
        found = {
            bare: topic
            for name, topic in (await cluster.topics()).items()
            if (bare := self.address.bare(name)) is not None and not name.startswith("__")
        }
        kept_ms = await cluster.retention_ms(topic.name for topic in found.values())
        return {
            name: TopicInfo(name, topic.partitions, kept_ms[topic.name], topic.topic_id)
            for name, topic in found.items()
            if topic.name in kept_ms
        }

    async def _counts(self) -> dict[str, int]:
        """The partition counts now, without the topics' settings."""
        topics = await self._use().topics()
        counts = {name: topic.partitions for name, topic in topics.items()}
        self._partitions = {bare: n for name, n in counts.items() if (bare := self.address.bare(name)) is not None}
        self._partitions_at = time.monotonic()
        return dict(self._partitions)

    async def _partitions_of(self, topic: str) -> int:
        """Raises UnknownTopic. A count never changes; that a topic is gone is noticed a second later."""
        known = self._partitions
        if topic not in known or time.monotonic() > self._partitions_at + _TOPICS_LAST_S:
            known = await self._counts()
        if topic not in known:
            raise UnknownTopic(
                f"bus {self.url}: expected an existing topic, found {topic!r}; known: {', '.join(sorted(known))}"
            )
        return known[topic]

    async def _ranges(self, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
        tps = [TopicPartition(topic, p) for topic in topics for p in range(await self._partitions_of(topic))]
        wire = {TopicPartition(self.address.wire(tp.topic), tp.partition): tp for tp in tps}
        return {wire[tp]: held for tp, held in (await self._use().offsets(wire)).items()}

    async def offsets(self, topic: str) -> dict[TopicPartition, OffsetRange]:
        """Start and end of each partition; the end is where an open transaction begins. Raises UnknownTopic."""
        return await self._ranges([topic])

    async def enforce_retention(self, now_ms: int) -> int:
        """See :meth:`streams.bus.Bus.enforce_retention`; only of topics that this bus was asked to create.

        The broker does the same in its own time, by whole segments. A cluster holds topics of others, too: they are
        not ours to shorten.
        """
        cluster = self._use()
        kept_ms = {name: spec.retention_ms for name, spec in self._asked_for.items() if spec.retention_ms is not None}
        held = await self._ranges(kept_ms)
        wire = {TopicPartition(self.address.wire(tp.topic), tp.partition): tp for tp in held}
        first = await cluster.offsets_at({w: now_ms - kept_ms[tp.topic] for w, tp in wire.items()}) if wire else {}
        ends = {w: held[wire[w]].end if offset == -1 else offset for w, offset in first.items()}
        old = {w: offset for w, offset in ends.items() if offset > held[wire[w]].start}
        if old:
            await cluster.delete_before(old)
        return sum(offset - held[wire[w]].start for w, offset in old.items())

    # Groups

    async def groups(self) -> list[str]:
        """The groups that have committed something; with the prefix, where there is one."""
        groups = KafkaGroups(self._use())
        names = [name for name in await groups.names() if self.address.bare(name) is not None]
        committed = await asyncio.gather(*(groups.committed(name) for name in names))
        return sorted(name.removeprefix(self.address.prefix) for name, of in zip(names, committed, strict=True) if of)

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """The committed offsets of a group."""
        found = await KafkaGroups(self._use()).committed(self.address.wire(group))
        return {
            TopicPartition(bare, tp.partition): offset
            for tp, offset in found.items()
            if (bare := self.address.bare(tp.topic)) is not None
        }

    async def members(self, group: str) -> list[set[TopicPartition]]:
        """The partitions of each member of a group; of one that died until it is missed, none during a rebalance."""
        return [
            {TopicPartition(bare, tp.partition) for tp in held if (bare := self.address.bare(tp.topic)) is not None}
            for held in await KafkaGroups(self._use()).members(self.address.wire(group))
        ]

    # Clients

    def producer(self, *, linger_ms: float = 5.0, max_pending_bytes: int = 64 << 20) -> KafkaProducer:
        """A producer. ``linger_ms``: how far apart batches are held under load; a lone record never waits."""
        return KafkaProducer(
            self._use(),
            self._partitions_of,
            self._identities,
            linger_s=linger_ms / 1_000,
            max_pending_bytes=max_pending_bytes,
        )

    async def consumer(self, *topics: str, group: str | None = None) -> KafkaConsumer:
        """See :meth:`streams.bus.Bus.consumer`: all partitions, with the group's offsets, beside its members."""
        cluster = self._use()
        positions = {tp: held.start for tp, held in (await self._ranges(topics)).items()}
        if group is not None:
            committed = await self.committed(group)
            positions.update({tp: offset for tp, offset in committed.items() if tp in positions})
        consumer = KafkaConsumer(cluster, None if group is None else self.address.wire(group))
        try:
            await consumer.start(positions)
        except BaseException:
            await consumer.close()
            raise
        return consumer

    async def member(self, *topics: str, group: str, membership: Membership) -> KafkaConsumer:
        """A member of ``group``, which gets a share of the partitions. Raises UnknownTopic."""
        for topic in topics:
            await self._partitions_of(topic)
        consumer = KafkaConsumer(self._use(), self.address.wire(group), membership)
        try:
            await consumer.join(topics)
        except BaseException:
            await consumer.close()
            raise
        return consumer

"""The producer of the Kafka bus: idempotent, batched, one request under way per partition.

aiokafka's own takes records one by one at 80 k/s, and spins while no broker answers. Here a send of lines becomes
record batches in one pass, and what cannot be delivered is tried again with a back-off until the delivery timeout.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import aiokafka.errors as kafka
from aiokafka.protocol.produce import ProduceRequest

from streams.bounded_producer import BoundedProducer, first_of_all, refused_after
from streams.bus import RecordMetadata
from streams.errors import BusError, BusUnavailable
from streams.kafka_batch import MAX_BATCH_BYTES, Part, encode_record_batch, parts_of_lines
from streams.kafka_cluster import REQUEST_TIMEOUT_MS, Backoff, KafkaCluster
from streams.kafka_errors import CONNECTION_ERRORS, translated
from streams.records import TopicPartition

__all__ = ["DELIVERY_TIMEOUT_S", "KafkaProducer", "ProducerIdentity"]

DELIVERY_TIMEOUT_S = 120.0
"""How long a record is tried to be delivered, as with Kafka's own clients."""

_ACKS_ALL = -1
_MAX_SEQUENCE = (1 << 31) - 1


@dataclass(slots=True)
class ProducerIdentity:
    """A producer id and the next sequence number of each partition: by these a broker knows what it has already.

    One producer at a time uses it; after a failed delivery nobody can know what the broker has, and it is thrown away.
    """

    producer_id: int
    epoch: int
    sequences: dict[TopicPartition, int] = field(default_factory=dict)


class _Send(NamedTuple):
    part: Part
    written: asyncio.Future[RecordMetadata]


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits for one partition, oldest first."""

    tp: TopicPartition
    queue: deque[_Send] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    delivered_at: float = 0.0
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BusError | None = None


class KafkaProducer(BoundedProducer[list[Part]]):
    """See :class:`streams.bus.Producer`. Belongs to the event loop it was made in. Made by the bus.

    ``partitions_of(topic)`` raises UnknownTopic. ``identities``: those that earlier producers of the bus left.
    """

    def __init__(
        self,
        cluster: KafkaCluster,
        partitions_of: Callable[[str], Awaitable[int]],
        identities: list[ProducerIdentity],
        *,
        linger_s: float,
        max_pending_bytes: int,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    ) -> None:
        super().__init__(cluster.address.shown, max_pending_bytes)
        self._cluster = cluster
        self._ask_partitions = partitions_of
        self._identities = identities
        self._identity: ProducerIdentity | None = None
        self._identifying = asyncio.Lock()
        self._linger_s = linger_s
        self._delivery_timeout_s = delivery_timeout_s
        self._compression = cluster.settings.compression
        self._lanes: dict[TopicPartition, _Lane] = {}

    async def _partitions_of(self, topic: str) -> int:
        return await self._ask_partitions(topic)

    async def _put_record(
        self, tp: TopicPartition, value: bytes, key: bytes | None, timestamp_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        part = Part.record(value, key, timestamp_ms)
        return await self._put(tp, [part], part.size)

    async def _put_lines(
        self, tp: TopicPartition, lines: bytes, keys: bytes | None, count: int, timestamp_ms: int
    ) -> asyncio.Future[RecordMetadata]:
        parts = parts_of_lines(lines, keys, count, timestamp_ms)
        return await self._put(tp, parts, sum(part.size for part in parts))

    def _enqueue(self, tp: TopicPartition, records: list[Part], size: int) -> asyncio.Future[RecordMetadata]:
        lane = self._lanes.setdefault(tp, _Lane(tp))
        futures = [self._loop.create_future() for _ in records]
        lane.queue.extend(map(_Send, records, futures))
        if sum(send.part.size for send in lane.queue) >= MAX_BATCH_BYTES:
            lane.hurry.set()
        if lane.task is None:
            lane.task = self._loop.create_task(self._run(lane), name=f"produce-{tp.topic}-{tp.partition}")
        return first_of_all(futures)

    def refusal(self, tp: TopicPartition) -> BusError | None:
        """Why the partition takes nothing more from this producer; None if it does."""
        lane = self._lanes.get(tp)
        return None if lane is None or lane.failure is None else refused_after(lane.failure, tp)

    def _hurry(self) -> None:
        for lane in self._lanes.values():
            if lane.queue:
                lane.hurry.set()

    # Delivering

    async def _run(self, lane: _Lane) -> None:
        """Deliver what waits for a partition, batch by batch, until nothing does."""
        try:
            while lane.queue:
                linger_s = lane.delivered_at + self._linger_s - self._loop.time()
                if linger_s > 0 and not lane.hurry.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(lane.hurry.wait(), linger_s)
                lane.hurry.clear()
                sends = _next_batch(lane.queue)
                await self._deliver(lane, sends)
        finally:
            lane.task = None

    async def _deliver(self, lane: _Lane, sends: list[_Send]) -> None:
        try:
            base = await self._publish(lane.tp, [send.part for send in sends])
        except BusError as error:
            lane.failure = error
            self._settle_all(sends, error)
            rest = list(lane.queue)
            lane.queue.clear()
            self._settle_all(rest, refused_after(error, lane.tp))
        else:
            self._settle_all(sends, base)
        lane.delivered_at = self._loop.time()

    def _settle_all(self, sends: list[_Send], outcome: RecordMetadata | BusError) -> None:
        at = 0
        for send in sends:
            own = outcome if isinstance(outcome, BusError) else outcome._replace(offset=outcome.offset + at)
            self._settle(send.written, send.part.size, own)
            at += len(send.part.values)

    async def _publish(self, tp: TopicPartition, parts: list[Part]) -> RecordMetadata:
        """Deliver one record batch; returns where its first record is. Raises BusError once it is given up."""
        identity = await self._identify()
        wire = TopicPartition(self._cluster.address.wire(tp.topic), tp.partition)
        count = sum(len(part.values) for part in parts)
        sequence = identity.sequences.get(wire, 0)
        batch = encode_record_batch(parts, self._compression, identity.producer_id, identity.epoch, sequence)
        try:
            offset = await self._produce(wire, batch)
        except BaseException:
            self._identity = None  # the broker may have got it or not: the sequence is of no use any more
            raise
        identity.sequences[wire] = (sequence + count) % (_MAX_SEQUENCE + 1)
        return RecordMetadata(tp.topic, tp.partition, offset)

    async def _identify(self) -> ProducerIdentity:
        async with self._identifying:
            if self._identity is None:
                identity = self._identities.pop() if self._identities else None
                self._identity = identity or ProducerIdentity(*await self._cluster.producer_id())
            return self._identity

    async def _produce(self, wire: TopicPartition, batch: bytearray) -> int:
        deadline = self._loop.time() + self._delivery_timeout_s
        backoff = Backoff()
        request = ProduceRequest(None, _ACKS_ALL, REQUEST_TIMEOUT_MS, [(wire.topic, [(wire.partition, batch)])])
        what = f"bus {self._cluster.address.shown}: publish to {wire.topic}/{wire.partition}"
        while True:
            try:
                response = await self._cluster.client.send(self._cluster.leader(wire), request)
                ((_, ((_, code, offset, *_),)),) = response.topics
                error = kafka.for_code(code)
                if error in (kafka.NoError, kafka.DuplicateSequenceNumber):
                    return int(offset)
                raise error(wire.topic)
            except CONNECTION_ERRORS as failure:
                if not getattr(failure, "retriable", False):
                    raise translated(failure, what) from failure
                if self._loop.time() > deadline:
                    raise BusUnavailable(
                        f"{what}: expected an acknowledgement within {self._delivery_timeout_s:.0f} s, found none "
                        f"({type(failure).__name__}); is the broker up?"
                    ) from failure
                if getattr(failure, "invalid_metadata", False):
                    await self._cluster.client.force_metadata_update()
            await asyncio.sleep(backoff.next_s())

    async def close(self) -> None:
        """See :meth:`BoundedProducer.close`; the next producer of the bus goes on with this one's identity."""
        await super().close()
        identity, self._identity = self._identity, None
        if identity is not None:
            self._identities.append(identity)


def _next_batch(queue: deque[_Send]) -> list[_Send]:
    sends = [queue.popleft()]
    size = sends[0].part.size
    while queue and size + queue[0].part.size <= MAX_BATCH_BYTES:
        size += queue[0].part.size
        sends.append(queue.popleft())
    return sends

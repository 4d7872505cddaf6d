"""The producer of the Kafka bus: idempotent, batched, one request under way per partition.

aiokafka's own takes records one by one at 80 k/s, and spins while no broker answers. Here a send of lines becomes
record batches in one pass, and what cannot be delivered is tried again with a back-off until the delivery timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import aiokafka.errors as kafka
from aiokafka.protocol.produce import ProduceRequest

from streams.bus import RecordMetadata
from streams.errors import BusError, BusUnavailable
from streams.kafka_batch import MAX_BATCH_BYTES, Part, encode_record_batch, parts_of_lines
from streams.kafka_cluster import REQUEST_TIMEOUT_MS, Backoff, KafkaCluster
from streams.kafka_errors import CONNECTION_ERRORS, translated
from streams.murmur2 import partition_for
from streams.records import TopicPartition

__all__ = ["DELIVERY_TIMEOUT_S", "KafkaProducer", "ProducerIdentity"]

DELIVERY_TIMEOUT_S = 120.0
"""How long a record is tried to be delivered, as with Kafka's own clients."""

MAX_SEND_BYTES = 64 << 20
_ACKS_ALL = -1
_YIELD_EVERY = 512
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


class KafkaProducer:
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
        self._cluster = cluster
        self._partitions_of = partitions_of
        self._identities = identities
        self._identity: ProducerIdentity | None = None
        self._identifying = asyncio.Lock()
        self._linger_s = linger_s
        self._max_pending_bytes = max_pending_bytes
        self._delivery_timeout_s = delivery_timeout_s
        self._compression = cluster.settings.compression
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[str, int] = {}
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._next_partition = 0
        self._sent = 0
        self._pending_bytes = 0
        self._queue_for_room = asyncio.Lock()
        self._progress = asyncio.Event()
        self._first_failure: BusError | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """See :meth:`streams.bus.Producer.send`. Raises UnknownTopic, and BusError after a failure."""
        if partition is None:
            partition = await self._choose_partition(topic, key)
        published_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        return await self._put(TopicPartition(topic, partition), [Part.record(value, key, published_ms)])

    async def send_batch(
        self,
        topic: str,
        partition: int,
        lines: bytes,
        *,
        count: int,
        keys: bytes | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """See :meth:`streams.bus.Producer.send_batch`."""
        if count < 1:
            raise ValueError(f"count: expected at least 1, found {count}")
        for name, joined in (("lines", lines), ("keys", keys)):
            if joined is not None and (found := joined.count(b"\n") + 1) != count:
                raise ValueError(f"{name}: expected {count} lines, found {found}")
        published_ms = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        parts = parts_of_lines(lines, keys, count, published_ms)
        return await self._put(TopicPartition(topic, partition), parts)

    async def _count_of(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = await self._partitions_of(topic)
        return self._partitions[topic]

    async def _choose_partition(self, topic: str, key: bytes | None) -> int:
        partitions = await self._count_of(topic)
        if key is not None:
            return partition_for(key, partitions)
        self._next_partition = (self._next_partition + 1) % partitions
        return self._next_partition

    async def _put(self, tp: TopicPartition, parts: list[Part]) -> asyncio.Future[RecordMetadata]:
        """Queue the parts of one send; its result is the first part's, once all are durable."""
        if not 0 <= tp.partition < await self._count_of(tp.topic):
            raise BusError(
                f"bus {self._cluster.address.shown}: topic {tp.topic!r}: expected a partition from 0 to "
                f"{self._partitions[tp.topic] - 1}, found {tp.partition}"
            )
        size = sum(part.size for part in parts)
        if size > MAX_SEND_BYTES:
            raise BusError(
                f"bus {self._cluster.address.shown}: topic {tp.topic!r}: expected at most {MAX_SEND_BYTES} bytes in "
                f"one send, found {size}; send less at a time"
            )
        self._sent += 1
        if self._sent % _YIELD_EVERY == 0:
            await asyncio.sleep(0)  # a tight loop of sends lets nobody else run until it is held back
        if self._queue_for_room.locked() or not self._has_room(size):
            await self._wait_for_room(size)
        if self._closed:
            raise BusError(f"bus {self._cluster.address.shown}: the producer is closed; open another to publish")
        lane = self._lanes.setdefault(tp, _Lane(tp))
        if lane.failure is not None:
            raise _refusal(lane.failure, tp)
        futures = [self._loop.create_future() for _ in parts]
        lane.queue.extend(map(_Send, parts, futures))
        self._pending_bytes += size
        if sum(send.part.size for send in lane.queue) >= MAX_BATCH_BYTES:
            lane.hurry.set()
        if lane.task is None:
            lane.task = self._loop.create_task(self._run(lane), name=f"produce-{tp.topic}-{tp.partition}")
        return futures[0] if len(futures) == 1 else _first_of_all(futures)

    def _has_room(self, size: int) -> bool:
        return not self._pending_bytes or self._pending_bytes + size <= self._max_pending_bytes

    async def _wait_for_room(self, size: int) -> None:
        async with self._queue_for_room:  # one after the other, so that the order stays
            while not self._has_room(size):
                await self._wait_for_progress()

    async def _wait_for_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

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
            self._first_failure = self._first_failure or error
            self._settle(sends, error)
            rest = list(lane.queue)
            lane.queue.clear()
            self._settle(rest, _refusal(error, lane.tp))
        else:
            self._settle(sends, base)
        lane.delivered_at = self._loop.time()

    def _settle(self, sends: list[_Send], outcome: RecordMetadata | BusError) -> None:
        at = 0
        for send in sends:
            self._pending_bytes -= send.part.size
            if not send.written.done():  # else cancelled by who waited
                if isinstance(outcome, BusError):
                    send.written.set_exception(outcome)
                    send.written.exception()  # flush and the log tell; asyncio need not warn of each future
                else:
                    send.written.set_result(outcome._replace(offset=outcome.offset + at))
            at += len(send.part.values)
        self._progress.set()

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

    async def flush(self) -> None:
        """Wait until all that was sent is durable; raises the first error."""
        await self._drain()
        if self._first_failure is not None:
            raise self._first_failure

    async def close(self) -> None:
        """Wait until all that was sent is settled; what failed was raised by its send's future and by flush."""
        self._closed = True
        await self._drain()
        identity, self._identity = self._identity, None
        if identity is not None:
            self._identities.append(identity)

    async def _drain(self) -> None:
        while self._pending_bytes:
            for lane in self._lanes.values():
                if lane.queue:
                    lane.hurry.set()
            await self._wait_for_progress()


def _refusal(failure: BusError, tp: TopicPartition) -> BusError:
    return type(failure)(
        f"{tp.topic}/{tp.partition}: refused, because an earlier send failed and nothing may overtake it "
        f"({failure}); publish from there with a new producer"
    )


def _first_of_all(futures: list[asyncio.Future[RecordMetadata]]) -> asyncio.Future[RecordMetadata]:
    """The first one's result, once all have one; the first error instead."""
    whole: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()

    def last_settled(last: asyncio.Future[RecordMetadata]) -> None:
        if whole.done():
            return
        failures = [error for future in futures if (error := future.exception()) is not None]
        if failures:
            whole.set_exception(failures[0])
            whole.exception()
        else:
            whole.set_result(futures[0].result())

    futures[-1].add_done_callback(last_settled)
    return whole


def _next_batch(queue: deque[_Send]) -> list[_Send]:
    sends = [queue.popleft()]
    size = sends[0].part.size
    while queue and size + queue[0].part.size <= MAX_BATCH_BYTES:
        size += queue[0].part.size
        sends.append(queue.popleft())
    return sends

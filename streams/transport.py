"""Faust on the embedded bus: the transport behind ``broker="memory://NAME"`` and ``broker="sqlite:///PATH/bus.db"``.

Registered through the ``faust.transports`` entry points. A consumer is the one live member of the group named by the
app's id and gets every partition; its rebalances happen at start and when topics are added.
Faust tables are refused: nothing would restore them, state belongs in the feature store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from faust.transport import base
from faust.types import TP, AppT, ConsumerMessage
from mode.utils.times import Seconds
from yarl import URL

from streams.app import BatchedApp
from streams.bus import Consumer as Reader
from streams.delivery import MAX_BATCH_RECORDS, BatchedDelivery, Fetched, Record
from streams.errors import BusUnavailable, ConfigError
from streams.records import TopicPartition
from streams.shared_bus import SharedBus
from streams.transport_producer import Producer

__all__ = ["Consumer", "Producer", "Transport"]

LARGE_FETCH_RECORDS = 1_000
"""A fetch of this many records is followed by the next at once."""

PARTIAL_FETCH_S = 0.02
"""How long a fetch waits while some partitions are held back by a slow agent: they may be wanted again any moment."""


class LogConsumer(base.Consumer):
    """Faust's consumer over a bus consumer."""

    def __init__(self, transport: Any, *args: Any, **options: Any) -> None:
        super().__init__(transport, *args, **options)
        self._shared: SharedBus = transport.shared
        self._opened = False
        self._reader: Reader | None = None
        self._topics: tuple[str, ...] = ()
        self._highwaters: dict[TP, int] = {}
        self._generation = 0
        self._next_fetch_at = 0.0

    # -- life cycle and rebalance

    async def on_start(self) -> None:
        """Open the bus."""
        await super().on_start()
        await self._shared.open()
        self._opened = True

    async def on_shutdown(self) -> None:
        """After the last commit: leave the group, close the bus."""
        await self._leave()
        if self._opened:
            self._opened = False
            await self._shared.close()
        await super().on_shutdown()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Start a rebalance. Faust waits inside it for this call to return, so it goes on in the background."""
        if self.app.tables:
            raise ConfigError(
                f"expected no Faust tables, found {sorted(self.app.tables)}: nothing here would restore them; keep "
                "state in the feature store"
            )
        self.add_future(self._rebalance(tuple(sorted(set(topics)))))

    async def _rebalance(self, topics: tuple[str, ...]) -> None:
        self.app.on_rebalance_start()
        if self._reader is not None:
            await self.on_partitions_revoked(self.assignment())
        if self._reader is None or topics != self._topics:
            await self._leave()
            self._reader = await self._shared.bus.consumer(*topics, group=self.app.conf.id)
            self._topics = topics
        await self._shared.refresh()
        self._highwaters = await self.highwaters(*self.assignment())
        self._generation += 1
        self.app.consumer_generation_id = self._generation
        await self.on_partitions_assigned(self.assignment(), self._generation)

    def reassign(self) -> None:
        """Start a rebalance that leaves the partitions where they are, in the background."""
        self.add_future(self._rebalance(self._topics))

    async def _leave(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()

    def assignment(self) -> set[TP]:
        """Every partition of the subscribed topics: a group has one member."""
        return set() if self._reader is None else {TP(*tp) for tp in self._reader.assignment}

    def _joined(self) -> Reader:
        assert self._reader is not None, "no partitions are assigned yet"
        return self._reader

    # -- reading

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, Any]:
        loop = asyncio.get_running_loop()
        if (wait_s := self._next_fetch_at - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        reader = self._reader
        if reader is None:
            return {}
        wanted = reader.assignment if active_partitions is None else reader.assignment & _bus_tps(active_partitions)
        batches = await reader.fetch(
            timeout_s=timeout if wanted == reader.assignment else min(timeout, PARTIAL_FETCH_S),
            max_records=MAX_BATCH_RECORDS,
            partitions=wanted,
        )
        # Small fetches are held apart: what arrives in between is one event of Faust's then, not many.
        if 0 < sum(map(len, batches)) < LARGE_FETCH_RECORDS and isinstance(self.app, BatchedApp):
            self._next_fetch_at = loop.time() + self.app.linger_s
        return {TP(batch.topic, batch.partition): Fetched(batch) for batch in batches}

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            record.timestamp / 1000.0,
            0,
            None,
            record.key,
            record.value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def position(self, tp: TP) -> int | None:
        """The offset of the next record to fetch."""
        return self._joined().position(TopicPartition(*tp))

    def highwater(self, tp: TP) -> int:
        """The end of the partition as last seen; Faust's monitor takes lag from it."""
        return max(self._highwaters.get(tp, 0), self._joined().position(TopicPartition(*tp)))

    async def highwaters(self, *partitions: TP) -> dict[TP, int]:
        """The end of each partition."""
        ends = await self._ranges(partitions)
        return {tp: ends[tp][1] for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> dict[TP, int]:
        """The oldest offset each partition still holds."""
        ends = await self._ranges(partitions)
        return {tp: ends[tp][0] for tp in partitions}

    async def _ranges(self, partitions: Iterable[TP]) -> dict[TP, tuple[int, int]]:
        ranges: dict[TP, tuple[int, int]] = {}
        for topic in {tp.topic for tp in partitions}:
            ranges.update({TP(*tp): (r.start, r.end) for tp, r in (await self._shared.bus.offsets(topic)).items()})
        return ranges

    # -- seeking and committing

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to the committed offsets, and to where ``consumer_auto_offset_reset`` says where there is none."""
        reader = self._joined()
        committed = await self._shared.bus.committed(self.app.conf.id)
        if unknown := reader.assignment - committed.keys():
            latest = self.app.conf.consumer_auto_offset_reset == "latest"
            await (reader.seek_to_end if latest else reader.seek_to_beginning)(*unknown)
        found = {tp: committed[tp] for tp in reader.assignment & committed.keys()}
        for tp, offset in found.items():
            reader.seek(tp, offset)
        return {TP(*tp): offset for tp, offset in found.items()}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Go to the given offsets."""
        for tp, offset in partitions.items():
            await self.seek(tp, offset)

    async def seek_to_beginning(self, *partitions: TP) -> None:
        """Go to the oldest offsets still held."""
        for tp, offset in (await self.earliest_offsets(*partitions)).items():
            await self.seek(tp, offset)

    async def _seek(self, partition: TP, offset: int) -> None:
        self._joined().seek(TopicPartition(*partition), offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            await self._joined().commit({TopicPartition(*tp): offset for tp, offset in offsets.items()})
            self._highwaters = await self.highwaters(*self.assignment())
        except BusUnavailable as error:
            # A lost commit costs a redelivery at most; the next one covers it.
            self.log.warning("Offsets not committed: %s", error)
            return False
        return True

    # -- topics

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    def topic_partitions(self, topic: str) -> int | None:
        """How many partitions the topic has; None for a topic that does not exist."""
        return self._shared.partitions.get(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """The partition a record of ``key`` belongs to."""
        return self._shared.key_partition(topic, key) if partition is None else partition

    async def create_topic(
        self, topic: str, partitions: int, replication: int, *, retention: Seconds | None = None, **_: Any
    ) -> None:
        """Create the topic unless it exists. Replication, compaction and other broker options mean nothing here."""
        await self._shared.create_topic(topic, partitions, retention)


class Consumer(BatchedDelivery, LogConsumer):
    """The consumer of the embedded bus, with batched delivery."""


class Transport(base.Transport):
    """What Faust makes the consumer and the producer of an app with."""

    Consumer = Consumer
    Producer = Producer
    default_port = 0
    driver_version = "streamlens"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared = SharedBus(_bus_url(self.app, self.url[0]))


def _bus_url(app: AppT, url: URL) -> str:
    if isinstance(app, BatchedApp):
        return app.bus_url
    # A plain Faust app has parsed the URL, which lost slashes and the case of a name.
    path = url.path.rstrip("/")
    return f"{url.scheme}://{url.raw_authority}{path}"


def _bus_tps(partitions: Iterable[TP]) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(*tp) for tp in partitions)

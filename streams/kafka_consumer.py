"""Consumers of the Kafka bus: a reader of whole topics, and a member of a group that shares them with others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from streams.bus import OffsetRange
from streams.errors import BusError
from streams.kafka_cluster import PATIENCE_S, REQUEST_TIMEOUT_MS, Client, KafkaCluster
from streams.kafka_errors import kafka_errors
from streams.kafka_groups import KafkaGroups
from streams.kafka_records import fetched_batches
from streams.records import RecordBatch, TopicPartition

__all__ = ["KafkaConsumer", "Membership"]

FETCH_WAIT_MS = 50
"""How long the broker holds a fetch back for records. aiokafka has one under way per broker: while it waits for an
exhausted partition, what comes to the others, and every seek, waits with it."""

_MAX_PARTITION_BYTES = 2 << 20
"""What a fetch takes of a partition; a stored batch above that still comes whole."""

_IDLE_S = 0.05
_LEAVE_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Membership:
    """A member of a group. ``instance_id``: its own for life, so that a restart gets its partitions back at once.

    ``revoked`` and ``assigned`` are awaited at each rebalance; ``revoked`` has to be done with its partitions on
    return, for others get them then.
    """

    revoked: Callable[[set[TopicPartition]], Awaitable[None]]
    assigned: Callable[[set[TopicPartition], int], Awaitable[None]]
    starting: Callable[[], None]
    instance_id: str | None = None
    session_timeout_s: float = 10.0
    heartbeat_s: float = 2.0
    rebalance_timeout_s: float = 10.0


class KafkaConsumer:
    """See :class:`streams.bus.Consumer`. Belongs to the event loop it was made in. Made by the bus.

    Without a membership it reads all partitions of its topics; what it commits is refused while the group has members.
    """

    def __init__(self, cluster: KafkaCluster, group: str | None, membership: Membership | None = None) -> None:
        self._cluster = cluster
        self._group = group
        self._membership = membership
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._closed = False
        self._admitted = asyncio.Event()
        self._reader = AIOKafkaConsumer(
            bootstrap_servers=list(cluster.address.servers),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=_MAX_PARTITION_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **_group_options(group, membership),
            **cluster.settings.client_options(),
        )
        self._reader._client = Client(cluster.address, cluster.settings)  # aiokafka's own spins in an outage

    async def start(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, from these offsets."""
        with kafka_errors(self._what("start a consumer")):
            wire = {self._wire(tp): offset for tp, offset in positions.items()}
            self._reader.assign(list(wire))
            await self._reader.start()
            await asyncio.sleep(0)  # aiokafka fails to stop before the tasks it made have begun
            for tp, offset in wire.items():
                self._reader.seek(tp, offset)
        self._positions = dict(positions)

    async def join(self, topics: Iterable[str]) -> None:
        """Become a member of the group; partitions come with the membership's ``assigned``."""
        with kafka_errors(self._what("join the group")):
            await self._reader.start()
            self._reader.subscribe([self._cluster.address.wire(name) for name in topics], listener=_Listener(self))

    def rejoin(self) -> None:
        """Of a member: have its partitions revoked and assigned anew, by joining the group again."""
        self._reader._coordinator.request_rejoin()

    async def admitted(self) -> None:
        """Wait until the group has given it a share, which may be empty. Raises BusDenied where it may not join."""
        while not self._admitted.is_set() and not self._closed:
            self._check_membership("join the group")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._admitted.wait(), _IDLE_S)

    def _check_membership(self, doing: str) -> None:
        """aiokafka works for the membership in the background, and tells only who asks what has gone wrong there."""
        if self._membership is not None:
            with kafka_errors(self._what(doing)):
                self._reader._coordinator.check_errors()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave the group; a fetch under way returns nothing.

        A member with an instance id that is alone in its group stays for its session timeout: nobody takes over, and
        a restart has the partitions back at once, without the delay with which a broker lets an empty group begin.
        """
        if self._closed:
            return
        self._closed = True
        if self._membership is not None and await self._others_take_over():
            self._reader._coordinator._group_instance_id = None  # with one, aiokafka never leaves
        try:
            await self._reader.stop()
        except asyncio.CancelledError:
            # aiokafka cancels its own fetches and waits for them: one that waited for a broker that is away ends as if
            # whoever closes had been cancelled, and the connection stays open (Fetcher.close).
            await self._reader._client.close()
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise

    async def _others_take_over(self) -> bool:
        assert self._group is not None
        try:
            async with asyncio.timeout(_LEAVE_PATIENCE_S):
                return len(await KafkaGroups(self._cluster).members(self._group)) > 1
        except (BusError, TimeoutError):
            return False  # no broker to leave, or none that tells

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions it reads."""
        return frozenset(self._positions)

    # Reading

    async def fetch(
        self,
        *,
        timeout_s: float = 1.0,
        max_records: int = 10_000,
        partitions: Iterable[TopicPartition] | None = None,
    ) -> list[RecordBatch]:
        """See :meth:`streams.bus.Consumer.fetch`. Raises OffsetOutOfRange, BusDenied.

        While no broker answers nothing comes, and it goes on trying.
        """
        self._check_open()
        if max_records < 1:
            raise ValueError(f"max_records: expected at least 1, found {max_records}")
        wanted = (set(self._positions) if partitions is None else self._assigned(partitions)) - self._paused
        await asyncio.sleep(0)  # or a loop of fetches from a full log lets nobody else run
        self._check_membership("fetch")
        if not wanted:
            await asyncio.sleep(min(timeout_s, _IDLE_S))
            return []
        with kafka_errors(self._what("fetch")):
            fetched = await fetched_batches(self._reader, {self._wire(tp) for tp in wanted}, timeout_s, max_records)
        batches = []
        for batch in fetched:
            batch.topic = self._bare(batch.topic)
            if batch.tp in self._positions:
                self._positions[batch.tp] = batch.next_offset
                batches.append(batch)
        return batches

    # Positions

    def position(self, tp: TopicPartition) -> int:
        """The offset of the next record to fetch."""
        self._assigned([tp])
        return self._positions[tp]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on at ``offset``; one outside the log is noticed by the next fetch."""
        self._assigned([tp])
        self._positions[tp] = offset
        self._reader.seek(self._wire(tp), offset)
        if tp not in self._paused:
            self._reader.resume(self._wire(tp))

    async def seek_to_beginning(self, *tps: TopicPartition) -> None:
        """Go to the oldest records still held; all partitions if none are named."""
        for tp, held in (await self._ranges(tps)).items():
            self.seek(tp, held.start)

    async def seek_to_end(self, *tps: TopicPartition) -> None:
        """Go behind the newest records; all partitions if none are named."""
        for tp, held in (await self._ranges(tps)).items():
            self.seek(tp, held.end)

    async def _ranges(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        wanted = {self._wire(tp): tp for tp in self._assigned(tps) or self._positions}
        ranges = await self._cluster.offsets(TopicPartition(*tp) for tp in wanted)
        return {wanted[KafkaPartition(*tp)]: held for tp, held in ranges.items()}

    def pause(self, *tps: TopicPartition) -> None:
        """Fetch nothing from these until :meth:`resume`."""
        self._paused |= self._assigned(tps)
        self._reader.pause(*map(self._wire, tps))

    def resume(self, *tps: TopicPartition) -> None:
        """End :meth:`pause`."""
        self._paused -= self._assigned(tps)
        self._reader.resume(*map(self._wire, tps))

    def _assigned(self, tps: Iterable[TopicPartition]) -> set[TopicPartition]:
        asked = set(tps)
        if not asked <= self._positions.keys():
            strangers = ", ".join(sorted(f"{tp[0]}/{tp[1]}" for tp in asked - self._positions.keys()))
            raise BusError(f"bus {self._cluster.address.shown}: expected assigned partitions, found {strangers}")
        return asked

    # Group

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Commit ``offsets``, or all positions. Raises BusUnavailable during a rebalance: what was read comes again."""
        self._check_open()
        if self._group is None:
            raise BusError(
                f"bus {self._cluster.address.shown}: expected a consumer with a group to commit, found one without"
            )
        chosen = dict(self._positions if offsets is None else offsets)
        self._assigned(chosen)
        if not chosen:
            return
        if self._membership is not None:  # what it commits it has read
            # aiokafka looks for the group's coordinator until it finds one.
            with kafka_errors(self._what("commit")):
                async with asyncio.timeout(PATIENCE_S):
                    await self._reader.commit({self._wire(tp): OffsetAndMetadata(o, "") for tp, o in chosen.items()})
            return
        for tp, held in (await self._ranges(chosen)).items():
            if not 0 <= chosen[tp] <= held.end:
                raise BusError(
                    f"bus {self._cluster.address.shown}: {tp.topic}/{tp.partition}: expected an offset up to "
                    f"{held.end} to commit, found {chosen[tp]}"
                )
        wire = {TopicPartition(*self._wire(tp)): offset for tp, offset in chosen.items()}
        await KafkaGroups(self._cluster).commit(self._group, wire)

    def _check_open(self) -> None:
        if self._closed:
            raise BusError(f"bus {self._cluster.address.shown}: the consumer is closed; open another")

    async def _revoked(self, revoked: set[TopicPartition]) -> None:
        assert self._membership is not None
        try:
            await self._membership.revoked(revoked)
        finally:
            self._positions = {}
            self._paused.clear()

    async def _new_assignment(self, assigned: set[TopicPartition]) -> None:
        assert self._membership is not None
        # Where to start is the caller's to say: until then nothing of them is asked for. Without a position aiokafka
        # takes the one that the group committed, and fails where it has committed none.
        self._positions = dict.fromkeys(assigned, 0)
        wire = [self._wire(tp) for tp in assigned]
        self._reader.pause(*wire)
        for tp in wire:
            self._reader.seek(tp, 0)
        self._admitted.set()
        await self._membership.assigned(assigned, self._reader._coordinator.generation)

    def _wire(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._cluster.address.wire(tp[0]), tp[1])

    def _bare(self, topic: str) -> str:
        return topic.removeprefix(self._cluster.address.prefix)

    def _what(self, doing: str) -> str:
        return f"bus {self._cluster.address.shown}: {doing}" + (f" as group {self._group}" if self._group else "")


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells a consumer of its group's rebalances."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> Awaitable[None]:
        assert self._consumer._membership is not None
        self._consumer._membership.starting()
        return self._consumer._revoked(self._bare(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        await self._consumer._new_assignment(self._bare(assigned))

    def _bare(self, tps: Iterable[KafkaPartition]) -> set[TopicPartition]:
        return {TopicPartition(self._consumer._bare(tp.topic), tp.partition) for tp in tps}


def _group_options(group: str | None, membership: Membership | None) -> dict[str, Any]:
    if membership is None:
        return {}
    return {
        "group_id": group,
        "group_instance_id": membership.instance_id,
        "session_timeout_ms": int(membership.session_timeout_s * 1_000),
        "heartbeat_interval_ms": int(membership.heartbeat_s * 1_000),
        "rebalance_timeout_ms": int(membership.rebalance_timeout_s * 1_000),
    }

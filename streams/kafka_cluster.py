"""One connection to a Kafka cluster: requests with bounded retries, errors in our own words.

What aiokafka does without end is bounded here: asking for metadata waits longer and longer while nobody answers (its
loops would take a whole core), and no request goes on for more than a few seconds.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka.errors as kafka
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import create_conn
from aiokafka.protocol.admin import (
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeConfigsRequest,
)
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from streams.bus import OffsetRange
from streams.errors import BusError, BusUnavailable
from streams.kafka_errors import CONNECTION_ERRORS, kafka_errors, limit_logs, muted_logs, translated
from streams.kafka_metadata import TopicsRequest
from streams.kafka_settings import KafkaAddress, KafkaSettings
from streams.records import TopicPartition

__all__ = ["Backoff", "Client", "KafkaCluster", "WireTopic", "check"]

REQUEST_TIMEOUT_MS = 10_000
START_PATIENCE_S = 4.0
PATIENCE_S = 10.0

_LATEST, _EARLIEST = -1, -2
_TOPIC = 2  # a resource type of DescribeConfigs
_READ_COMMITTED = 1  # an isolation level


class Backoff:
    """Delays that double from ``first_s`` to ``longest_s``; :meth:`reset` after a success."""

    def __init__(self, first_s: float = 0.1, longest_s: float = 2.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def reset(self) -> None:
        self._next_s = self._first_s

    def next_s(self) -> float:
        """How long to wait now.

        >>> backoff = Backoff(0.5, 1.5)
        >>> [backoff.next_s() for _ in range(3)]
        [0.5, 1.0, 1.5]
        """
        delay_s, self._next_s = self._next_s, min(2 * self._next_s, self._longest_s)
        return delay_s


class Client(AIOKafkaClient):  # type: ignore[misc]
    """aiokafka's client, patient: a failed look for metadata is answered late, and no look creates a topic."""

    def __init__(self, address: KafkaAddress, settings: KafkaSettings) -> None:
        limit_logs()
        super().__init__(
            bootstrap_servers=list(address.servers),
            client_id="streamlens",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **settings.client_options(),
        )
        self._backoff = Backoff()

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        # Of all topics: naming one that was deleted would have the broker create it again, with other partitions.
        updated = bool(await super()._metadata_update(cluster_metadata, None))
        if updated:
            self._backoff.reset()
        else:
            await asyncio.sleep(self._backoff.next_s())
        return updated


@dataclass(frozen=True, slots=True)
class WireTopic:
    """A topic by its name on the wire, with its random id in hex."""

    name: str
    partitions: int
    topic_id: str


class KafkaCluster:
    """A client and what is asked of a cluster with it; all names as on the wire. Belongs to one event loop."""

    def __init__(self, address: KafkaAddress, settings: KafkaSettings) -> None:
        self.address = address
        self.settings = settings
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        assert self._client is not None, "not open"
        return self._client

    async def open(self) -> None:
        """Connect. Raises BusUnavailable where no broker answers, BusDenied where one refuses the user."""
        self._client = Client(self.address, self.settings)
        deadline = asyncio.get_running_loop().time() + START_PATIENCE_S
        backoff = Backoff()
        try:
            while True:
                try:
                    with muted_logs():
                        await self.client.bootstrap()
                    return
                except CONNECTION_ERRORS as error:
                    why = await self._why_not(error)
                    if not isinstance(why, BusUnavailable) or asyncio.get_running_loop().time() > deadline:
                        raise why from error
                    await asyncio.sleep(backoff.next_s())
        except BaseException:
            await self.close()
            raise

    async def _why_not(self, error: BaseException) -> BusError:
        """aiokafka logs why it could not connect, and raises something else."""
        what = f"bus {self.address.shown}"
        for host, port, _ in self.client.hosts:
            options = self.settings.client_options()
            try:
                with muted_logs():
                    connection = await create_conn(host, port, request_timeout_ms=REQUEST_TIMEOUT_MS, **options)
            except CONNECTION_ERRORS as found:
                error = found
            else:
                connection.close()
        reason = translated(error, what)
        assert isinstance(reason, BusError)
        if isinstance(reason, BusUnavailable):
            hint = "is it up, is the address right, and is it one for " + self.settings.security_protocol
            return BusUnavailable(f"{what}: expected a Kafka broker, found none that answers ({error}); {hint}?")
        return reason

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # Requests

    async def retried(self, what: str, call: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
        """What ``call`` returns; called again after an error that may pass, for ``patience_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        backoff = Backoff()
        with kafka_errors(f"bus {self.address.shown}: {what}"):
            while True:
                try:
                    return await call()
                except kafka.KafkaError as error:
                    if not error.retriable or loop.time() > deadline:
                        raise
                    if error.invalid_metadata:
                        await self.client.force_metadata_update()
                await asyncio.sleep(backoff.next_s())

    async def ask(self, request: Any, node: int | None = None, group: Any = ConnectionGroup.DEFAULT) -> Any:
        """The answer of ``node``, or of some broker. Raises aiokafka's errors."""
        node = self.client.get_random_node() if node is None else node
        if node is None:
            raise kafka.NodeNotReadyError("no broker is known")
        return await self.client.send(node, request, group=group)

    def leader(self, tp: TopicPartition) -> int:
        """The node to send to. Raises LeaderNotAvailableError, of aiokafka's, while there is none."""
        node = self.client.cluster.leader_for_partition(tp)
        if node is None or node == -1:
            raise kafka.LeaderNotAvailableError(f"{tp.topic}/{tp.partition} has no leader")
        return int(node)

    async def topics(self, names: list[str] | None = None) -> dict[str, WireTopic]:
        """The topics that exist, all or those of ``names``."""

        async def ask() -> dict[str, WireTopic]:
            found = {}
            for code, name, topic_id, _, partitions, *_ in (await self.ask(TopicsRequest(names))).topics:
                if code == kafka.TopicAuthorizationFailedError.errno:
                    raise kafka.TopicAuthorizationFailedError(name)
                if code == kafka.NoError.errno:
                    found[name] = WireTopic(name, len(partitions), topic_id.hex())
            return found

        try:
            found: dict[str, WireTopic] = await self.retried("list topics", ask)
        except NotImplementedError as error:  # aiokafka's answer where broker and request have no version in common
            raise BusError(
                f"bus {self.address.shown}: expected a broker that tells topics by id (Apache Kafka 3.0, Redpanda "
                "25.3 or later), found an older one: a log that was replaced could not be told from the old one"
            ) from error
        return found

    async def retention_ms(self, topics: Iterable[str]) -> dict[str, int | None]:
        """How long each topic keeps records, None for ever; without those that do not exist (any more)."""
        resources = [(_TOPIC, name, ["retention.ms"]) for name in topics]
        if not resources:
            return {}

        async def ask() -> dict[str, int | None]:
            found: dict[str, int | None] = {}
            for code, reason, _, name, entries in (await self.ask(DescribeConfigsRequest(resources))).resources:
                if code == kafka.UnknownTopicOrPartitionError.errno:
                    continue
                check(code, reason or name)
                values = {entry[0]: entry[1] for entry in entries}
                kept_ms = int(values.get("retention.ms", -1))
                found[name] = None if kept_ms < 0 else kept_ms
            return found

        found: dict[str, int | None] = await self.retried("read topic settings", ask)
        return found

    async def create_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> bool:
        """True if it was made, False if it was there already."""
        row: tuple[Any, ...] = (name, partitions, -1, [], list(configs.items()))

        async def ask() -> bool:
            controller = self.client.cluster.controller
            if controller is None:
                raise kafka.NotControllerError
            response = await self.ask(CreateTopicsRequest([row], REQUEST_TIMEOUT_MS, False), controller.nodeId)
            _, code, *reason = response.topic_errors[0]
            if code == kafka.TopicAlreadyExistsError.errno:
                return False
            check(code, reason[0] if reason else name)
            return True

        made: bool = await self.retried(f"create topic {name}", ask)
        # The controller knows it before the brokers do, and those before they have chosen leaders.
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < deadline:
            await self.client.force_metadata_update()
            leaders = map(
                self.client.cluster.leader_for_partition, (TopicPartition(name, p) for p in range(partitions))
            )
            if all(leader not in (None, -1) for leader in leaders) and name in await self.topics([name]):
                break
            await asyncio.sleep(0.01)
        return made

    async def delete_topics(self, names: Iterable[str]) -> None:
        """Remove topics with all they hold; none of them need exist."""
        doomed = list(names)

        async def ask() -> None:
            controller = self.client.cluster.controller
            if controller is None:
                raise kafka.NotControllerError
            response = await self.ask(DeleteTopicsRequest(doomed, REQUEST_TIMEOUT_MS), controller.nodeId)
            for name, code in response.topic_error_codes:
                if code != kafka.UnknownTopicOrPartitionError.errno:
                    check(code, name)

        await self.retried(f"delete {len(doomed)} topics", ask)

    # Offsets

    async def offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """Start and end of each partition."""
        tps = list(tps)
        earliest, latest = await asyncio.gather(
            self.offsets_at(dict.fromkeys(tps, _EARLIEST)), self.offsets_at(dict.fromkeys(tps, _LATEST))
        )
        return {tp: OffsetRange(earliest[tp], latest[tp]) for tp in tps}

    async def offsets_at(self, timestamps_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The first offset whose record is not older than the timestamp; -1 where there is none."""

        async def ask() -> dict[TopicPartition, int]:
            by_node: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
            for tp, timestamp_ms in timestamps_ms.items():
                by_node[self.leader(tp)][tp.topic].append((tp.partition, timestamp_ms))
            found = {}
            for node, topics in by_node.items():
                response = await self.ask(OffsetRequest(-1, _READ_COMMITTED, list(topics.items())), node)
                for topic, partitions in response.topics:
                    for partition, code, _, offset in partitions:
                        check(code, topic)
                        found[TopicPartition(topic, partition)] = offset
            return found

        topics = ", ".join(sorted({tp.topic for tp in timestamps_ms}))
        found: dict[TopicPartition, int] = await self.retried(f"read the offsets of {topics}", ask)
        return found

    async def delete_before(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remove the records before these offsets."""

        async def ask() -> None:
            by_node: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
            for tp, offset in offsets.items():
                by_node[self.leader(tp)][tp.topic].append((tp.partition, offset))
            for node, topics in by_node.items():
                response = await self.ask(DeleteRecordsRequest(list(topics.items()), REQUEST_TIMEOUT_MS), node)
                for topic, partitions, *_ in response.topics:
                    for _, _, code, *_ in partitions:
                        check(code, topic)

        await self.retried("remove records past their retention", ask)

    async def producer_id(self) -> tuple[int, int]:
        """A new producer id and its epoch."""

        async def ask() -> tuple[int, int]:
            response = await self.ask(InitProducerIdRequest(None, 0))
            check(response.error_code, "producer id")
            return response.producer_id, response.producer_epoch

        found: tuple[int, int] = await self.retried("start a producer", ask)
        return found


def check(code: int, about: str) -> None:
    """Raise aiokafka's error for the code of an answer, if it is one."""
    error: type[kafka.KafkaError] = kafka.for_code(code)
    if error is not kafka.NoError:
        raise error(about)

"""Consumer groups of a Kafka cluster: which there are, who their members are, what they committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.protocol.admin import DescribeGroupsRequest, ListGroupsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from streams.kafka_cluster import KafkaCluster, check
from streams.records import TopicPartition

__all__ = ["KafkaGroups"]


class KafkaGroups:
    """What a cluster tells about its groups; all names as on the wire."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self._cluster = cluster

    async def _coordinator(self, group: str) -> int:
        return int(await self._cluster.client.coordinator_lookup(CoordinationType.GROUP, group))

    async def names(self) -> list[str]:
        """Every consumer group that is known to some broker."""

        async def ask() -> list[str]:
            found: set[str] = set()
            for broker in self._cluster.client.cluster.brokers():
                response = await self._cluster.ask(ListGroupsRequest(), broker.nodeId)
                check(response.error_code, "groups")
                found.update(row[0] for row in response.groups)
            return sorted(found)

        found: list[str] = await self._cluster.retried("list groups", ask)
        return found

    async def members(self, group: str) -> list[set[TopicPartition]]:
        """The partitions of each member of a group, also of those that died and are not missed yet. Asks once."""

        async def ask() -> list[set[TopicPartition]]:
            node = await self._coordinator(group)
            response = await self._cluster.ask(DescribeGroupsRequest([group]), node, ConnectionGroup.COORDINATION)
            ((code, _, _, _, _, members, *_),) = response.groups
            check(code, group)
            return [_partitions_in(assignment) for *_, assignment in members]

        found: list[set[TopicPartition]] = await self._cluster.retried(
            f"read the members of {group}", ask, patience_s=0
        )
        return found

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """The committed offsets of a group."""

        async def ask() -> dict[TopicPartition, int]:
            node = await self._coordinator(group)
            response = await self._cluster.ask(OffsetFetchRequest(group, None), node, ConnectionGroup.COORDINATION)
            check(response.error_code, group)
            found = {}
            for topic, partitions in response.topics:
                for partition, offset, _, code in partitions:
                    check(code, topic)
                    if offset >= 0:
                        found[TopicPartition(topic, partition)] = offset
            return found

        found: dict[TopicPartition, int] = await self._cluster.retried(f"read what group {group} committed", ask)
        return found

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit from outside the group; refused while it has members."""
        rows: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for tp, offset in offsets.items():
            rows[tp.topic].append((tp.partition, offset, ""))

        async def ask() -> None:
            node = await self._coordinator(group)
            request = OffsetCommitRequest(group, -1, "", -1, list(rows.items()))
            response = await self._cluster.ask(request, node, ConnectionGroup.COORDINATION)
            for topic, partitions in response.topics:
                for _, code in partitions:
                    check(code, topic)

        await self._cluster.retried(f"commit offsets of group {group}", ask)


def _partitions_in(assignment: bytes) -> set[TopicPartition]:
    """Of a member; none while partitions are being handed out."""
    if not assignment:
        return set()
    return {TopicPartition(*tp) for tp in ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()}

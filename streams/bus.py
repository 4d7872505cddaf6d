"""The bus: what every log offers, whatever it runs on. ``open_bus(url)`` chooses.

============================ ==========================================================================
``memory://[name]``          private to the process; a name shares it between callers (tests, benchmarks)
``sqlite:///path/bus.db``    durable, one machine, many processes (three slashes relative, four absolute)
``kafka://host:port[/run]``  Redpanda or Apache Kafka; brokers by commas, topics and groups named ``run.NAME``
============================ ==========================================================================

The words are Kafka's: topic, partition, offset, group, high-water mark, lag. One contract suite
(``tests/streams/test_bus_contract.py``) runs unchanged over all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from streams.errors import ConfigError
from streams.records import RecordBatch, TopicPartition

__all__ = ["Bus", "Consumer", "OffsetRange", "Producer", "RecordMetadata", "TopicInfo", "TopicSpec", "open_bus"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. ``retention_ms=None`` keeps records for ever (event times lie decades back)."""

    name: str
    partitions: int = 4
    retention_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that exists. ``log_id`` is random and new for each creation: it tells a replaced log from the old one."""

    name: str
    partitions: int
    retention_ms: int | None
    log_id: str


class OffsetRange(NamedTuple):
    """``start``: the oldest offset still held; ``end``: the high-water mark, the offset the next record will get."""

    start: int
    end: int


class RecordMetadata(NamedTuple):
    """Where a record (of a batch: its first) was written."""

    topic: str
    partition: int
    offset: int


class Producer(Protocol):
    """Publishes records, in order per partition; after a failed send that partition takes nothing more.

    The returned future resolves once the record is durable. ``send`` and ``send_batch`` wait while too much is
    pending (back-pressure), so memory stays bounded however slow the log is.
    """

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        """Queue one record. ``partition`` None: murmur2 of the key, or round robin without a key."""
        ...

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
        """Queue ``count`` records at once: values (and keys, empty for none) joined by newlines.

        Raises ValueError when ``lines`` or ``keys`` do not hold ``count`` lines.
        """
        ...

    async def flush(self) -> None:
        """Wait until all that was sent is durable; raises the first error."""
        ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Consumer(Protocol):
    """Reads records. With a group it resumes from the committed offsets; without one it starts at the earliest."""

    @property
    def assignment(self) -> frozenset[TopicPartition]: ...

    async def fetch(
        self,
        *,
        timeout_s: float = 1.0,
        max_records: int = 10_000,
        partitions: Iterable[TopicPartition] | None = None,
    ) -> list[RecordBatch]:
        """What follows the positions: at most one batch of at most ``max_records`` per partition.

        Returns [] if nothing came within ``timeout_s``. Partitions take turns, none starves. ``partitions`` limits
        one fetch to some of the assignment. Positions move past what is returned.
        """
        ...

    def position(self, tp: TopicPartition) -> int: ...

    def seek(self, tp: TopicPartition, offset: int) -> None: ...

    async def seek_to_beginning(self, *tps: TopicPartition) -> None: ...

    async def seek_to_end(self, *tps: TopicPartition) -> None: ...

    def pause(self, *tps: TopicPartition) -> None: ...

    def resume(self, *tps: TopicPartition) -> None: ...

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Commit ``offsets`` (next offset to read), or all positions. Only with a group."""
        ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Bus(Protocol):
    """A log with topics. Open it with :func:`open_bus`, as an async context manager."""

    url: str

    async def create_topics(self, *specs: TopicSpec) -> None:
        """Create what does not exist yet. Raises PartitionMismatch where a topic exists with another count."""
        ...

    async def topics(self) -> dict[str, TopicInfo]: ...

    def producer(self, *, linger_ms: float = 5.0, max_pending_bytes: int = 64 << 20) -> Producer: ...

    async def consumer(self, *topics: str, group: str | None = None) -> Consumer:
        """A reader of all partitions of ``topics``. Raises UnknownTopic, and GroupBusy on the embedded bus.

        On Kafka it may read beside the members of a group (Faust's workers), but not commit.
        """
        ...

    async def offsets(self, topic: str) -> dict[TopicPartition, OffsetRange]: ...

    async def groups(self) -> list[str]:
        """The groups that have committed something."""
        ...

    async def committed(self, group: str) -> dict[TopicPartition, int]: ...

    async def enforce_retention(self, now_ms: int) -> int:
        """Drop record batches past their topic's retention; returns how many records went."""
        ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_bus(url: str) -> Bus:
    """The bus behind ``url``. Raises ConfigError for a URL that names none."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme in ("memory", "sqlite"):
        from streams.embedded import EmbeddedBus

        return EmbeddedBus(url)
    if separator and scheme == "kafka":
        from streams.kafka import KafkaBus

        return KafkaBus(url)
    raise ConfigError(
        f"bus URL: expected memory://NAME, sqlite:///PATH/bus.db or kafka://HOST:PORT[/PREFIX], found {url!r}"
    )

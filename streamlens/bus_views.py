"""What is on the bus, for people and programs: topics, lag, and records as JSON lines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from streams.bus import Bus
from streams.errors import ConfigError, UnknownTopic
from streams.records import RecordBatch, TopicPartition

__all__ = ["RECORD_COLUMNS", "GroupLag", "TailedRecord", "describe_topics", "group_lags", "records_so_far", "tail"]

RECORD_COLUMNS = ("topic", "partition", "offset", "timestamp_ms", "key", "value")

_POLL_S = 0.2
"""How long a fetch may keep a tail from noticing that it shall stop."""


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far one group is behind on one partition. ``committed`` is None before the first commit."""

    group: str
    topic: str
    partition: int
    committed: int | None
    end: int

    @property
    def lag(self) -> int:
        return self.end - (self.committed or 0)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "lag": self.lag}


async def describe_topics(bus: Bus) -> list[dict[str, Any]]:
    """Every topic with the offsets its partitions hold."""
    described = []
    for name, info in sorted((await bus.topics()).items()):
        held = sorted((await bus.offsets(name)).items(), key=lambda row: row[0].partition)
        partitions = [
            {"partition": tp.partition, "start": start, "end": end, "records": end - start} for tp, (start, end) in held
        ]
        described.append(
            {
                "topic": name,
                "log_id": info.log_id,
                "retention_ms": info.retention_ms,
                "records": sum(row["records"] for row in partitions),
                "partitions": partitions,
            }
        )
    return described


async def group_lags(bus: Bus) -> list[GroupLag]:
    """Every group on every partition of each topic it has committed on."""
    rows: list[GroupLag] = []
    for group in sorted(await bus.groups()):
        committed = await bus.committed(group)
        for topic in sorted({tp.topic for tp in committed}):
            held = await bus.offsets(topic)
            rows += [
                GroupLag(group, topic, tp.partition, committed.get(tp), held[tp].end)
                for tp in sorted(held, key=lambda tp: tp.partition)
            ]
    return rows


@dataclass(frozen=True, slots=True)
class TailedRecord:
    """One record and where it stands. ``timestamp_ms``: wall time of publishing, since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes

    def holds(self, pattern: re.Pattern[str] | None, key: str | None) -> bool:
        """True if ``pattern`` is found in the value, and the key is ``key``; None asks for nothing."""
        if key is not None and self.key != key.encode(errors="surrogateescape"):
            return False
        return pattern is None or pattern.search(self.value.decode(errors="replace")) is not None

    def json_value(self) -> bytes:
        """The value as one line of JSON; what is not JSON becomes a JSON string."""
        return msgspec.json.encode(_as_json(self.value))

    def csv_row(self) -> tuple[object, ...]:
        """The record under RECORD_COLUMNS; what is not text has replacement characters."""
        key = None if self.key is None else self.key.decode(errors="replace")
        return (self.topic, self.partition, self.offset, self.timestamp_ms, key, self.value.decode(errors="replace"))

    def json_record(self) -> bytes:
        """The record with its place and key as one line of JSON."""
        return msgspec.json.encode(
            {
                "topic": self.topic,
                "partition": self.partition,
                "offset": self.offset,
                "timestamp_ms": self.timestamp_ms,
                "key": None if self.key is None else self.key.decode(errors="replace"),
                "value": _as_json(self.value),
            }
        )


def _as_json(value: bytes) -> Any:
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return value.decode(errors="replace")
    return msgspec.Raw(value.replace(b"\n", b" ").replace(b"\r", b" "))


async def tail(
    bus: Bus, topic: str, stopping: asyncio.Event, *, from_beginning: bool = False, partition: int | None = None
) -> AsyncGenerator[TailedRecord]:
    """The topic's records as they come, until ``stopping`` is set; by default only those that are still to come.

    Raises UnknownTopic for a topic that does not exist, ConfigError for a partition it does not have.
    """
    await _check(bus, topic, partition)
    async with await bus.consumer(topic) as consumer:
        wanted = sorted(tp for tp in consumer.assignment if partition in (None, tp.partition))
        await (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)(*wanted)
        while not stopping.is_set():
            batches = await consumer.fetch(timeout_s=_POLL_S, partitions=wanted)
            for record in _by_time(batches):
                yield record


async def records_so_far(bus: Bus, topic: str) -> list[TailedRecord]:
    """All records that the topic holds now, in the order of publishing."""
    left = {tp: held.end for tp, held in (await bus.offsets(topic)).items() if held.end > held.start}
    batches: list[RecordBatch] = []
    async with await bus.consumer(topic) as consumer:
        await consumer.seek_to_beginning(*consumer.assignment)
        while left:
            for batch in await consumer.fetch(timeout_s=_POLL_S):
                batches.append(batch)
                if batch.next_offset >= left.get(TopicPartition(batch.topic, batch.partition), batch.next_offset + 1):
                    del left[TopicPartition(batch.topic, batch.partition)]
    return _by_time(batches)


async def _check(bus: Bus, topic: str, partition: int | None) -> None:
    topics = await bus.topics()
    if topic not in topics:
        raise UnknownTopic(f"topic {topic!r}: expected one of {', '.join(sorted(topics)) or '(none yet)'} on {bus.url}")
    if partition is not None and not 0 <= partition < topics[topic].partitions:
        raise ConfigError(f"--partition: topic {topic} has 0 to {topics[topic].partitions - 1}, found {partition}")


def _by_time(batches: list[RecordBatch]) -> list[TailedRecord]:
    """One fetch's records in the order of publishing, as far as the clocks of their publishers agree."""
    records = [
        TailedRecord(batch.topic, batch.partition, offset, timestamp_ms, key, value)
        for batch in batches
        for offset, timestamp_ms, key, value in zip(
            batch.offsets.tolist(), batch.timestamps_ms.tolist(), batch.keys, batch.values, strict=True
        )
    ]
    records.sort(key=lambda record: record.timestamp_ms)  # stable: the order within a partition stays
    return records

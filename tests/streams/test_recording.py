"""The recorded stream is what the code of today publishes."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from streams.bus import Bus, open_bus
from streams.dataset import open_dataset
from streams.errors import PartitionMismatch
from streams.events import METRICS, RATINGS, Metric, RatingsRecord, Tick
from streams.recording import MINI_WORLD, mini_stream
from streams.records import TopicPartition
from streams.replayer import Replayer, ReplayOptions
from streams.topics import run_topics

STREAM = mini_stream()


async def by_partition(bus: Bus) -> dict[TopicPartition, list[tuple[bytes | None, bytes]]]:
    """Keys and values of all ratings and boundary ticks; heartbeats depend on the speed."""
    records: dict[TopicPartition, list[tuple[bytes | None, bytes]]] = {}
    count = sum(held.end for held in (await bus.offsets(RATINGS)).values())
    async with await bus.consumer(RATINGS) as consumer:
        while count:
            for batch in await consumer.fetch():
                count -= len(batch)
                records.setdefault(batch.tp, []).extend(
                    (key, value)
                    for key, value in zip(batch.keys, batch.values, strict=True)
                    if not msgspec.json.decode(value, type=RatingsRecord).heartbeat
                )
    return records


async def test_its_ratings_and_ticks_are_byte_for_byte_those_of_a_replay() -> None:
    async with open_bus("memory://") as recorded, open_bus("memory://") as replayed:
        await STREAM.publish(recorded)
        await Replayer(open_dataset(MINI_WORLD), replayed, ReplayOptions(speed=math.inf), run_id="mini").replay()
        assert await by_partition(recorded) == await by_partition(replayed)


def test_its_metrics_are_those_of_the_schema_and_tell_of_every_rating() -> None:
    metrics = [msgspec.json.decode(value, type=Metric) for value in STREAM.values(METRICS)]
    assert [msgspec.json.encode(metric) for metric in metrics] == STREAM.values(METRICS)
    counts = [metric.value for metric in metrics if metric.name == "features.ratings"]
    assert len(counts) > 10
    assert counts == sorted(counts)
    assert counts[-1] == 300
    assert [metric.emitted_at for metric in metrics] == sorted(metric.emitted_at for metric in metrics)


def test_it_ends_on_every_partition() -> None:
    ends = [r.partition for r in STREAM.records if r.topic == RATINGS and json.loads(bytes(r.value)).get("end_of_run")]
    assert sorted(ends) == [0, 1, 2, 3]
    assert msgspec.json.decode(STREAM.values(RATINGS)[-1], type=Tick).end_of_run


async def test_on_topics_with_other_partitions_it_is_refused() -> None:
    async with open_bus("memory://") as bus:
        await bus.create_topics(*run_topics(2))
        with pytest.raises(PartitionMismatch):
            await STREAM.publish(bus)

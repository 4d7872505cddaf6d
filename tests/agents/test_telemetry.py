"""Metrics say what was measured, to the last moment of a worker, and come back when the bus does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.ingest import FeatureIngest
from agents.telemetry import FeatureMetrics, publish_metrics
from featurestore.writer import FeatureWriter
from streams.bus import Bus, Producer, open_bus
from streams.clock import ManualClock
from streams.errors import BusError
from streams.events import METRICS, RATINGS, Metric, Rating
from streams.records import RecordBatch
from streams.topics import run_topics

NEVER_S = 3_600.0


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        await bus.create_topics(*run_topics(2))
        yield bus


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[FeatureIngest]:
    ingest = FeatureIngest(FeatureWriter(f"sqlite:///{tmp_path}/features.db", agent="features", topic=RATINGS))
    yield ingest
    ingest.close()


async def assign(bus: Bus, ingest: FeatureIngest) -> None:
    await ingest.assign((await bus.topics())[RATINGS], await bus.offsets(RATINGS))


def rating(offset: int, published_s: float, partition: int = 0) -> RecordBatch:
    published_ms = np.array([int(published_s * 1_000)])
    line = msgspec.json.encode(Rating(1, 1, 3.0, 1_000_000_000))
    return RecordBatch(RATINGS, partition, np.array([offset]), published_ms, offset + 1, line)


async def published(bus: Bus) -> list[Metric]:
    async with await bus.consumer(METRICS) as consumer:
        return [msgspec.json.decode(v, type=Metric) for b in await consumer.fetch() for v in b.values]


async def test_a_worker_stopped_before_the_first_time_publishes_once(bus: Bus, ingest: FeatureIngest) -> None:
    await assign(bus, ingest)
    task = asyncio.create_task(publish_metrics(bus, FeatureMetrics(ingest), every_s=NEVER_S))
    await asyncio.sleep(0)  # it waits for its first time now
    await ingest.apply([rating(0, 2e9)])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    values = {metric.name: metric.value for metric in await published(bus)}
    assert values["features.ratings"] == 1
    assert values["features.throughput"] > 0
    assert {"features.lag", "features.freshness_s", "features.latency_ms"} <= values.keys()
    assert {"features.duplicates", "features.late", "features.invalid"} <= values.keys()


async def test_a_failed_send_silences_no_later_metrics(
    bus: Bus, ingest: FeatureIngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_producer, made = bus.producer, []

    def first_one_fails() -> Producer:
        producer = open_producer()
        if not made:
            for tp in offsets:
                producer.failed(tp, BusError("away"))  # type: ignore[attr-defined]
        made.append(producer)
        return producer

    await assign(bus, ingest)
    offsets = await bus.offsets(METRICS)
    monkeypatch.setattr(bus, "producer", first_one_fails)
    task = asyncio.create_task(publish_metrics(bus, FeatureMetrics(ingest), every_s=0.001))
    async with asyncio.timeout(30):
        while not await published(bus):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])


async def test_a_worker_without_partitions_says_nothing(ingest: FeatureIngest) -> None:
    """One that is refused as the second of its group must not report a store of no ratings."""
    metrics = FeatureMetrics(ingest)
    assert metrics.take({0: 100}) == []
    assert metrics.latest == {}


async def test_freshness_is_the_age_of_what_waits_not_of_what_was_applied(bus: Bus, ingest: FeatureIngest) -> None:
    clock = ManualClock(2e9)
    await assign(bus, ingest)
    metrics = FeatureMetrics(ingest, wall_s=clock.time)

    def freshness(**log_end: int) -> float:
        metrics.take({0: log_end["end"], 1: 0})
        return metrics.latest["features.freshness_s"]

    await ingest.apply([rating(0, 2e9)])
    assert freshness(end=1) == 0
    clock.advance(1_000)
    assert freshness(end=1) == 0
    clock.advance(0.5)
    assert freshness(end=2) == 0.5  # the silence before it makes no record old
    clock.advance(2)
    assert freshness(end=3) == 2.5
    await ingest.apply([rating(1, 2e9 + 1_002)])
    assert freshness(end=3) == 0.5

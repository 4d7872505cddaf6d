"""What an agent tells about itself: metrics, twice a second, measured and never estimated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
import numpy as np
import structlog

from agents.ingest import FeatureIngest
from agents.metric_source import MetricSource
from featurestore.aggregate import Cursor
from streams.bus import Bus
from streams.errors import BusError
from streams.events import METRICS, RATINGS, Metric

__all__ = ["FeatureMetrics", "Measured", "publish_metrics"]

log = structlog.get_logger(__name__)


class FeatureMetrics:
    """Turns the ingest's counters into metrics; each call of :meth:`take` covers the time since the last.

    There are none while the worker holds no partition: it knows nothing of the store then.

    ``features.throughput`` records/s; ``features.lag`` records not applied yet; ``features.latency_ms`` from publishing
    to stored, by quantile, absent while nothing came; ``features.freshness_s`` the most that the oldest record that
    waits can be old, 0 when none does: it came after the last one applied, and after the last call that found none
    waiting; ``features.ratings``, ``.duplicates``, ``.late``, ``.invalid``: valid ones and the others, counted
    over the store's life; ``features.transactions`` and ``.store_errors`` since the worker started.

    ``published``: how often the bus took them, or answered while there were none.
    """

    def __init__(self, ingest: FeatureIngest, *, wall_s: Callable[[], float] = time.time) -> None:
        self._ingest = ingest
        self._wall_s = wall_s
        self._source = MetricSource("features")
        self._records = 0
        self._since = wall_s()
        self._nothing_waited: dict[int, float] = {}
        self.latest: dict[str, float] = {}
        self.published = 0

    def take(self, log_end: dict[int, int]) -> list[Metric]:
        """The metrics now; ``log_end``: the high-water mark of each partition."""
        now = self._wall_s()
        stats, cursors = self._ingest.stats, self._ingest.writer.cursors
        if not cursors:
            return []
        elapsed = max(now - self._since, 1e-3)
        lag = sum(max(end - cursors[p].next_offset, 0) for p, end in log_end.items() if p in cursors)
        values: dict[str, float] = {
            "features.throughput": (stats.records - self._records) / elapsed,
            "features.lag": lag,
            "features.freshness_s": self._freshness_s(cursors, log_end, now),
            "features.ratings": sum(c.ratings for c in cursors.values()),
            "features.duplicates": sum(c.duplicates for c in cursors.values()),
            "features.late": sum(c.late for c in cursors.values()),
            "features.invalid": sum(c.invalid for c in cursors.values()),
            "features.transactions": stats.transactions,
            "features.store_errors": stats.store_errors,
        }
        self._records, self._since = stats.records, now
        clock = min((c.clock for c in cursors.values()), default=0)
        metrics = [self._source.metric(name, value, {}, clock, now) for name, value in values.items()]
        latencies = stats.latencies.take()
        if len(latencies):
            p50, p99 = np.percentile(latencies, [50, 99]).tolist()
            for quantile, value in (("p50", p50), ("p99", p99)):
                metrics.append(self._source.metric("features.latency_ms", value, {"quantile": quantile}, clock, now))
                values[f"features.latency_ms.{quantile}"] = value
        self.latest = values
        return metrics

    def _freshness_s(self, cursors: Mapping[int, Cursor], log_end: Mapping[int, int], now: float) -> float:
        waits_since = [now]
        for partition, cursor in cursors.items():
            if cursor.next_offset >= log_end.get(partition, 0):
                self._nothing_waited[partition] = now
            elif since := max(cursor.published_ms / 1_000, self._nothing_waited.get(partition, 0.0)):
                waits_since.append(since)
        return now - min(waits_since)


class Measured(Protocol):
    """What an agent tells about itself; published: how often the bus took it, or answered while there was nothing."""

    published: int

    def take(self, log_end: dict[int, int]) -> list[Metric]:
        """The metrics now; ``log_end``: the high-water mark of each partition of the topic that the agent reads."""


async def publish_metrics(bus: Bus, metrics: Measured, *, topic: str = RATINGS, every_s: float = 0.5) -> None:
    """Publish until cancelled, then once more: what was done since the last time, and how the work was left.

    Metrics that the bus refuses are gone: the next ones say the same, newer.
    """
    try:
        while True:
            await asyncio.sleep(every_s)
            await _publish(bus, metrics, topic)
    finally:
        await _publish(bus, metrics, topic)


async def _publish(bus: Bus, metrics: Measured, topic: str) -> None:
    try:
        ends = {tp.partition: held.end for tp, held in (await bus.offsets(topic)).items()}
        async with bus.producer() as producer:  # a new one each time: after a failed send one takes nothing more
            for metric in metrics.take(ends):
                await producer.send(METRICS, msgspec.json.encode(metric), key=metric.name.encode())
            await producer.flush()
        metrics.published += 1
    except BusError as error:
        log.warning("metrics not published", error=str(error))

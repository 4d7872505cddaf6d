"""What the monitors tell, twice a second: how far they are, and the figures of the day that was closed last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
import structlog

from agents.metric_source import MetricSource
from agents.monitor_figures import metrics_of
from agents.monitor_ingest import MonitorIngest
from agents.monitor_store import ClosedFigures
from streams.bus import Bus
from streams.errors import BusError
from streams.events import METRICS, Metric
from streams.records import TopicPartition

__all__ = ["MonitorMetrics", "publish_monitor_metrics"]

log = structlog.get_logger(__name__)


class MonitorMetrics:
    """Turns what the monitors found into metrics.

    ``monitors.closed``: event time up to which days are closed; ``monitors.held``: records that wait for their day;
    ``monitors.throughput``: records/s taken in; ``monitors.lag``: records not in the stored state yet. Then those of
    :func:`agents.monitor_figures.metrics_of`, once for each day that was the last one closed when it was looked at:
    under backlog days are passed over here, none in the store.
    """

    def __init__(self, ingest: MonitorIngest, *, wall_s: Callable[[], float] = time.time) -> None:
        self._ingest = ingest
        self._wall_s = wall_s
        self._source = MetricSource("monitors")
        self._records = 0
        self._since = wall_s()
        self._told: ClosedFigures | None = None
        self.published = 0
        self.latest: dict[str, float] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        return self._ingest.settings.topics

    def take(self, log_end: Mapping[TopicPartition, int]) -> list[Metric]:
        """The metrics now; ``log_end``: the high-water mark of each partition."""
        now, ingest = self._wall_s(), self._ingest
        cursors = ingest.writer.cursors
        if not cursors:
            return []
        elapsed = max(now - self._since, 1e-3)
        lag = sum(max(end - cursors[tp].next_offset, 0) for tp, end in log_end.items() if tp in cursors)
        self.latest = {
            "monitors.closed": ingest.closed,
            "monitors.held": ingest.held,
            "monitors.throughput": (ingest.records - self._records) / elapsed,
            "monitors.lag": lag,
        }
        self._records, self._since = ingest.records, now
        found = [self._source.metric(name, value, {}, ingest.closed, now) for name, value in self.latest.items()]
        day = ingest.latest
        if day is not None and day is not self._told:
            event_time = day.metrics.event_time
            figures = metrics_of(day, ingest.settings.thresholds)
            found += [self._source.metric(name, value, labels, event_time, now) for name, value, labels in figures]
            self._told = day
        return found


async def publish_monitor_metrics(bus: Bus, metrics: MonitorMetrics, *, every_s: float = 0.5) -> None:
    """Publish until cancelled, then once more. Metrics that the bus refuses are gone: the next ones say the same."""
    try:
        while True:
            await asyncio.sleep(every_s)
            await _publish(bus, metrics)
    finally:
        await _publish(bus, metrics)


async def _publish(bus: Bus, metrics: MonitorMetrics) -> None:
    try:
        ends: dict[TopicPartition, int] = {}
        for topic in metrics.topics:
            ends |= {tp: held.end for tp, held in (await bus.offsets(topic)).items()}
        async with bus.producer() as producer:  # a new one each time: after a failed send one takes nothing more
            for metric in metrics.take(ends):
                await producer.send(METRICS, msgspec.json.encode(metric), key=metric.name.encode())
            await producer.flush()
        metrics.published += 1
    except BusError as error:
        log.warning("metrics not published", error=str(error))

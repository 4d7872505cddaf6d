"""What is kept of the topics that the pages watch: pure memory, told one record after the other."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from dashboards.rings import ColumnRing, Point, Series, SeriesRing
from streams.batch import InvalidRecord
from streams.events import (
    ALERTS,
    DEADLETTER,
    FEEDBACK,
    IMPRESSIONS,
    METRICS,
    MODELS,
    RETRAIN,
    Alert,
    DeadLetter,
    Feedback,
    Metric,
    ModelEvent,
    Slate,
    Tick,
)
from streams.records import RecordBatch
from streams.retrain import RetrainRequested

__all__ = ["KEPT", "WATCHED", "LiveRecords", "Placed"]

WATCHED = (METRICS, ALERTS, RETRAIN, MODELS, IMPRESSIONS, FEEDBACK, DEADLETTER)
KEPT: Mapping[str, int] = {
    METRICS: 20_000,
    ALERTS: 1_000,
    RETRAIN: 500,
    MODELS: 500,
    IMPRESSIONS: 500,
    FEEDBACK: 100_000,
    DEADLETTER: 500,
}
"""Records of each topic that are looked back for at the start, and that are kept (of metrics: see below)."""

_POINTS = 1_200
"""Of each metric: ten minutes at two a second."""
_EVENT_DAYS = 4_096
"""Of each metric that comes once an event day."""
_SERIES = 3_000
"""Labels name processes, so that in a long run there are ever more; those that nobody tells any more make room."""
_NAME_BYTES = 200
_VARIANTS = 100
"""Told apart; those that come after them count as one, `other`."""

_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    METRICS: msgspec.json.Decoder(Metric),
    ALERTS: msgspec.json.Decoder(Alert),
    RETRAIN: msgspec.json.Decoder(RetrainRequested),
    MODELS: msgspec.json.Decoder(ModelEvent),
    IMPRESSIONS: msgspec.json.Decoder(Slate | Tick),
    FEEDBACK: msgspec.json.Decoder(Feedback | Tick),
    DEADLETTER: msgspec.json.Decoder(DeadLetter),
}

FEEDBACK_ROW = np.dtype(
    [
        ("event_time", np.int64),
        ("user_id", np.int64),
        ("variant", np.int16),
        ("shown", np.int32),
        ("clicks", np.int32),
        ("ratings", np.int32),
        ("seconds", np.int64),
        ("simulated", np.bool_),
    ]
)

_Key = tuple[str, tuple[tuple[str, str], ...], str]
"""Name, labels and, where several workers tell of their own partitions each, source."""
_EACH_WORKERS = "features."


_generations = count(1)


@dataclass(frozen=True, slots=True)
class Placed:
    """A record, where it stands, and when it was published (wall time, seconds since the epoch)."""

    record: Any
    partition: int
    offset: int
    published: float


class LiveRecords:
    """The last records of each topic, metrics as series. Thread-safe; what is handed out never changes.

    At least once is what the bus promises: a record whose id is not above the last one of its source on its partition
    was there before. Records that are none of their topic's are counted and passed over. generation: no other in this
    process has it, so that what was computed of a log that was replaced is not taken for this one's.
    """

    def __init__(self) -> None:
        self.generation = next(_generations)
        self._lock = threading.Lock()
        self._series: dict[_Key, SeriesRing] = {}
        self._recent: dict[str, deque[Placed]] = {
            topic: deque(maxlen=KEPT[topic]) for topic in WATCHED if topic not in (METRICS, FEEDBACK)
        }
        self._feedback = ColumnRing(FEEDBACK_ROW, KEPT[FEEDBACK])
        self._variants: dict[str, int] = {}
        self._newest_ids: dict[tuple[str, int, str], int] = {}
        self._published: dict[str, float] = {}
        self._counts: dict[str, int] = dict.fromkeys(WATCHED, 0)
        self._event_time = 0
        self.garbage: dict[str, int] = dict.fromkeys(WATCHED, 0)

    # Writing

    def take(self, batches: Iterable[RecordBatch]) -> None:
        """Keep what one fetch brought."""
        with self._lock:
            for batch in batches:
                self._take_batch(batch)

    def _take_batch(self, batch: RecordBatch) -> None:
        decode = _DECODERS[batch.topic].decode
        rows = zip(batch.offsets.tolist(), batch.timestamps_ms.tolist(), batch.values, strict=True)
        for offset, timestamp_ms, value in rows:
            published = timestamp_ms / 1_000
            try:
                record = decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.garbage[batch.topic] += 1
                if batch.topic != DEADLETTER:
                    continue
                reason = f"not a dead letter: {error}"
                record = InvalidRecord(offset, reason, value).dead_letter(DEADLETTER, batch.partition)
            if self._is_duplicate(batch, record):
                continue
            self._counts[batch.topic] += 1
            self._published[batch.topic] = max(published, self._published.get(batch.topic, 0.0))
            self._keep(batch.topic, Placed(record, batch.partition, offset, published))

    def _is_duplicate(self, batch: RecordBatch, record: Any) -> bool:
        event_id, source = getattr(record, "event_id", None), getattr(record, "source", None)
        if batch.topic == METRICS or event_id is None or source is None or isinstance(record, Tick):
            return False  # a metric says for itself when it was measured
        key = (batch.topic, batch.partition, source)
        if event_id <= self._newest_ids.get(key, -1):
            return True
        if len(self._newest_ids) < 10 * _SERIES:
            self._newest_ids[key] = event_id
        return False

    def _keep(self, topic: str, placed: Placed) -> None:
        record = placed.record
        if isinstance(record, Metric):
            self._keep_metric(record)
        elif isinstance(record, Feedback):
            self._keep_feedback(record)
        elif not isinstance(record, Tick):
            self._recent[topic].append(placed)

    def _keep_metric(self, metric: Metric) -> None:
        if not (math.isfinite(metric.value) and math.isfinite(metric.emitted_at)):
            self.garbage[METRICS] += 1
            return
        key = _key(metric.name, metric.labels, _source(metric))
        ring = self._series.get(key)
        if ring is None:
            if len(metric.name) > _NAME_BYTES:
                self.garbage[METRICS] += 1
                return
            if len(self._series) >= _SERIES:
                self._forget_the_oldest()
            size = _EVENT_DAYS if metric.name.startswith("monitors.") else _POINTS
            ring = self._series[key] = SeriesRing(metric.name, metric.labels, size)
        ring.add(Point(metric.emitted_at, metric.value, metric.event_time or 0))
        if metric.name.startswith(_EACH_WORKERS):
            self._event_time = max(self._event_time, metric.event_time or 0)

    def _forget_the_oldest(self) -> None:
        """A quarter of the series: those whose newest value is oldest."""
        newest = {key: ring.last.at for key, ring in self._series.items() if ring.last is not None}
        for key in sorted(newest, key=newest.__getitem__)[: _SERIES // 4]:
            del self._series[key]

    def _keep_feedback(self, feedback: Feedback) -> None:
        known = feedback.variant in self._variants or len(self._variants) < _VARIANTS
        variant = self._variants.setdefault(feedback.variant if known else "other", len(self._variants))
        self._feedback.add(
            (
                feedback.timestamp,
                feedback.user_id,
                variant,
                min(feedback.n_shown, 2**31 - 1),
                len(feedback.clicked),
                min(feedback.n_ratings, 2**31 - 1),
                feedback.session_seconds,
                feedback.simulated,
            )
        )

    # Reading

    def series(self, name: str, **labels: str) -> Series | None:
        """The metric's values, of the worker that told last where there are several; None before the first."""
        with self._lock:
            ring = self._newest(name, labels)
            return None if ring is None else ring.series()

    def latest(self, name: str, **labels: str) -> Point | None:
        """The metric's newest value."""
        with self._lock:
            ring = self._newest(name, labels)
            return None if ring is None else ring.last

    def of_workers(self, name: str, **labels: str) -> list[Series]:
        """The metric's values as each worker told them, the one that told last first."""
        with self._lock:
            rings = self._rings(name, labels)
            return [ring.series() for ring in sorted(rings, key=_told, reverse=True)]

    def latest_of_workers(self, name: str, **labels: str) -> list[Point]:
        """The newest value that each worker told, the newest of all first."""
        with self._lock:
            points = [ring.last for ring in self._rings(name, labels) if ring.last is not None]
        return sorted(points, key=lambda point: point.at, reverse=True)

    def _newest(self, name: str, labels: Mapping[str, str]) -> SeriesRing | None:
        return max(self._rings(name, labels), key=_told, default=None)

    def _rings(self, name: str, labels: Mapping[str, str]) -> list[SeriesRing]:
        key = _key(name, labels)
        if name.startswith(_EACH_WORKERS):
            return [ring for held, ring in self._series.items() if held[:2] == key[:2]]
        ring = self._series.get(key)
        return [] if ring is None else [ring]

    def all_series(self, prefix: str) -> list[Series]:
        """Of every metric whose name is ``prefix``, or begins with it where it ends in a dot; by name and labels."""
        with self._lock:
            wanted = [
                key for key in self._series if key[0] == prefix or (prefix.endswith(".") and key[0].startswith(prefix))
            ]
            return [self._series[key].series() for key in sorted(wanted)]

    def all_latest(self, prefix: str) -> list[tuple[str, Mapping[str, str], Point]]:
        """Name, labels and newest value of each of those."""
        with self._lock:
            rings = [self._series[key] for key in sorted(self._series) if key[0].startswith(prefix)]
            return [(ring.name, ring.labels, ring.last) for ring in rings if ring.last is not None]

    def recent(self, topic: str) -> tuple[Placed, ...]:
        """The last records of a topic other than metrics and feedback, oldest first."""
        with self._lock:
            return tuple(self._recent[topic])

    def feedback(self) -> tuple[npt.NDArray[np.void], tuple[str, ...]]:
        """The last feedback as columns of :data:`FEEDBACK_ROW`, in the order of reading, and the variants' names."""
        with self._lock:
            return self._feedback.rows(), tuple(self._variants)

    @property
    def n_feedback(self) -> int:
        """How many there were in all: it tells whether :meth:`feedback` has changed."""
        return self._feedback.added

    def count(self, topic: str) -> int:
        """Records read of a topic since the start, without duplicates and garbage."""
        return self._counts[topic]

    def published(self, topic: str) -> float | None:
        """When the newest record of a topic was published; None before the first."""
        return self._published.get(topic)

    @property
    def event_time(self) -> int:
        """The run's event time as the features agent told it last; 0 before it did."""
        return self._event_time


def _key(name: str, labels: Mapping[str, str], source: str = "") -> _Key:
    return name, tuple(sorted(labels.items())), source


def _told(ring: SeriesRing) -> float:
    return ring.last.at if ring.last is not None else 0.0


def _source(metric: Metric) -> str:
    return (metric.source or "") if metric.name.startswith(_EACH_WORKERS) else ""

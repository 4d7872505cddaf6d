"""What the production page shows, as plain values of what was read: no Streamlit here, and no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.charts import Row
from dashboards.live_records import LiveRecords, Placed
from dashboards.panels import Tile, age_text, day, number
from dashboards.rings import Point, Series
from dashboards.store_probe import StoreView
from models.metrics import Floats
from streams.drift import InjectedDrift
from streams.events import ALERTS, Alert

__all__ = [
    "HEARTBEAT_ROLES",
    "LagRow",
    "Measure",
    "ProcessRow",
    "Trend",
    "alert_marks",
    "alert_rows",
    "availability",
    "drift_marks",
    "lag_rows",
    "measured",
    "measures",
    "overview",
    "process_rows",
    "titled",
    "trending",
]

HEARTBEAT_ROLES = ("replayer", "features", "loop", "monitors", "trainer")
_BIN_S = 5.0
_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class LagRow:
    """How far the features are on one partition of ``ratings``; None where the store does not say."""

    partition: int
    end: int
    applied: int | None
    clock: int

    @property
    def lag(self) -> int | None:
        return None if self.applied is None else max(self.end - self.applied, 0)


def lag_rows(ends: Mapping[int, int], store: StoreView) -> list[LagRow]:
    """Of each partition."""
    applied = {row.partition: row for row in store.applied}
    rows = []
    for partition in sorted(ends):
        row = applied.get(partition)
        rows.append(LagRow(partition, ends[partition], row.next_offset if row else None, row.clock if row else 0))
    return rows


def overview(records: LiveRecords, store: StoreView) -> list[Tile]:
    """The figures on top, each the newest measured value."""

    def latest(name: str, **labels: str) -> float | None:
        point = records.latest(name, **labels)
        return None if point is None else point.value

    p50, p99 = (latest("features.latency_ms", quantile=quantile) for quantile in ("p50", "p99"))
    published, total = latest("replay.published"), latest("replay.total")
    share = f"{published / total:.0%} of {number(total)} published" if published is not None and total else ""
    others = f"{number(latest('features.late'))} late, {number(latest('features.duplicates'))} duplicates"
    return [
        Tile("applied", "Ratings applied", number(latest("features.ratings")), note=share),
        Tile("throughput", "Throughput", number(latest("features.throughput")), "events/s", "into the features"),
        Tile("lag", "Lag", number(latest("features.lag")), "records", "published, not applied"),
        Tile("latency", "Latency p50", number(p50, 1), "ms", f"p99 {number(p99, 1)} ms"),
        Tile("freshness", "Freshness", number(latest("features.freshness_s"), 2), "s", "age of the oldest waiting"),
        Tile("dead_letters", "Dead letters", number(latest("features.invalid")), "records", others),
    ]


def availability(at: Floats, now: float, *, window_s: float = _WINDOW_S, bin_s: float = _BIN_S) -> float:
    """Share of the last ``window_s``, from the first heartbeat in it on, whose parts of ``bin_s`` hold a heartbeat.

    at: wall times of heartbeats, rising. The part that runs now does not count until it is over.

    >>> availability(np.arange(0.0, 60.0), now=60.0), availability(np.arange(0.0, 30.0), now=60.0)
    (1.0, 0.5)
    """
    seen = at[(at > now - window_s) & (at <= now)]
    if not len(seen):
        return 0.0
    n = int((now - seen[0]) / bin_s)
    if n == 0:
        return 1.0
    bins = np.unique(((seen - seen[0]) / bin_s).astype(int))
    return float((bins < n).sum() / n)


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """The newest process of a role. cpu in cores; None where it is not told."""

    role: str
    pid: str
    cpu: float | None
    rss_mib: float | None
    written_mib: float | None
    at: float
    available: float


def process_rows(records: LiveRecords, now: float) -> list[ProcessRow]:
    """One for each role that has told of itself, and so long as it may be missed."""
    by_role: dict[str, list[Series]] = {}
    for series in records.all_series("process.rss_mib"):
        if len(series) and "role" in series.labels:
            by_role.setdefault(series.labels["role"], []).append(series)
    rows = []
    for role, all_of_role in by_role.items():
        newest = max(all_of_role, key=lambda series: float(series.at[-1]))
        beats = np.sort(np.concatenate([series.at for series in all_of_role]))
        of_process = {name: records.latest(f"process.{name}", **newest.labels) for name in ("cpu", "written_mib")}
        rows.append(
            ProcessRow(
                role,
                newest.labels.get("pid", ""),
                _value(of_process["cpu"]),
                float(newest.value[-1]),
                _value(of_process["written_mib"]),
                float(newest.at[-1]),
                availability(beats, now),
            )
        )
    order = {role: i for i, role in enumerate(HEARTBEAT_ROLES)}
    return sorted(rows, key=lambda row: (order.get(row.role, len(order)), row.role))


def _value(point: Point | None) -> float | None:
    return None if point is None else point.value


@dataclass(frozen=True, slots=True)
class Trend:
    """A movie's ratings in the last window and in the one before; was: its place then, None where it had none."""

    movie_id: int
    title: str
    n: int
    before: int
    place: int
    was: int | None

    @property
    def moved(self) -> str:
        if self.was is None:
            return "new"
        step = self.was - self.place
        return f"▲ {step}" if step > 0 else f"▼ {-step}" if step < 0 else "-"


def trending(store: StoreView, k: int = 8) -> list[Trend]:
    """The most rated movies, beside where they were one window earlier."""
    before = {item.movie_id: (place, item.n_ratings) for place, item in enumerate(store.popular_before, 1)}
    rows = []
    for place, item in enumerate(store.popular[:k], 1):
        was, n = before.get(item.movie_id, (None, 0))
        rows.append(Trend(item.movie_id, titled(store, item.movie_id), item.n_ratings, n, place, was))
    return rows


def titled(store: StoreView, movie_id: int) -> str:
    """The movie's title, or its id."""
    movie = store.movies.get(movie_id)
    return movie.title if movie else f"movie {movie_id}"


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One monitored measure: its values by event day, its baseline and its thresholds."""

    name: str
    values: Series
    others: list[tuple[str, Series]]


def measures(records: LiveRecords) -> list[Measure]:
    """All that the monitors have told so far, the detectors' levels as one measure each."""
    by_name: dict[str, dict[str, Any]] = {}
    for series in records.all_series("monitors."):
        name = series.name.removeprefix("monitors.")
        if name.startswith("variant.") or name in _OF_THE_AGENT or not len(series):
            continue
        if name.startswith("detector."):
            detector = series.labels.get("detector", "?")
            part = {"latest": "values", "level": "level"}.get(name.removeprefix("detector."))
            if part is not None:
                by_name.setdefault(detector, {})[part] = series
            continue
        base, _, part = name.partition(".")
        if part in ("breached_closes", "for_days"):
            continue
        label = f"{series.labels['bound']} threshold" if part == "threshold" and "bound" in series.labels else part
        by_name.setdefault(base, {})[label or "values"] = series
    found = []
    for name, parts in by_name.items():
        values = parts.pop("values", None) or parts.pop("level", None)
        if values is not None:
            found.append(Measure(name, values, sorted(parts.items())))
    return found


_OF_THE_AGENT = {"closed", "held", "throughput", "lag", "days", "store_errors", "transactions", "latency_ms"}


def drift_marks(drifts: Sequence[InjectedDrift]) -> list[Row]:
    """The injected truth as rows of a chart over event time."""
    return [
        {"t": drift.begins * 1_000.0, "value": None, "series": f"{drift.kind}, {drift.strength}", "kind": "injected"}
        for drift in drifts
    ]


def alert_marks(placed: Sequence[Placed], name: str) -> list[Row]:
    """Alerts about ``name`` as rows of a chart over event time."""
    alerts: list[Alert] = [one.record for one in placed if one.record.name == name]
    return [
        {"t": alert.event_time * 1_000.0, "value": None, "series": f"{alert.severity}: {alert.name}", "kind": "alert"}
        for alert in alerts
    ]


def alert_rows(records: LiveRecords, now: float, k: int = 12) -> list[list[str]]:
    """The last alerts, newest first: event day, name, severity, kind, what was measured, and when it came."""
    rows = []
    for placed in reversed(records.recent(ALERTS)[-k:]):
        alert: Alert = placed.record
        rows.append(
            [
                day(alert.event_time),
                alert.name,
                alert.severity,
                alert.kind,
                measured(alert),
                age_text(now - placed.published),
            ]
        )
    return rows


def measured(alert: Alert) -> str:
    """The evidence in short.

    >>> measured(Alert("ctr", "critical", "threshold", {"ctr": {"value": 0.02, "baseline": 0.03, "n": 2531}}, 0))
    '0.02, baseline 0.03, n 2,531'
    """
    evidence = alert.evidence.get(alert.name, alert.evidence)
    if not isinstance(evidence, dict):
        return str(evidence)
    parts = []
    for name in ("value", "latest", "level", "baseline", "change", "n"):
        value = evidence.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            shown = f"{value:,}" if isinstance(value, int) else f"{value:+.1%}" if name == "change" else f"{value:.4g}"
            parts.append(shown if name == "value" else f"{name} {shown}")
    return ", ".join(parts)

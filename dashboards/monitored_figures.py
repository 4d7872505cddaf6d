"""What the monitors tell, as rows and lines to be drawn: measures, detectors, alerts, and what was injected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.charts import Row
from dashboards.live_records import LiveRecords, Placed
from dashboards.panels import age_text, day
from dashboards.rings import Series
from dashboards.units import Unit, signal_unit, unit_of
from streams.drift import InjectedDrift
from streams.events import ALERTS, Alert

__all__ = ["Measure", "alert_marks", "alert_rows", "drift_marks", "measured", "measures"]

_OF_THE_AGENT = {"closed", "held", "throughput", "lag", "days", "store_errors", "transactions", "latency_ms"}
_ACRONYMS = {"ctr", "rmse", "ndcg", "kl"}
_DETECTOR = "detector."


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """One chart by event day: what is watched first, then what it is compared with, all in ``unit``.

    about: what the lines do not tell. simulated: of users that are made up.
    """

    name: str
    unit: Unit
    lines: list[tuple[str, Series]]
    about: str = ""
    simulated: bool = False

    @property
    def title(self) -> str:
        """Its name in words."""
        words = " ".join(word.upper() if word in _ACRONYMS else word for word in self.name.split("_"))
        return f"{words}, made-up users" if self.simulated else words

    @property
    def event_time(self) -> int:
        """Of the newest value."""
        return int(self.lines[0][1].event_time[-1])


def measures(records: LiveRecords) -> list[Measure]:
    """All that the monitors have told so far: measures beside their thresholds, then detectors beside theirs."""
    of_measures: dict[str, dict[str, Series]] = {}
    of_detectors: dict[str, dict[str, Series]] = {}
    for series in records.all_series("monitors."):
        name = series.name.removeprefix("monitors.")
        if name.startswith("variant.") or name in _OF_THE_AGENT or not len(series):
            continue
        if name.startswith(_DETECTOR):
            part = name.removeprefix(_DETECTOR)
            of_detectors.setdefault(series.labels.get("detector", "?"), {})[part] = series
            continue
        name, _, part = name.partition(".")
        bound = series.labels.get("bound")
        of_measures.setdefault(name, {})[f"{bound} {part}" if bound else part] = series
    found = [_measure(name, parts) for name, parts in of_measures.items() if "" in parts]
    return found + [
        _detector(name, parts) for name, parts in of_detectors.items() if {"latest", "statistic"} & {*parts}
    ]


def _measure(name: str, parts: dict[str, Series]) -> Measure:
    values = parts[""]
    compared = [(part, parts[part]) for part in ("baseline", "low threshold", "high threshold") if part in parts]
    return Measure(name, unit_of(name), [("value", values), *compared], _breaches(parts), "simulated" in values.labels)


def _breaches(parts: dict[str, Series]) -> str:
    breached, needed = (int(parts[name].value[-1]) if name in parts else 0 for name in ("breached_closes", "for_days"))
    return f"breached {breached} of {needed} closes in a row" if breached and needed else ""


def _detector(name: str, parts: dict[str, Series]) -> Measure:
    """Of Page-Hinkley its statistic, which has a threshold; of any other what it observes, beside its mean before."""
    latest = parts.get("latest")
    if "statistic" in parts:
        shown, unit = ("statistic", "threshold"), Unit("standard deviations")
        about = "" if latest is None else f"observed last: {latest.value[-1]:.4g}"
    else:
        shown, unit = ("latest", "level"), signal_unit(name)
        level = parts.get("significance")
        about = "" if level is None else f"compares all cuts, at a significance of {level.value[-1]:g}"
    lines = [(part, parts[part]) for part in shown if part in parts]
    return Measure(name, unit, lines, about, "simulated" in lines[0][1].labels)


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

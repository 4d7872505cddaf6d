"""Panels of the production page about what the monitors tell: alerts, measures and drift detectors."""

from __future__ import annotations

import streamlit as st

from dashboards import charts
from dashboards.live import Live
from dashboards.monitored_figures import Measure, alert_marks, alert_rows, drift_marks, measures
from dashboards.panels import chart, day, empty, note, panel, pill, table, title
from streams.drift import InjectedDrift
from streams.events import ALERTS

__all__ = ["alerts_panel", "measures_panel"]

_SEVERITY = {"critical": "bad", "schedule": "warn"}


def alerts_panel(live: Live) -> None:
    records, now = live.subscriber.records, live.now()
    with panel("alerts", "Alerts", records.published(ALERTS), now, stale_after_s=None, heard=live.bus_heard):
        rows = alert_rows(records, now)
        if not rows:
            empty("None", "Rules and detectors tell here when they begin to fire.")
            return
        for row in rows:
            row[2] = pill(row[2], _SEVERITY.get(row[2], "idle"))
        table(["event day", "of", "severity", "kind", "measured", "came"], rows, label="Alerts")


def measures_panel(live: Live) -> None:
    records, now, drifts = live.subscriber.records, live.now(), live.target.drift
    found = measures(records)
    if not found:
        with panel("monitors", "Measures and drift detectors", None, now, heard=live.bus_heard):
            empty(
                "Nothing judged yet",
                "The monitors tell a figure per closed event day.",
                "streamlens worker --role monitors",
            )
            if drifts:
                note(f"injected into this run: {_in_words(drifts)}")
        return
    closed = records.latest("monitors.closed")
    at = closed.at if closed else None
    with panel("monitors", "Measures and drift detectors, by event day", at, now, heard=live.bus_heard):
        note(
            "Thresholds are those that the monitors go by. Triangles: alerts. "
            + (f"Upright lines, the truth: {_in_words(drifts)}." if drifts else "No drift was injected.")
        )
        for i in range(0, len(found), 3):
            for column, measure in zip(st.columns(3, gap="small"), found[i : i + 3], strict=False):
                with column:
                    _measure(live, measure, drifts)


def _in_words(drifts: tuple[InjectedDrift, ...]) -> str:
    return ", ".join(f"{drift.kind} ({drift.strength}) from {day(drift.begins)}" for drift in drifts)


def _measure(live: Live, measure: Measure, drifts: tuple[InjectedDrift, ...]) -> None:
    title(measure.title, day(measure.event_time))
    rows = charts.series_table(measure.lines, time="event", scale=measure.unit.scale).to_pylist()
    rows += drift_marks(drifts) + alert_marks(live.subscriber.records.recent(ALERTS), measure.name)
    chart(
        charts.rows_table(rows, ("t", "value", "series", "kind")),
        charts.event_lines(measure.title, measure.unit.title),
        height=200,
        key=f"measure_{measure.name}",
    )
    if measure.about:
        note(measure.about)

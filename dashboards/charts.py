"""Charts: Altair specifications, made once each, and the tables that are sent to them.

A specification never changes while a page is open: only its data does, so that the browser moves the marks it has, and
the server neither builds nor checks a chart again. Series differ in colour and in dashes, which stay apart for
colour-blind readers and on light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal

import altair as alt
import numpy as np
import pyarrow as pa

from dashboards.rings import Series
from models.metrics import Floats

__all__ = [
    "INKS",
    "PALETTE",
    "Row",
    "Spec",
    "bars",
    "event_lines",
    "inked",
    "interval_band",
    "intervals",
    "learning_curves",
    "rows_table",
    "series_table",
    "thinned",
    "wall_lines",
]

PALETTE = ("#2f7fd0", "#d9730d", "#946638", "#e0218a", "#9933ff")
"""Apart from each other also for colour-blind readers, and from white and from the dark ground; more series take them
again, in other dashes."""
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4], [4, 4])
_HEIGHT = 200
_POINTS = 240
INKS = {"light": "#4d565c", "dark": "#b4bcc0"}
"""Of what is written, and of lines of the grid, on white and on the dark ground."""

Spec = dict[str, Any]
Row = dict[str, Any]


def _described(chart: Any, description: str) -> Spec:
    made: Spec = chart.properties(height=_HEIGHT, description=description).configure_view(strokeOpacity=0).to_dict()
    made.pop("data", None)
    made["padding"] = {"left": 2, "right": 14, "top": 2, "bottom": 2}  # Streamlit puts 20 px below a chart without
    made["config"] |= {
        "axis": {"titlePadding": 6, "titleFontSize": 11.5, "labelFontSize": 11.5},
        "legend": {"offset": 2, "labelFontSize": 11.5, "symbolSize": 300},
    }
    return made


def _time(title: str, *, utc: bool) -> alt.X:
    # Event time is in UTC everywhere; wall time is the reader's own.
    scale = alt.Scale(type="utc") if utc else alt.Scale()
    axis = alt.Axis(format="%Y-%m-%d" if utc else "%H:%M:%S", labelAngle=0, tickCount=4, labelOverlap=True)
    return alt.X("t:T", title=title, scale=scale, axis=axis)


def inked(spec: Spec, ink: str) -> Spec:
    """The chart with its writing and its grid in a colour that can be read on the ground it stands on."""
    config = spec["config"]
    lines = {"gridColor": ink, "gridOpacity": 0.2, "domainColor": ink, "tickColor": ink}
    axis = config["axis"] | lines | {"labelColor": ink, "titleColor": ink}
    return spec | {
        "config": config | {"background": "transparent", "axis": axis, "legend": config["legend"] | {"labelColor": ink}}
    }


def _lone(chart: Any) -> Any:
    """Of lines of a single value, which no line can show, the point. A layer without marks must not be announced."""
    points = chart.transform_joinaggregate(n="count()", groupby=["series"]).transform_filter("datum.n == 1")
    return points.mark_point(filled=True, size=40, opacity=1, aria=False)


def _series(shown: bool = True) -> tuple[alt.Color, alt.StrokeDash]:
    legend = (
        alt.Legend(
            orient="top",
            title=None,
            labelLimit=150,
            columns=2,
            symbolType="stroke",
            symbolStrokeWidth=2.5,
            symbolOpacity=1,
        )
        if shown
        else None
    )
    return (
        alt.Color("series:N", scale=alt.Scale(range=list(PALETTE)), legend=legend, sort=None),
        alt.StrokeDash("series:N", scale=alt.Scale(range=[list(dash) for dash in _DASHES]), legend=legend, sort=None),
    )


@cache
def wall_lines(title: str, unit: str, legend: bool = True) -> Spec:
    """Series over wall time; columns t (ms since the epoch), value, series."""
    color, dash = _series(legend)
    base = alt.Chart(alt.NamedData("live"))
    scale = alt.Scale(nice=True, domain=alt.DomainUnionWith(unionWith=[0, 1]))  # a line of zeros stands at the bottom
    y = alt.Y("value:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=4, format=",.3~r"))
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("value:Q", format=",.4~g", title=unit),
        alt.Tooltip("t:T", format="%H:%M:%S", title="at"),
    ]
    x = _time("wall time", utc=False)
    lines = base.mark_line(interpolate="monotone", strokeWidth=2, clip=True).encode(
        x=x, y=y, color=color, strokeDash=dash, tooltip=tooltip
    )
    return _described(
        lines + _lone(base).encode(x=x, y=y, color=color, tooltip=tooltip), f"{title} over wall time, in {unit}"
    )


@cache
def event_lines(title: str, unit: str) -> Spec:
    """Series over event time, alerts as points and injected drift as upright lines; columns t, value, series, kind."""
    color, dash = _series()
    base = alt.Chart(alt.NamedData("live"))
    told = base.transform_filter(alt.datum.kind == "value")
    x = _time("event time (UTC)", utc=True)
    y = alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    tooltip = [
        alt.Tooltip("series:N"),
        alt.Tooltip("value:Q", format=",.4~g", title=unit),
        alt.Tooltip("utcyearmonthdate(t):T", title="day"),
    ]
    lines = told.mark_line(interpolate="step-after", strokeWidth=2).encode(
        x=x, y=y, color=color, strokeDash=dash, tooltip=tooltip
    )
    points = _lone(told).encode(x=x, y=y, color=color, tooltip=tooltip)
    injected = (
        base.transform_filter(alt.datum.kind == "injected")
        .mark_rule(color=PALETTE[4], strokeDash=[3, 3], strokeWidth=2, aria=False)
        .encode(x="t:T", tooltip=[alt.Tooltip("series:N", title="injected")])
    )
    alerts = (
        base.transform_filter(alt.datum.kind == "alert")
        .mark_point(shape="triangle-up", filled=True, size=90, color=PALETTE[1], yOffset=-6, aria=False)
        .encode(x="t:T", y=alt.value("height"), tooltip=[alt.Tooltip("series:N", title="alert")])
    )
    return _described(lines + points + injected + alerts, f"{title} over event time, in {unit}")


@cache
def interval_band(title: str, unit: str) -> Spec:
    """Values with their intervals over event time; columns t, value, low, high, series."""
    color, dash = _series()
    base = alt.Chart(alt.NamedData("live"))
    x = _time("event time (UTC)", utc=True)
    y_scale = alt.Scale(zero=True)
    band = base.mark_area(opacity=0.18).encode(
        x=x,
        y=alt.Y("low:Q", title=unit, scale=y_scale),
        y2="high:Q",
        color=color,
    )
    line = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=30)).encode(
        x=x,
        y=alt.Y("value:Q", title=unit, scale=y_scale, axis=alt.Axis(tickCount=4)),
        color=color,
        strokeDash=dash,
        tooltip=[
            alt.Tooltip("series:N"),
            alt.Tooltip("value:Q", format=".2f", title=unit),
            alt.Tooltip("low:Q", format=".2f"),
            alt.Tooltip("high:Q", format=".2f"),
            alt.Tooltip("n:Q", format=","),
            alt.Tooltip("utcyearmonthdate(t):T", title="from"),
        ],
    )
    return _described(band + line, f"{title} over event time with intervals, in {unit}")


@cache
def intervals(title: str, unit: str, legend: bool = False) -> Spec:
    """A point and its interval for each name; columns name, value, low, high, series. legend: of the series."""
    color, _ = _series(legend)
    base = alt.Chart(alt.NamedData("live")).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=320))
    )
    span = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("low:Q", title=unit, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        x2="high:Q",
        color=color,
    )
    point = base.mark_point(filled=True, size=90, opacity=1).encode(
        x="value:Q",
        color=color,
        tooltip=[
            alt.Tooltip("name:N"),
            alt.Tooltip("value:Q", format=".4~g", title=unit),
            alt.Tooltip("low:Q", format=".4~g"),
            alt.Tooltip("high:Q", format=".4~g"),
        ],
    )
    return _described(span + point, f"{title} with intervals, in {unit}")


@cache
def bars(title: str, unit: str) -> Spec:
    """A bar for each name, negative ones to the left; columns name, value."""
    chart = (
        alt.Chart(alt.NamedData("live"))
        .mark_bar(cornerRadiusEnd=3, height={"band": 0.7})
        .encode(
            y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=240)),
            x=alt.X("value:Q", title=unit, axis=alt.Axis(tickCount=5)),
            color=alt.condition(alt.datum.value >= 0, alt.value(PALETTE[0]), alt.value(PALETTE[1])),
            tooltip=[alt.Tooltip("name:N"), alt.Tooltip("value:Q", format=".4~g", title=unit)],
        )
    )
    return _described(chart, f"{title}, in {unit}")


@cache
def learning_curves(title: str, unit: str) -> Spec:
    """Series over epochs; columns epoch, value, series."""
    color, dash = _series()
    chart = (
        alt.Chart(alt.NamedData("live"))
        .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=24))
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)),
            color=color,
            strokeDash=dash,
            tooltip=[
                alt.Tooltip("series:N"),
                alt.Tooltip("epoch:Q"),
                alt.Tooltip("value:Q", format=".5~g", title=unit),
            ],
        )
    )
    return _described(chart, f"{title} by epoch, in {unit}")


def thinned(t: Floats, value: Floats, n: int = _POINTS) -> tuple[Floats, Floats]:
    """The least and the most of a series in each stretch of time, so that spikes stay, and the last: at most ``n + 1``.

    Stretches stand where they are while a series grows and its first points go: what is shown stays shown. ``t`` rises.

    >>> t, value = thinned(np.arange(10.0), np.array([0.0, 1, 9, 1, 0, 0, 1, 0, 0, 0]), n=6)
    >>> t.tolist(), value.tolist()
    ([0.0, 2.0, 8.0, 9.0], [0.0, 9.0, 0.0, 0.0])
    """
    if len(t) <= n or t[-1] <= t[0]:
        return t, value
    # Of a power of two, so that the stretches of a window that gets a bit longer are the same; one is cut at each end.
    length_s = 2.0 ** np.ceil(np.log2((t[-1] - t[0]) / (n // 2 - 1)))
    stretch = np.floor(t / length_s)
    order = np.lexsort((t, value, stretch))
    first = np.flatnonzero(np.diff(stretch[order], prepend=np.nan))
    last = np.append(first[1:], len(order)) - 1
    kept = np.unique(np.concatenate([order[first], order[last], [len(t) - 1]]))
    return t[kept], value[kept]


def series_table(
    shown: Iterable[tuple[str, Series]], *, time: Literal["wall", "event"] = "wall", scale: float = 1.0
) -> pa.Table:
    """What :func:`wall_lines` and :func:`event_lines` draw, of named series; values times ``scale``."""
    times, values, names = [], [], []
    for name, series in shown:
        t, value = thinned(series.at if time == "wall" else series.event_time, series.value)
        times.append(t * 1_000)
        values.append(value * scale)
        names += [name] * len(t)
    return pa.table(
        {
            "t": np.concatenate(times) if times else np.zeros(0),
            "value": np.concatenate(values) if values else np.zeros(0),
            "series": pa.array(names, pa.string()),
            "kind": pa.array(["value"] * len(names), pa.string()),
        }
    )


def rows_table(rows: Sequence[Row], columns: Sequence[str]) -> pa.Table:
    """A table of ``rows`` under ``columns``; a value that a row lacks is null."""
    return pa.table({name: [row.get(name) for row in rows] for name in columns})

"""Production monitoring: how the run stands this second, and what can be done about it."""

from __future__ import annotations

import streamlit as st

from dashboards import charts
from dashboards.dead_letters_panel import dead_letters_panel
from dashboards.live import Live, shown_live
from dashboards.monitor_panels import alerts_panel, measures_panel
from dashboards.panels import STALE_S, chart, day, empty, note, number, panel, table, tiles
from dashboards.process_panel import process_panel
from dashboards.production_figures import lag_rows, of_all_workers, overview, passed_over, trending
from dashboards.replay_panel import replay_panel
from dashboards.rings import Series
from dashboards.store_probe import TREND_DAYS

__all__ = ["production_page"]

_SHOWN_S = 300.0
"""Of wall time, in the charts."""
_Wanted = list[tuple[str, dict[str, str], str]]
"""Metrics with their labels, and what they are called in the chart."""
_THROUGHPUT: _Wanted = [
    ("replay.rate", {}, "replayer"),
    ("features.throughput", {}, "features"),
    ("loop.throughput", {}, "loop"),
]
_LATENCY: dict[str, _Wanted] = {
    agent: [(f"{agent}.latency_ms", {"quantile": quantile}, quantile) for quantile in ("p50", "p99")]
    for agent in ("features", "loop")
}
"""In charts of their own: slates wait for event days to close, a thousand times as long."""
_FULL_BAR = 100
"""Records: less lag than that never fills a bar."""


def production_page() -> None:
    _figures()
    replay_panel()
    _charts()
    _dead_letters()
    _monitors()


@st.fragment(run_every=0.5)
def _figures() -> None:
    live = shown_live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    point = records.latest("features.throughput")
    with panel("overview", "Now", None if point is None else point.at, now, heard=live.bus_heard):
        tiles(overview(records, live.store, live.subscriber.ends), old=point is not None and now - point.at > STALE_S)
        if garbage := passed_over(records):
            note(garbage)


@st.fragment(run_every=2)  # of a chart one sees no more each second, and drawing is what costs a browser most
def _charts() -> None:
    live = shown_live()
    if live is None:
        return
    left, right = st.columns(2, gap="small")
    with left:
        _line_panel(live, "throughput", "Throughput", "events/s", _THROUGHPUT)
        _line_panel(live, "slate_latency", "Latency of slates, rating to slate", "ms", _LATENCY["loop"])
        _lag_panel(live)
        process_panel(live)
    with right:
        _line_panel(live, "latency", "Latency of features, published to stored", "ms", _LATENCY["features"])
        _line_panel(live, "freshness", "Freshness", "s", [("features.freshness_s", {}, "features")])
        _trend_panel(live)


def _line_panel(live: Live, name: str, title: str, unit: str, wanted: _Wanted) -> None:
    now = live.now()
    shown: list[tuple[str, Series]] = []
    at: float | None = None
    for metric, labels, label in wanted:
        series = of_all_workers(metric, live.subscriber.records.of_workers(metric, **labels))
        if series is None or series.last is None:
            continue
        at = max(at or 0.0, series.last.at)
        recent = series.since(series.last.at - _SHOWN_S)
        if series.last.at > now - _SHOWN_S or len(shown) == 0:
            shown.append((label, recent))
    with panel(name, title, at, now, heard=live.bus_heard):
        if not shown:
            empty("Nothing measured yet", "The features agent tells this twice a second.", "streamlens worker")
            return
        chart(
            charts.series_table(shown), charts.wall_lines(title, unit, len(shown) > 1), height=200, key=f"chart_{name}"
        )


def _lag_panel(live: Live) -> None:
    store, subscriber, now = live.store, live.subscriber, live.now()
    heard = live.store_heard if store.state == "away" else live.bus_heard
    looks = [at for at in (subscriber.ends_at, store.at) if at]  # of bus and store; one alone is shown, too
    with panel("lag", "Lag by partition", min(looks, default=None), now, heard=heard):
        rows = lag_rows(subscriber.ends, store)
        if not rows:
            empty("No ratings on the bus yet", "The replay makes the topic.", "streamlens replay")
            return
        if store.state != "there":
            note(f"store: {store.problem or 'looking'}")
        most = max(_FULL_BAR, *(row.lag or 0 for row in rows))
        table(
            ["partition", "published", "applied", "lag", f"lag, 0 to {number(most)}", "event time"],
            [
                [
                    str(row.partition),
                    number(max(row.end, row.applied or 0)),
                    number(row.applied),
                    number(row.lag),
                    f'<div class="sl-meter"><i style="width:{100 * (row.lag or 0) / most:.0f}%"></i></div>',
                    day(row.clock),
                ]
                for row in rows
            ],
            numbers=(1, 2, 3),
            label="Lag by partition, in records",
        )


def _trend_panel(live: Live) -> None:
    store, now = live.store, live.now()
    heard = live.store_heard if store.state != "missing" else None
    with panel("trending", f"Trending movies, last {TREND_DAYS} event days", store.at or None, now, heard=heard):
        rows = trending(store)
        if not rows and store.state == "away":
            empty("The store cannot be read for now", store.problem)
            return
        if not rows:
            empty("Nothing rated yet", "The list comes from the feature store.", "streamlens worker")
            return
        table(
            ["place", "movie", "ratings", "before", "moved"],
            [[str(row.place), row.title, number(row.n), number(row.before), row.moved] for row in rows],
            numbers=(2, 3, 4),
            label="Trending movies",
        )


@st.fragment(run_every=2)
def _dead_letters() -> None:
    live = shown_live()
    if live is not None:
        dead_letters_panel(live)


@st.fragment(run_every=2)
def _monitors() -> None:
    live = shown_live()
    if live is not None:
        alerts_panel(live)
        measures_panel(live)

"""Production monitoring: how the run stands this second, and what can be done about it."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboards import charts
from dashboards.live import Live, NoRun, current_live
from dashboards.panels import (
    STALE_S,
    age_text,
    day,
    empty,
    note,
    number,
    panel,
    pill,
    table,
    tiles,
)
from dashboards.production_figures import (
    Measure,
    ProcessRow,
    alert_marks,
    alert_rows,
    drift_marks,
    lag_rows,
    measures,
    overview,
    process_rows,
    trending,
)
from dashboards.publishing import ask_replayer, replay_letter
from dashboards.rings import Series
from dashboards.store_probe import TREND_DAYS
from streams.drift import InjectedDrift
from streams.errors import StreamLensError
from streams.events import ALERTS, DEADLETTER, DeadLetter

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
_LATENCY: _Wanted = [
    (f"{agent}.latency_ms", {"quantile": quantile}, f"{name} {quantile}")
    for agent, name in (("features", "features"), ("loop", "slates"))
    for quantile in ("p50", "p99")
]
_FULL_BAR = 100
"""Records: less lag than that never fills a bar."""
_GONE_S = 900.0
"""A process that has not been heard of for so long was ended, and is not missed."""


def production_page() -> None:
    _figures()
    _replay_control()
    _charts()
    _dead_letters()
    _monitors()


def _live() -> Live | None:
    live = current_live()
    return None if isinstance(live, NoRun) else live


@st.fragment(run_every=0.5)
def _figures() -> None:
    live = _live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    point = records.latest("features.throughput")
    with panel("overview", "Now", None if point is None else point.at, now):
        tiles(overview(records, live.store), old=point is not None and now - point.at > STALE_S)


@st.fragment
def _replay_control() -> None:
    live = _live()
    if live is None:
        return
    with (
        st.container(border=True, key="panel_control"),
        st.container(horizontal=True, vertical_alignment="bottom", key="control_row"),
    ):
        if st.button("Pause replay", icon=":material/pause:", key="pause"):
            _ask(live, "pause")
        if st.button("Resume", icon=":material/play_arrow:", key="resume"):
            _ask(live, "resume")
        speed = st.number_input(
            "Speed (unit of the run: times real time, or events/s)", 1.0, value=None, placeholder="for example 86400",
            key="speed", width=330,
        )  # fmt: skip
        if st.button("Set speed", icon=":material/speed:", key="set_speed", disabled=speed is None):
            _ask(live, "speed", speed)


def _ask(live: Live, action: str, speed: float | None = None) -> None:
    try:
        ask_replayer(live, action, speed)
    except StreamLensError as error:
        st.error(str(error))
    else:
        st.toast(f"Asked the replayer: {action}{f' {speed:g}' if speed else ''}", icon=":material/send:")


@st.fragment(run_every=2)  # of a chart one sees no more each second, and drawing is what costs a browser most
def _charts() -> None:
    live = _live()
    if live is None:
        return
    left, right = st.columns(2, gap="small")
    with left:
        _line_panel(live, "throughput", "Throughput", "events/s", _THROUGHPUT)
        _lag_panel(live)
        _process_panel(live)
    with right:
        _line_panel(live, "latency", "Latency, published to stored", "ms", _LATENCY)
        _line_panel(live, "freshness", "Freshness", "s", [("features.freshness_s", {}, "features")])
        _trend_panel(live)


def _line_panel(live: Live, name: str, title: str, unit: str, wanted: _Wanted) -> None:
    now = live.now()
    shown: list[tuple[str, Series]] = []
    at: float | None = None
    for metric, labels, label in wanted:
        series = live.subscriber.records.series(metric, **labels)
        if series is None or series.last is None:
            continue
        at = max(at or 0.0, series.last.at)
        recent = series.since(series.last.at - _SHOWN_S)
        if series.last.at > now - _SHOWN_S or len(shown) == 0:
            shown.append((label, recent))
    with panel(name, title, at, now):
        if not shown:
            empty("Nothing measured yet", "The features agent tells this twice a second.", "streamlens worker")
            return
        st.vega_lite_chart(
            charts.series_table(shown), charts.wall_lines(title, unit, len(shown) > 1), height=200, key=f"chart_{name}"
        )


def _lag_panel(live: Live) -> None:
    store, subscriber, now = live.store, live.subscriber, live.now()
    at = min(subscriber.ends_at, store.at) or None
    with panel("lag", "Lag by partition", at, now):
        rows = lag_rows(subscriber.ends, store)
        if not rows:
            empty("No ratings on the bus yet", "The replay makes the topic.", "streamlens replay")
            return
        if store.state != "there":
            note(f"store: {store.problem or 'looking'}")
        most = max(_FULL_BAR, *(row.lag or 0 for row in rows))
        table(
            ["partition", "published", "applied", "lag", "of 100 or more", "event time"],
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


def _process_panel(live: Live) -> None:
    records, now = live.subscriber.records, live.now()
    rows = [row for row in process_rows(records, now) if now - row.at < _GONE_S]
    with panel("processes", "Processes", max((row.at for row in rows), default=None), now):
        if not rows:
            empty("No heartbeats yet", "Each process tells once a second what it costs.")
            return
        table(
            ["role", "state", "up, 10 min", "CPU, cores", "RSS, MiB", "written, MiB"],
            [
                [
                    row.role,
                    _state(row, live.store.ended, now),
                    f"{row.available:.1%}",
                    number(row.cpu, 2),
                    number(row.rss_mib),
                    number(row.written_mib, 1),
                ]
                for row in rows
            ],
            numbers=(2, 3, 4, 5),
            label="Processes",
        )
        files = live.store.files
        if files:
            note("on disk: " + ", ".join(f"{name} {size:,.1f} MiB" for name, size in files.items()))


def _state(row: ProcessRow, ended: bool, now: float) -> str:
    if now - row.at < STALE_S:
        return pill("up", "good")
    if ended:
        return pill("done", "idle")
    return pill(f"silent, {age_text(now - row.at)}", "warn")


def _trend_panel(live: Live) -> None:
    store, now = live.store, live.now()
    with panel("trending", f"Trending movies, last {TREND_DAYS} event days", store.at or None, now):
        rows = trending(store)
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
    live = _live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    letters = [placed.record for placed in records.recent(DEADLETTER)][::-1]
    with panel(
        "deadletters",
        "Dead letters",
        records.published(DEADLETTER),
        now,
        stale_after_s=None,
        heard=live.subscriber.heard_at,
    ):
        if not letters:
            empty("None", "What cannot be processed comes here with its reason; nothing is lost silently.")
            return
        kinds: dict[str, int] = {}
        for letter in letters:
            kind = letter.reason.partition(":")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
        note("the last " + number(len(letters)) + " by reason: " + ", ".join(f"{k} {n:,}" for k, n in kinds.items()))
        by_origin = {f"{one.topic}/{one.partition}/{one.offset}": one for one in letters[:100]}
        chosen = st.selectbox(
            "Look into one",
            list(by_origin),
            index=None,
            placeholder="topic/partition/offset",
            format_func=partial(_letter_label, by_origin),
            key="letter",
        )
        if chosen in by_origin:
            _letter(live, by_origin[chosen])


def _letter_label(by_origin: dict[str, DeadLetter], origin: str) -> str:
    return f"{origin}  {by_origin[origin].reason}" if origin in by_origin else origin


def _letter(live: Live, letter: DeadLetter) -> None:
    table(
        ["dead letter", "what it says"],
        [
            ["reason", letter.reason],
            ["stood at", f"{letter.topic}, partition {letter.partition}, offset {letter.offset}"],
            ["size", "whole" if letter.size is None else f"first part of {letter.size:,} bytes"],
        ],
        label="Dead letter",
    )
    st.code(letter.payload[:4_000], language="json", wrap_lines=True)
    note(
        "Replayed as it is, it counts once, however often. "
        "To mend it first: streamlens deadletter replay --set FIELD=VALUE"
    )
    force = st.checkbox("Publish even where its readers would refuse it again", key="force_letter")
    if st.button("Replay this record", icon=":material/replay:", key="replay_letter"):
        try:
            done = replay_letter(live, letter, force=force)
        except StreamLensError as error:
            st.error(str(error))
            return
        for one in done:
            (st.success if one.outcome == "published" else st.warning)(
                f"{one.placed.origin}: {one.outcome}{f' ({one.problem})' if one.problem else ''}"
            )


@st.fragment(run_every=2)
def _monitors() -> None:
    live = _live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    with panel("alerts", "Alerts", records.published(ALERTS), now, stale_after_s=None, heard=live.subscriber.heard_at):
        rows = alert_rows(records, now)
        if rows:
            for row in rows:
                row[2] = pill(row[2], {"critical": "bad", "schedule": "warn"}.get(row[2], "idle"))
            table(["event day", "of", "severity", "kind", "measured", "came"], rows, label="Alerts")
        else:
            empty("None", "Rules and detectors tell here when they begin to fire.")
    found = measures(records)
    if not found:
        with panel("monitors", "Measures and drift detectors", None, now):
            drifts = live.target.drift
            empty(
                "Nothing judged yet",
                "The monitors tell a figure per closed event day.",
                "streamlens worker --role monitors",
            )
            if drifts:
                note(
                    "injected into this run: "
                    + ", ".join(f"{d.kind} ({d.strength}) from {day(d.begins)}" for d in drifts)
                )
        return
    closed = records.latest("monitors.closed")
    with panel("monitors", "Measures and drift detectors, by event day", closed.at if closed else None, now):
        note(
            "Thresholds are those that the monitors go by. Triangles: alerts. "
            + (
                "Upright purple lines: drift that was injected, the truth."
                if live.target.drift
                else "No drift was injected."
            )
        )
        for i in range(0, len(found), 3):
            for column, measure in zip(st.columns(3, gap="small"), found[i : i + 3], strict=False):
                with column:
                    _measure(live, measure, live.target.drift)


_UNITS = {
    "ctr": "clicks by movies shown",
    "rmse": "stars",
    "precision": "P@10",
    "ndcg": "NDCG@10",
    "volume": "ratings a day",
    "ratings_per_session": "ratings",
    "revenue_per_user": "dollars (assumed)",
    "popularity_kl": "nats",
    "rating_kl": "nats",
    "new_user_share": "share",
    "new_item_share": "share",
}


def _measure(live: Live, measure: Measure, drifts: tuple[InjectedDrift, ...]) -> None:
    unit = _UNITS.get(measure.name, "as the detector sees it")
    name = measure.name.replace("_", " ")
    st.html(
        f'<div class="sl-head"><h3>{name}</h3><span class="sl-age">{day(measure.values.event_time[-1])}</span></div>'
    )
    shown = [("value", measure.values), *measure.others]
    rows = charts.series_table(shown, time="event").to_pylist()
    rows += drift_marks(drifts) + alert_marks(live.subscriber.records.recent(ALERTS), measure.name)
    st.vega_lite_chart(
        charts.rows_table(rows, ("t", "value", "series", "kind")),
        charts.event_lines(name, unit),
        height=200,
        key=f"measure_{measure.name}",
    )

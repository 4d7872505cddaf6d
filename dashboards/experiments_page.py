"""Experiments: the variants side by side over event time, with how sure one may be."""

from __future__ import annotations

import streamlit as st

from dashboards import charts
from dashboards.experiment_figures import Variant, control_of, difference, over_time, variants_of
from dashboards.live import shown_live
from dashboards.live_records import LiveRecords
from dashboards.monitored_figures import drift_marks
from dashboards.panels import Tile, chart, day, empty, note, number, panel, pill, table, tiles
from streams.events import FEEDBACK

__all__ = ["experiments_page"]

_CAVEAT = (
    "**Nobody saw these lists.** The ratings are replayed from the past: a *click* is a movie of the list that the "
    "user then rated anyway. So this tells which variant foresees more of what people chose, not whom a list would "
    "win over; session length can differ by chance only."
)
_SIMULATED = (
    "**Made-up users.** The clicks here are those of a synthetic world, by a taste that the program gave it. "
    "They show that the loop works; they say nothing about people."
)
_COLUMNS = (
    "variant",
    "slates",
    "users",
    "clicks",
    "CTR, %",
    "95 % interval",
    "difference, points",
    "verdict",
    "ratings a session",
)


def experiments_page() -> None:
    st.info(_CAVEAT, icon=":material/info:")
    _variants()


@st.cache_data(show_spinner=False, max_entries=4, ttl=600)
def _summed(generation: int, n_feedback: int, _records: LiveRecords) -> tuple[list[Variant], list[charts.Row]]:
    """Once for each look at which anything has come, whoever looks."""
    feedback, names = _records.feedback()
    return variants_of(feedback, names), over_time(feedback, names)


@st.fragment(run_every=2)
def _variants() -> None:
    live = shown_live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    at = records.published(FEEDBACK)
    if not records.n_feedback:
        with panel("variants", "Variants", None, now, heard=live.bus_heard):
            empty(
                "No feedback yet",
                "The loop serves variants and tells what was clicked.",
                "streamlens worker --role loop",
            )
        return
    variants, rows = _summed(records.generation, records.n_feedback, records)
    control = control_of(variants)
    assert control is not None
    if any(one.simulated for one in variants):
        st.warning(_SIMULATED, icon=":material/smart_toy:")
    with panel("variants", "Variants, since feedback is kept here", at, now, stale_after_s=30.0, heard=live.bus_heard):
        tiles([_tile(one) for one in variants])
        table(_COLUMNS, [_row(one, control) for one in variants], numbers=(1, 2, 3, 4), label="Variants")
        note(
            f"Of the last {sum(one.n_slates for one in variants):,} slates, differences from {control.name}. "
            "Intervals are bootstrapped over users, since what one user clicks hangs together. They hold for one "
            "look: who looks every minute until one excludes zero will find one."
        )
    with panel("ctr_time", "Click rate over event time", at, now, stale_after_s=30.0, heard=live.bus_heard):
        if rows:
            chart(
                charts.rows_table(rows, ("t", "value", "low", "high", "n", "series")),
                charts.interval_band("Click rate", "CTR, %"),
                height=260,
                key="ctr_over_time",
            )
            note(
                "Stretches hold about as many slates each. Bands: Wilson, 95 %, as if movies were shown independently."
            )
        else:
            empty("Too little was shown yet", "A stretch of time is drawn once a variant has shown 200 movies in it.")
        if live.target.drift:
            marks = ", ".join(f"{mark['series']}" for mark in drift_marks(live.target.drift))
            note(f"Injected into this run: {marks}, from {day(min(d.begins for d in live.target.drift))} on.")
    with panel("ctr_intervals", "Click rate of all kept feedback", at, now, stale_after_s=30.0, heard=live.bus_heard):
        shown = [
            {
                "name": one.name,
                "value": 100 * one.ctr.value,
                "low": 100 * one.ctr.low,
                "high": 100 * one.ctr.high,
                "series": one.name,
            }
            for one in variants
        ]
        chart(
            charts.rows_table(shown, ("name", "value", "low", "high", "series")),
            charts.intervals("Click rate", "CTR, %"),
            height=110 + 26 * len(shown),
            key="ctr_intervals",
        )


def _tile(one: Variant) -> Tile:
    shown = f"{one.shown:,} shown to {one.n_users:,} users"
    return Tile(f"ctr_{one.name}", one.name, f"{100 * one.ctr.value:.2f}", "% CTR", shown)


def _row(one: Variant, control: Variant) -> list[str]:
    apart = difference(one.ctr, control.ctr)
    if one is control:
        against, verdict = "-", pill("control", "idle")
    else:
        against = f"{100 * apart.value:+.2f} ({100 * apart.low:+.2f} to {100 * apart.high:+.2f})"
        better, worse = apart.low > 0, apart.high < 0
        verdict = pill("more", "good") if better else pill("fewer", "bad") if worse else pill("not told apart", "idle")
    return [
        one.name,
        number(one.n_slates),
        number(one.n_users),
        number(one.clicks),
        f"{100 * one.ctr.value:.2f}",
        f"{100 * one.ctr.low:.2f} to {100 * one.ctr.high:.2f}",
        against,
        verdict,
        f"{one.ratings.value:.1f} ({one.ratings.low:.1f} to {one.ratings.high:.1f})",
    ]

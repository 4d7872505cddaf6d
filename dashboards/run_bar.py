"""The line on top of every page: which run, where it is in event time, and whether all is well."""

from __future__ import annotations

import html

import streamlit as st

from dashboards.live import Live, NoRun, current_live
from dashboards.panels import STALE_S, age_text, day, number, pill

__all__ = ["run_bar", "standing"]

_SHOWN = "shown_run"


@st.fragment(run_every=1)
def run_bar() -> None:
    live = current_live()
    shown = "" if isinstance(live, NoRun) else f"{live.target.run_id} {live.target.bus_url}"
    before = st.session_state.setdefault(_SHOWN, shown)
    if before != shown:  # another run was started: the whole page is about it now
        st.session_state[_SHOWN] = shown
        st.rerun()
    if isinstance(live, NoRun):
        st.html(f'<div class="sl-bar">{pill("no run", "idle")}<span class="sl-dim">waiting for one</span></div>')
        return
    text, kind, why = standing(live)
    target = live.target
    parts = [
        pill(text, kind),
        f"<span>run <b>{html.escape(target.run_id) or '-'}</b></span>",
        f"<span>{html.escape(target.data) or 'unknown data'}</span>",
        f'<span>event time <b data-figure="event_time">{day(live.event_time)}</b></span>',
    ]
    if why:
        parts.append(f'<span class="sl-dim">{html.escape(why)}</span>')
    st.html(f'<div class="sl-bar" data-standing="{kind}">{"".join(parts)}</div>')


def standing(live: Live) -> tuple[str, str, str]:
    """In a word how the run stands, the kind of pill, and why."""
    connection, store, now = live.subscriber.connection, live.store, live.now()
    if not connection.connected and live.bus_heard.connecting(now):
        return "connecting", "idle", ""
    if not connection.connected:
        return "bus away", "bad", f"for {age_text(now - connection.since).removesuffix(' ago')}: {connection.problem}"
    if live.bus_heard.silent(now):
        return "bus silent", "bad", f"it answered last {age_text(now - live.subscriber.heard_at)}"
    if store.state == "away":
        return "store away", "bad", store.problem
    if store.state == "missing":
        return "no features yet", "idle", "the worker has not begun: streamlens worker"
    if store.ended:
        return "run complete", "good", f"{number(sum(row.ratings for row in store.applied))} ratings applied"
    told = live.subscriber.records.latest("features.throughput")
    if told is None or now - told.at > STALE_S:
        last = "" if told is None else f", last heard of {age_text(now - told.at)}"
        return "worker silent", "warn", f"no metrics of the features agent{last}"
    paused = live.subscriber.records.latest("replay.paused")
    if paused is not None and paused.value and now - paused.at < STALE_S:
        return "replay paused", "idle", ""
    return "live", "good", ""

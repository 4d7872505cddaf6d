"""Panel of the production page about the replay: how it stands, and what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from dashboards.live import Live, shown_live
from dashboards.live_records import LiveRecords
from dashboards.panels import STALE_S, age_text, number, pill
from dashboards.publishing import ask_replayer
from dashboards.registry_figures import heard_of
from streams.errors import StreamLensError

__all__ = ["ReplayState", "replay_panel", "replay_state"]


@dataclass(frozen=True, slots=True)
class ReplayState:
    """How the replay stands, in words, and the kind of pill. answers: there is a replayer to take a request."""

    text: str
    kind: str
    answers: bool


def replay_state(records: LiveRecords, now: float) -> ReplayState:
    """As the replayer's heartbeats and its own figures have it."""
    heard = heard_of(records, "replayer")
    published, total, rate, paused = (
        records.latest(f"replay.{name}") for name in ("published", "total", "rate", "paused")
    )
    if published is not None and total is not None and published.value >= total.value:
        return ReplayState("replay complete", "idle", answers=False)
    if heard is None:
        return ReplayState("no replayer heard", "warn", answers=False)
    if now - heard > STALE_S:
        return ReplayState(f"replayer silent, {age_text(now - heard)}", "warn", answers=False)
    if paused is not None and paused.value:
        return ReplayState("paused", "idle", answers=True)
    speed = "" if rate is None else f", {number(rate.value)} events/s"
    return ReplayState(f"running{speed}", "good", answers=True)


@st.fragment(run_every=2)
def replay_panel() -> None:
    live = shown_live()
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
        state = replay_state(live.subscriber.records, live.now())
        st.html(f'<div class="sl-replay">{pill(state.text, state.kind)}</div>', width="content")


def _ask(live: Live, action: str, speed: float | None = None) -> None:
    try:
        ask_replayer(live, action, speed)
    except StreamLensError as error:
        st.error(str(error))
        return
    state = replay_state(live.subscriber.records, live.now())
    if state.answers:
        st.toast(f"Asked the replayer: {action}{f' {speed:g}' if speed else ''}", icon=":material/send:")
    else:
        st.toast(f"Published, but nobody is there to take it: {state.text}", icon=":material/warning:")

"""Having a model trained anew from the ML engineering page: the form, and what came of each request."""

from __future__ import annotations

import getpass
import html

import streamlit as st

from dashboards.live import Live, shown_live
from dashboards.panels import STALE_S, age_text, day, empty, note, panel, pill, table, title
from dashboards.publishing import SHORTEST_JUSTIFICATION, request_retrain
from dashboards.registry_figures import Asked, asked, heard_of
from dashboards.registry_view import serving_version
from models.decisions import AuditEntry
from models.kinds import MODELS as KINDS
from models.registry import Registry
from streams.errors import ConfigError, StreamLensError
from streams.events import MODELS, RETRAIN

__all__ = ["requests_panel", "retrain_form"]

_OUTCOME = {"promoted": "good", "rejected": "warn", "failed": "bad", "rolled back": "bad"}
_SHOWN = 6
_AS_CHAMPION = "of the champion's kind"


def retrain_form() -> None:
    live = shown_live()
    if live is None:
        return
    with st.container(border=True, key="panel_retrain"):
        title("Retrain by hand")
        note(
            "Publishes a real event on the topic retrain. The trainer trains a challenger, and promotes it only "
            "where it is better."
        )
        with st.form("retrain", border=False):
            model = st.selectbox("Model", [_AS_CHAMPION, *sorted(KINDS)], key="retrain_model")
            severity = st.segmented_control(
                "Severity", ["schedule", "critical"], default="schedule", key="retrain_severity"
            )
            why = st.text_area(
                "Justification (required; kept with the decision)", key="retrain_why", max_chars=500,
                placeholder="What did you see that the rules did not?",
            )  # fmt: skip
            sent = st.form_submit_button("Ask for retraining", icon=":material/model_training:")
        if sent:
            try:
                kind = _champions_kind(live) if model == _AS_CHAMPION else model
                event = request_retrain(live, kind, why, asked_by=_who(), severity=severity or "schedule")
            except StreamLensError as error:
                st.error(str(error))
            else:
                st.success(f"Published: {event.id}")
        note(f"At least {SHORTEST_JUSTIFICATION} letters of reason.")


def _champions_kind(live: Live) -> str:
    """Of the version that serves now: the page may have been open since before there was one. Raises ConfigError."""
    champion = serving_version(Registry(live.target.models), live.event_time)
    if champion is None:
        raise ConfigError("model: expected a champion to train anew, found none yet; choose a kind")
    return champion.manifest.kind


def _who() -> str:
    try:
        return f"pages/{getpass.getuser()}"
    except (KeyError, OSError):
        return "pages"


@st.fragment(run_every=1)
def requests_panel() -> None:
    live = shown_live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    told = [at for at in map(records.published, (RETRAIN, MODELS)) if at is not None]
    with panel(
        "requests", "Requests, and what came of them", max(told, default=None), now,
        stale_after_s=None, heard=live.bus_heard,
    ):  # fmt: skip
        found = asked(records)
        if not found:
            empty("Nobody has asked yet", "Requests of monitors, people and programs come here.")
            return
        at = heard_of(records, "trainer")
        if found[0].outcome is None and (at is None or now - at > STALE_S):
            last = "" if at is None else f" (last heard of {age_text(now - at)})"
            st.warning(f"No trainer is at work{last}: requests stay open. Start `streamlens worker --role trainer`.")
        trail = _trail(live)
        for one in found[:_SHOWN]:
            _request(one, one.undone(trail), now)


def _trail(live: Live) -> list[AuditEntry]:
    """Decisions alone: each second is too often to read all versions."""
    try:
        return Registry(live.target.models).audit()
    except StreamLensError as error:
        st.warning(str(error))
        return []


def _request(one: Asked, undone: AuditEntry | None, now: float) -> None:
    data = one.event.data
    became = "rolled back" if undone else one.outcome.kind if one.outcome else "open"
    steps = [["asked", f"{data.asked_by}: {data.justification or data.reason}", age_text(now - one.published)]]
    for placed in one.answers:
        answer = placed.record
        what = f"{answer.version or answer.model}: {answer.reason}"
        if answer.kind == "promoted":
            what += f"; serves from {day(answer.event_time)}"
        steps.append([answer.kind, what, age_text(now - placed.published)])
    if undone:
        since = "" if undone.effective is None else f"; holds from {day(undone.effective)}"
        steps.append([undone.action, f"to {undone.version_id}: {undone.why}{since}", undone.at[:19].replace("T", " ")])
    st.html(
        f'<div class="sl-bar" data-request="{html.escape(one.event.id, quote=True)}" data-outcome="{became}">'
        f"{pill(became, _OUTCOME.get(became, 'idle'))}"
        f"<b>{html.escape(one.event.subject)}</b><span>{data.severity}</span>"
        f'<span class="sl-dim">event time {one.event.time:%Y-%m-%d}</span></div>'
    )
    table(["step", "what", "when"], steps, label=f"Request {one.event.id}")

"""ML engineering: which model serves, what it is worth beside others, what it lives on, and having it trained anew."""

from __future__ import annotations

import getpass
import html
from collections.abc import Sequence

import numpy as np
import streamlit as st

from dashboards import charts
from dashboards.feature_importance import Importance, Window, importances
from dashboards.live import Live, NoRun, current_live
from dashboards.panels import Tile, age_text, day, empty, note, number, panel, pill, table, tiles, title
from dashboards.publishing import SHORTEST_JUSTIFICATION, request_retrain
from dashboards.registry_figures import (
    Asked,
    asked,
    comparison_rows,
    epoch_rows,
    experiment_rows,
    measures_of,
    read_runs,
)
from featurestore.features import History
from models.interactions import Histories
from models.kinds import MODELS as KINDS
from models.metrics import Floats
from models.registry import Registry, Version
from streams.errors import StreamLensError
from streams.events import MODELS
from streams.records import Int64s

__all__ = ["engineering_page"]

_USERS = 250
"""Of the validation window, to measure importance on."""
_STATUS = {"champion": "good", "challenger": "idle", "rejected": "bad", "retired": "warn"}
_OUTCOME = {"promoted": "good", "rejected": "warn", "failed": "bad", "trained": "idle", "rolled_back": "bad"}


def engineering_page() -> None:
    _champion()
    left, right = st.columns([1, 1], gap="small")
    with left:
        _retrain()
    with right:
        _requests()
    _comparison()
    _importance()
    _runs()
    _history()


def _live() -> Live | None:
    live = current_live()
    return None if isinstance(live, NoRun) else live


def _versions(live: Live) -> list[Version]:
    try:
        return Registry(live.target.models).versions()
    except StreamLensError as error:
        st.warning(str(error))
        return []


@st.fragment(run_every=3)
def _champion() -> None:
    live = _live()
    if live is None:
        return
    versions = _versions(live)
    now = live.now()
    with panel("versions", "Versions", now, now):
        if not versions:
            empty(
                "No version yet", "The trainer makes the first, or train one by hand.", "streamlens train --model ease"
            )
            return
        champion = next((one for one in versions if one.status == "champion"), None)
        counts = {status: sum(one.status == status for one in versions) for status in _STATUS}
        tiles(_version_tiles(live, champion, counts))
        table(
            ["version", "status", "kind", "learnt before", "ratings", "CTR when validated", "trained in, s"],
            [
                [
                    one.version_id,
                    pill(one.status, _STATUS.get(one.status, "idle")),
                    one.manifest.kind,
                    day(one.manifest.as_of),
                    number(one.manifest.n_ratings),
                    _ctr(one),
                    number(one.manifest.seconds, 1),
                ]
                for one in reversed(versions[-15:])
            ],
            numbers=(4, 5, 6),
            label="Versions",
        )


def _version_tiles(live: Live, champion: Version | None, counts: dict[str, int]) -> list[Tile]:
    others = f"{counts['rejected']} rejected, {counts['retired']} retired"
    challengers = Tile("challengers", "Challengers", str(counts["challenger"]), "", others)
    if champion is None:
        return [Tile("champion", "Champion", "none"), challengers]
    made = champion.manifest
    return [
        Tile("champion", "Champion", made.kind, "", champion.version_id),
        Tile("as_of", "Learnt before", day(made.as_of), "", _age_in_event_time(live, champion)),
        Tile("learnt_from", "Learnt from", number(made.n_ratings), "ratings", f"of {number(made.n_users)} users"),
        challengers,
    ]


def _age_in_event_time(live: Live, champion: Version) -> str:
    if not live.event_time:
        return ""
    return f"{(live.event_time - champion.manifest.as_of) / 86_400:,.0f} event days ago"


def _ctr(version: Version) -> str:
    validation = version.manifest.validation
    if validation is None or "ctr" not in validation.measures:
        return "-"
    value, low, high = validation.measures["ctr"]
    return f"{value:.2%} ({low:.2%} to {high:.2%})"


def _retrain() -> None:
    live = _live()
    if live is None:
        return
    with st.container(border=True, key="panel_retrain"):
        title("Retrain by hand")
        note(
            "Publishes a real event on the topic retrain. The trainer trains a challenger, and promotes it only "
            "where it is better."
        )
        with st.form("retrain", border=False):
            kinds = _kinds(live)
            model = st.selectbox("Model", kinds, key="retrain_model")
            severity = st.segmented_control(
                "Severity", ["schedule", "critical"], default="schedule", key="retrain_severity"
            )
            why = st.text_area(
                "Justification (required; kept in the audit trail)", key="retrain_why", max_chars=500,
                placeholder="What did you see that the rules did not?",
            )  # fmt: skip
            sent = st.form_submit_button("Ask for retraining", icon=":material/model_training:")
        if sent:
            try:
                event = request_retrain(live, model, why, asked_by=_who(), severity=severity or "schedule")
            except StreamLensError as error:
                st.error(str(error))
            else:
                st.success(f"Published: {event.id}")
        note(f"At least {SHORTEST_JUSTIFICATION} letters of reason.")


def _kinds(live: Live) -> list[str]:
    """Kinds of models, the champion's first."""
    champion = next((one.manifest.kind for one in _versions(live) if one.status == "champion"), None)
    return sorted(KINDS, key=lambda kind: (kind != champion, kind))


def _who() -> str:
    try:
        return f"pages/{getpass.getuser()}"
    except (KeyError, OSError):
        return "pages"


@st.fragment(run_every=1)
def _requests() -> None:
    live = _live()
    if live is None:
        return
    records, now = live.subscriber.records, live.now()
    with panel("requests", "Requests, and what came of them", records.published(MODELS), now, stale_after_s=None):
        found = asked(records)
        if not found:
            empty("Nobody has asked yet", "Requests of monitors, people and programs come here.")
            return
        for one in found[:6]:
            _request(one, now)


def _request(one: Asked, now: float) -> None:
    data = one.event.data
    outcome = one.outcome
    state = pill(outcome.kind, _OUTCOME[outcome.kind]) if outcome else pill("open", "idle")
    steps = [["asked", f"{data.asked_by}: {data.justification or data.reason}", age_text(now - one.published)]]
    for placed in one.answers:
        answer = placed.record
        what = f"{answer.version or answer.model}: {answer.reason}"
        if answer.kind == "promoted":
            what += f"; serves from {day(answer.event_time)}"
        steps.append([answer.kind, what, age_text(now - placed.published)])
    became = outcome.kind if outcome else "open"
    st.html(
        f'<div class="sl-bar" data-request="{html.escape(one.event.id, quote=True)}" data-outcome="{became}">{state}'
        f"<b>{html.escape(one.event.subject)}</b><span>{data.severity}</span>"
        f'<span class="sl-dim">event time {one.event.time:%Y-%m-%d}</span></div>'
    )
    table(["step", "what", "when"], steps, label=f"Request {one.event.id}")


@st.fragment(run_every=10)
def _comparison() -> None:
    live = _live()
    if live is None:
        return
    versions = _versions(live)
    names = measures_of(versions)
    with st.container(border=True, key="panel_comparison"):
        title("Side by side, on each one's validation window", "95 % intervals over users")
        if not names:
            empty(
                "Nothing was validated yet",
                "Each training judges its recipe on the last tenth before it learns from all.",
            )
            return
        measure = st.segmented_control("Measure", names, default=names[0], key="measure") or names[0]
        rows = comparison_rows(versions[-8:], measure)
        st.vega_lite_chart(
            charts.rows_table(rows, ("name", "value", "low", "high", "series")),
            charts.intervals("Versions", measure),
            height=110 + 24 * len(rows),
            key="comparison",
        )
        note(
            "Versions learnt up to different times were judged on different slates: intervals that overlap say nothing."
        )


@st.fragment
def _importance() -> None:
    live = _live()
    if live is None:
        return
    champion = next((one for one in _versions(live) if one.status == "champion"), None)
    with st.container(border=True, key="panel_importance"):
        title("What the champion lives on", "permutation importance, validation window")
        if champion is None or champion.manifest.validation is None:
            empty(
                "No champion with a validation window", "It is measured on the window that the version was judged on."
            )
            return
        if not st.button("Measure now", icon=":material/science:", key="measure_importance") and (
            st.session_state.get("importance_of") != champion.version_id
        ):
            note(f"Shuffles each input of {champion.version_id} and looks how much worse it ranks; some seconds.")
            return
        st.session_state["importance_of"] = champion.version_id
        try:
            with st.spinner("Shuffling inputs"):
                n_users, whole, found = _measured(champion.version_id, live, champion)
        except StreamLensError as error:
            st.error(str(error))
            return
        rows = [
            {"name": one.name, "value": one.fall.value, "low": one.fall.low, "high": one.fall.high, "series": "fall"}
            for one in found
        ]
        st.vega_lite_chart(
            charts.rows_table(rows, ("name", "value", "low", "high", "series")),
            charts.intervals("Importance", "NDCG@10 lost when shuffled"),
            height=110 + 24 * len(rows),
            key="importance",
        )
        note(
            f"{n_users} users; NDCG@10 {whole:.3f} with nothing shuffled. This version has learnt from that window "
            "too, so the level is too good; the falls are what is told."
        )


@st.cache_data(show_spinner=False, max_entries=8)
def _measured(version_id: str, _live: Live, _version: Version) -> tuple[int, float, list[Importance]]:
    recommending = _live.recommending()
    validation = _version.manifest.validation
    assert validation is not None
    window = window_of(
        [recommending.history(user) for user in recommending.users(_USERS)], validation.start, _version.manifest.as_of
    )
    whole, found = importances(_version.load(), window, recommending.features)
    return len(window), whole, found


def window_of(histories: Sequence[History], start: int, end: int) -> Window:
    """The users who had rated before ``start`` and rated from then until ``end``."""
    before: list[tuple[Int64s, Floats, Int64s]] = []
    rows: list[Int64s] = []
    movies: list[Int64s] = []
    for history in histories:
        first, last = np.searchsorted(history.timestamp, [start, end])
        if 0 < first < last:
            rows.append(np.full(last - first, len(before)))
            movies.append(history.movie_id[first:last])
            before.append((history.movie_id[:first], history.rating[:first], history.timestamp[:first]))
    none = [np.zeros(0, np.int64)]
    return Window(Histories.of(before), np.concatenate(rows or none), np.concatenate(movies or none))


@st.fragment
def _runs() -> None:
    live = _live()
    if live is None:
        return
    with st.container(border=True, key="panel_runs"):
        title("Experiment runs", f".../{live.target.experiments.name}")
        runs = read_runs(live.target.experiments)
        if not runs:
            empty(
                "No run yet",
                "Runs of the experiment command stand here.",
                "streamlens experiment --models ease,vae",
            )
            return
        by_name = {run.name: run for run in runs}
        chosen = by_name[st.selectbox("Run", list(by_name), key="run") or runs[0].name]
        outcomes = chosen.about.get("outcomes", [])
        names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.get("measures", {})))
        if not names:
            empty("This run has measured nothing", "All its models failed; see its folder.")
            return
        measure = st.segmented_control("Measure of the run", names, default=names[0], key="run_measure") or names[0]
        rows = experiment_rows(chosen, measure)
        st.vega_lite_chart(
            charts.rows_table(rows, ("name", "value", "low", "high", "series")),
            charts.intervals("Experiment", measure),
            height=110 + 22 * len(rows),
            key="run_chart",
        )
        losses, validations = epoch_rows(chosen, "loss"), epoch_rows(chosen, "validation")
        for column, (name, epochs) in zip(
            st.columns(2, gap="small"), (("loss", losses), ("validation", validations)), strict=True
        ):
            with column:
                title(f"Learning curve: {name}")
                if epochs:
                    st.vega_lite_chart(
                        charts.rows_table(epochs, ("epoch", "value", "series")),
                        charts.learning_curves(name, name),
                        height=190,
                        key=f"curve_{name}",
                    )
                else:
                    empty("No epochs", "Models in closed form have none.")


@st.fragment(run_every=5)
def _history() -> None:
    live = _live()
    if live is None:
        return
    with st.container(border=True, key="panel_audit"):
        title("Who decided what, and why")
        try:
            entries = Registry(live.target.models).audit()
        except StreamLensError as error:
            st.warning(str(error))
            return
        if not entries:
            empty("No decision yet", "Promotions, rejections and rollbacks stand here for good.")
            return
        table(
            ["at", "decision", "version", "before", "by", "why"],
            [
                [one.at[:19].replace("T", " "), one.action, one.version_id, one.previous or "-", one.by, one.why]
                for one in reversed(entries[-40:])
            ],
            label="Audit trail",
        )

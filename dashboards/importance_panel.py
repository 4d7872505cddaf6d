"""What the version that serves lives on, on the ML engineering page: measured when somebody asks for it."""

from __future__ import annotations

import streamlit as st

from dashboards import charts
from dashboards.feature_importance import Importance, importances, window_of
from dashboards.live import Live, shown_live
from dashboards.panels import Tile, chart, day, empty, head, note, number, tiles
from dashboards.versions_panel import registry_of
from models.registry import Version
from models.versions import Validation
from streams.errors import StreamLensError

__all__ = ["importance_panel"]

_USERS = 1_000
"""At most, of those who had rated before the validation window, to measure importance on."""


@st.fragment(run_every=10)
def importance_panel() -> None:
    live = shown_live()
    view = registry_of(live) if live else None
    if live is None or view is None:
        return
    champion = view.champion
    with st.container(border=True, key="panel_importance"):
        age = st.empty()
        with age:
            _head(None, live)
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
                n_users, whole, found, at = _measured(champion.version_id, live, champion, champion.manifest.validation)
        except StreamLensError as error:
            st.error(str(error))
            return
        with age:
            _head(at, live)
        if not n_users:
            empty("Nobody to measure it on", "None of the users looked at had rated before that window and in it.")
            return
        _importances(champion, champion.manifest.validation, n_users, whole, found)


def _head(at: float | None, live: Live) -> None:
    head(
        "What the champion lives on: permutation importance, validation window", at, live.now(), stale_after_s=None,
        name="importance",
    )  # fmt: skip


def _importances(
    champion: Version, validation: Validation, n_users: int, whole: float, found: list[Importance]
) -> None:
    window = f"{day(validation.start)} to {day(champion.manifest.as_of)}"
    tiles(
        [
            Tile("importance_ndcg", "NDCG@10, nothing shuffled", number(whole, 3), "", champion.version_id),
            Tile("importance_users", "Measured on", number(n_users), "users", window),
        ]
    )
    rows = [
        {"name": one.name, "value": one.fall.value, "low": one.fall.low, "high": one.fall.high, "series": "fall"}
        for one in found
    ]
    chart(
        charts.rows_table(rows, ("name", "value", "low", "high", "series")),
        charts.intervals("Importance", "NDCG@10 lost when shuffled"),
        height=110 + 24 * len(rows),
        key="importance",
    )
    note(
        "This version has learnt from that window too, so the level is too good; the falls are what is told, "
        "with 95 % intervals over users."
    )


@st.cache_data(show_spinner=False, max_entries=8)
def _measured(
    version_id: str, _live: Live, _version: Version, _validation: Validation
) -> tuple[int, float, list[Importance], float]:
    """Users, NDCG@10 with nothing shuffled, the importances, and the wall time of measuring."""
    recommending = _live.recommending()
    histories = [recommending.history(user) for user in recommending.users(_USERS, before=_validation.start)]
    window = window_of(histories, _validation.start, _version.manifest.as_of)
    if not len(window):
        return 0, 0.0, [], _live.now()
    whole, found = importances(_version.load(), window, recommending.features)
    return len(window), whole, found, _live.now()

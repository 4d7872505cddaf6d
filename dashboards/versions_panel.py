"""Versions on the ML engineering page: who serves, who is to, what each is worth, and who decided it."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dashboards import charts
from dashboards.live import Live, shown_live
from dashboards.panels import Tile, chart, day, empty, note, number, panel, pill, table, tiles
from dashboards.registry_figures import changed_at, comparison_rows, measures_of
from dashboards.registry_view import RegistryView, read_registry
from dashboards.units import unit_of
from models.registry import Version
from streams.errors import StreamLensError
from streams.events import DAY_S

__all__ = ["comparison_panel", "registry_of", "trail_panel", "versions_panel"]

_KINDS = {"serves": "good", "to come": "idle", "challenger": "idle", "rejected": "bad", "retired": "warn"}
_SHOWN_VERSIONS, _COMPARED, _SHOWN_DECISIONS = 15, 8, 40


def registry_of(live: Live) -> RegistryView | None:
    """The registry at the run's event time; None, and a warning on the page, where it cannot be read."""
    try:
        return read_registry(live.target.models, live.event_time)
    except StreamLensError as error:
        st.warning(str(error))
        return None


@st.fragment(run_every=2)
def versions_panel() -> None:
    live = shown_live()
    view = registry_of(live) if live else None
    if live is None or view is None:
        return
    with panel("versions", "Versions", changed_at(view), live.now(), stale_after_s=None, heard=live.event_time_heard):
        for version_id, problem in view.damaged.items():
            st.warning(f"{version_id} is damaged: {problem}")
        if not view.versions:
            empty(
                "No version yet", "The trainer makes the first, or train one by hand.", "streamlens train --model ease"
            )
            return
        tiles(_tiles(live, view))
        if len(view.versions) > _SHOWN_VERSIONS:
            note(f"The newest {_SHOWN_VERSIONS} of {len(view.versions):,} versions.")
        table(
            ["version", "standing", "kind", "learnt before", "ratings", "CTR when validated", "trained in, s"],
            [_row(view, one) for one in reversed(view.versions[-_SHOWN_VERSIONS:])],
            numbers=(4, 5, 6),
            label="Versions",
        )


def _row(view: RegistryView, version: Version) -> list[str]:
    standing, made = view.standing(version), version.manifest
    from_when = next((f" {day(one.at)}" for one in view.to_come if one.version_id == version.version_id), "")
    said = f"from{from_when}" if standing == "to come" else standing
    return [
        version.version_id,
        pill(said, _KINDS.get(standing, "idle")),
        made.kind,
        day(made.as_of),
        number(made.n_ratings),
        _ctr(version),
        number(made.seconds, 1),
    ]


def _tiles(live: Live, view: RegistryView) -> list[Tile]:
    counts = {status: sum(one.status == status for one in view.versions) for status in ("rejected", "challenger")}
    others = Tile("challengers", "Challengers", str(counts["challenger"]), "", f"{counts['rejected']} rejected")
    champion = view.champion
    if champion is None:
        shown = [Tile("champion", "Serves now", "none", "", view.serving or "")]
    else:
        made = champion.manifest
        shown = [
            Tile("champion", "Serves now", made.kind, "", champion.version_id),
            Tile("as_of", "Learnt before", day(made.as_of), "", _age_in_event_time(live, champion)),
            Tile("learnt_from", "Learnt from", number(made.n_ratings), "ratings", f"of {number(made.n_users)} users"),
        ]
    if view.to_come:
        soonest = view.to_come[0]
        shown.append(Tile("to_come", "Serves next, from", day(soonest.at), "", soonest.version_id))
    else:
        shown.append(Tile("to_come", "Serves next, from", "-", "", "nothing is decided"))
    return [*shown, others]


def _age_in_event_time(live: Live, champion: Version) -> str:
    if not live.event_time:
        return ""
    return f"{(live.event_time - champion.manifest.as_of) / DAY_S:,.0f} event days ago"


def _ctr(version: Version) -> str:
    validation = version.manifest.validation
    if validation is None or "ctr" not in validation.measures:
        return "-"
    value, low, high = validation.measures["ctr"]
    return f"{value:.2%} ({low:.2%} to {high:.2%})"


@st.fragment(run_every=10)
def comparison_panel() -> None:
    live = shown_live()
    view = registry_of(live) if live else None
    if live is None or view is None:
        return
    names = measures_of(view.versions)
    with panel(
        "comparison",
        "Side by side, on each one's validation window",
        changed_at(view),
        live.now(),
        stale_after_s=None,
        heard=live.event_time_heard,
    ):
        if not names:
            empty(
                "Nothing was validated yet",
                "Each training judges its recipe on the last tenth before it learns from all.",
            )
            return
        measure = st.segmented_control("Measure", names, default=names[0], key="measure") or names[0]
        rows = comparison_rows(view, measure, newest=_COMPARED)
        chart(
            charts.rows_table(rows, ("name", "value", "low", "high", "series")),
            charts.intervals("Versions", unit_of(measure).title, legend=True),
            height=110 + 24 * len(rows),
            key="comparison",
        )
        note(
            "95 % intervals over users. Each name tells until when the version had learnt. Those learnt up to other "
            "times were judged on different slates: neither apart nor overlapping do their intervals compare them."
        )


@st.fragment(run_every=5)
def trail_panel() -> None:
    live = shown_live()
    view = registry_of(live) if live else None
    if live is None or view is None:
        return
    at = datetime.fromisoformat(view.trail[-1].at).timestamp() if view.trail else None
    with panel("audit", "Who decided what, and why", at, live.now(), stale_after_s=None, heard=live.event_time_heard):
        if not view.trail:
            empty("No decision yet", "Promotions, rejections and rollbacks stand here for good.")
            return
        table(
            ["at", "decision", "version", "before", "holds from", "by", "why"],
            [
                [
                    one.at[:19].replace("T", " "),
                    one.action,
                    one.version_id,
                    one.previous or "-",
                    "at once" if one.effective is None else day(one.effective),
                    one.by,
                    one.why,
                ]
                for one in reversed(view.trail[-_SHOWN_DECISIONS:])
            ],
            label="Audit trail",
        )

"""Runs of ``streamlens experiment`` on the ML engineering page: measures with intervals, and learning curves."""

from __future__ import annotations

import streamlit as st

from dashboards import charts
from dashboards.live import shown_live
from dashboards.panels import chart, empty, panel, title
from dashboards.registry_figures import Run, epoch_rows, experiment_rows, read_runs
from dashboards.units import curve_unit, unit_of

__all__ = ["runs_panel"]


@st.fragment(run_every=10)
def runs_panel() -> None:
    live = shown_live()
    if live is None:
        return
    runs = read_runs(live.target.experiments)
    at = max((run.written_at for run in runs), default=None)
    with panel("runs", f"Experiment runs in .../{live.target.experiments.name}", at, live.now(), stale_after_s=None):
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
        chart(
            charts.rows_table(rows, ("name", "value", "low", "high", "series")),
            charts.intervals("Experiment", unit_of(measure).title),
            height=110 + 22 * len(rows),
            key="run_chart",
        )
        _curves(chosen)


def _curves(chosen: Run) -> None:
    for column, name in zip(st.columns(2, gap="small"), ("loss", "validation"), strict=True):
        with column:
            title(f"Learning curve: {name}")
            epochs = epoch_rows(chosen, name)
            if epochs:
                chart(
                    charts.rows_table(epochs, ("epoch", "value", "series")),
                    charts.learning_curves(name, curve_unit(name).title),
                    height=190,
                    key=f"curve_{name}",
                )
            else:
                empty("No epochs", "Models in closed form have none.")

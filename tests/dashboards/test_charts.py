"""Charts: that everybody can tell their series apart, read their writing, and knows what an axis counts."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

pytest.importorskip("altair", reason="pip install 'streamlens[pages]'")

from agents.thresholds import default_thresholds
from dashboards import charts
from dashboards.launch import streamlit_arguments
from dashboards.rings import Series
from dashboards.units import signal_unit, unit_of
from models.metrics import Floats

SPECS = {
    make.__name__: make("a", "b")
    for make in (
        charts.wall_lines,
        charts.event_lines,
        charts.interval_band,
        charts.intervals,
        charts.bars,
        charts.learning_curves,
    )
}
# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), severity 1; on linear RGB.
SEEN_AS = {
    "everybody": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> Floats:
    """Of #rrggbb, as light: (3,), 0 to 1."""
    channel = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 has it, 1 to 21."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05 for colour in (one, other))
    return light[1] / light[0]


def lab(light: Floats) -> Floats:
    """CIE L*a*b* of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ light.clip(0, 1)
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def grounds() -> dict[str, str]:
    """What the pages stand on."""
    options = dict(
        one.removeprefix("--").split("=", 1) for one in streamlit_arguments("h", 1, browser=False) if "=" in one
    )
    return {scheme: options[f"theme.{scheme}.backgroundColor"] for scheme in ("light", "dark")}


def encodings(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [part["encoding"] for part in (spec, *spec.get("layer", ())) if "encoding" in part]


@pytest.mark.parametrize("who", SEEN_AS)
def test_colours_are_apart_for(who: str) -> None:
    seen = {colour: lab(np.array(SEEN_AS[who]) @ linear(colour)) for colour in charts.PALETTE}
    for one, other in combinations(charts.PALETTE, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_writing_stand_out_from_the_ground(scheme: str) -> None:
    ground = grounds()[scheme]
    assert min(contrast(colour, ground) for colour in charts.PALETTE) >= 3  # WCAG 2, 1.4.11
    assert contrast(charts.INKS[scheme], ground) >= 4.5  # 1.4.3
    inked = charts.inked(SPECS["bars"], charts.INKS[scheme])
    for part, name in (("axis", "labelColor"), ("axis", "titleColor"), ("axis", "gridColor"), ("legend", "labelColor")):
        assert inked["config"][part][name] == charts.INKS[scheme]
    assert SPECS["bars"]["config"]["axis"].keys().isdisjoint({"labelColor"})  # made once, for both


@pytest.mark.parametrize("name", SPECS)
def test_every_axis_says_what_it_counts(name: str) -> None:
    spec = SPECS[name]
    assert spec["description"]
    titles = set()
    for encoding in encodings(spec):
        for axis in ("x", "y"):
            channel = encoding.get(axis)
            if channel is None or "field" not in channel or "title" not in channel:
                continue
            if channel["type"] == "nominal":
                assert channel["title"] is None  # names speak for themselves
                continue
            assert channel["title"], (name, axis)
            titles.add(channel["title"])
    assert "b" in titles
    over_time = "time" in " ".join(titles)
    assert over_time == (name in ("wall_lines", "event_lines", "interval_band"))


@pytest.mark.parametrize("name", ["wall_lines", "event_lines", "interval_band", "learning_curves"])
def test_lines_differ_in_dashes_too(name: str) -> None:
    (dashes,) = {
        tuple(map(tuple, encoding["strokeDash"]["scale"]["range"]))
        for encoding in encodings(SPECS[name])
        if "strokeDash" in encoding
    }
    assert len(set(dashes)) == len(dashes) > len(charts.PALETTE)


@pytest.mark.parametrize("name", ["wall_lines", "event_lines"])
def test_a_single_value_is_drawn_as_a_point(name: str) -> None:
    (points,) = [
        layer
        for layer in SPECS[name]["layer"]
        if any(step.get("filter") == "datum.n == 1" for step in layer.get("transform", ()))
    ]
    assert points["mark"]["type"] == "point"
    assert {"x", "y", "color"} <= points["encoding"].keys()


@pytest.mark.parametrize(
    "measure",
    [
        "ctr",
        "rmse",
        "mae",
        "ratings_per_session",
        "hit_rate@10",
        "coverage@10",
        "ndcg@10",
        "map@10",
        "mrr@10",
        *default_thresholds().rules,
    ],
)
def test_measures_are_drawn_in_units_with_shares_in_per_cent(measure: str) -> None:
    unit = unit_of(measure)
    assert unit.title != measure
    assert unit.title.endswith(", %") == (unit.scale == 100)
    assert (measure == "ctr" or measure.endswith("_share")) <= (unit.scale == 100)


def test_detectors_observe_in_the_unit_of_their_signal() -> None:
    fallback = signal_unit("of somebody's own")
    assert all(signal_unit(name) != fallback for name in default_thresholds().detectors)


def series(*values: float) -> Series:
    at = np.arange(float(len(values)))
    return Series("x", {}, at, np.array(values), at * 86_400)


def test_a_table_names_each_value_and_counts_milliseconds() -> None:
    table = charts.series_table([("one", series(1, 2)), ("other", series(3))], time="event", scale=10)
    assert table.to_pylist() == [
        {"t": 0.0, "value": 10.0, "series": "one", "kind": "value"},
        {"t": 86_400_000.0, "value": 20.0, "series": "one", "kind": "value"},
        {"t": 0.0, "value": 30.0, "series": "other", "kind": "value"},
    ]
    assert charts.series_table([("one", series(1, 2))]).column("t").to_pylist() == [0.0, 1_000.0]


@pytest.mark.parametrize("moved", [1, 2, 7])
def test_a_window_that_moves_goes_on_showing_what_it_showed(moved: int) -> None:
    t = 1_700_000_000 + np.arange(700) / 2
    value = np.random.default_rng(0).normal(size=len(t))
    shown, later = (set(zip(*charts.thinned(t[i : i + 600], value[i : i + 600]), strict=True)) for i in (0, moved))
    assert len(shown) <= 241
    assert max(later) == (t[moved + 599], value[moved + 599])
    cut_s = 4.0  # the stretches at both ends are not whole
    inside = {point for point in shown if t[moved] + cut_s <= point[0] <= t[599] - cut_s}
    assert len(inside) > 100
    assert inside <= later


def test_thinning_keeps_every_spike() -> None:
    t, value = np.arange(1_000.0), np.zeros(1_000)
    value[[137, 558]] = 9.0, -9.0
    shown, kept = charts.thinned(t, value)
    assert {137.0, 558.0} <= set(shown.tolist())
    assert (kept.max(), kept.min()) == (9.0, -9.0)


def test_alerts_stand_on_the_axis_however_high_the_chart_is_drawn() -> None:
    marks = [layer for layer in SPECS["event_lines"]["layer"] if layer["mark"].get("shape") == "triangle-up"]
    assert [layer["encoding"]["y"] for layer in marks] == [{"value": "height"}]

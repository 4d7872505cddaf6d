"""In a word how a run stands: what is missing most is said first."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from dashboards.live import Live
from dashboards.panels import Heard
from dashboards.run_bar import standing
from dashboards.store_probe import StoreView
from dashboards.subscriber import Connection
from featurestore.reader import AppliedOffset
from streams.events import METRICS, Metric
from tests.dashboards.test_figures import records_of

NOW = 1_000.0
APPLIED = AppliedOffset("features", "ratings", 0, "log", 1, 10, 86_400, 86_400, False, 10, 0, 0, 0, 0, 0)
THERE = StoreView(state="there", at=NOW, applied=(APPLIED,))


def told(name: str, value: float, age_s: float) -> Metric:
    return Metric(name, value, NOW - age_s)


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("live", {}),
        ("bus away", {"connection": Connection(False, NOW - 20, "refused"), "heard": Heard(NOW - 20, NOW - 60)}),
        ("connecting", {"connection": Connection(False, NOW - 4), "heard": Heard(0.0, NOW - 4)}),
        ("bus away", {"connection": Connection(False, NOW - 6), "heard": Heard(0.0, NOW - 6)}),
        ("bus silent", {"heard": Heard(NOW - 6, NOW - 60)}),
        ("store away", {"store": replace(THERE, state="away", problem="locked")}),
        ("no features yet", {"store": StoreView(state="missing")}),
        ("run complete", {"store": replace(THERE, applied=(replace(APPLIED, end_of_run=True),)), "metrics": []}),
        ("worker silent", {"metrics": []}),
        ("worker silent", {"metrics": [told("features.throughput", 5.0, age_s=6)]}),
        ("replay paused", {"metrics": [told("features.throughput", 0, 1), told("replay.paused", 1, 1)]}),
        ("live", {"metrics": [told("features.throughput", 0, 1), told("replay.paused", 1, 60)]}),
        ("live", {"metrics": [told("features.throughput", 0, 1), told("replay.paused", 0, 1)]}),
    ],
)
def test_what_is_missing_is_said(expected: str, changed: dict[str, Any]) -> None:
    given = {
        "connection": Connection(True, NOW - 60),
        "heard": Heard(NOW, NOW - 60),
        "store": THERE,
        "metrics": [told("features.throughput", 5.0, age_s=1)],
    } | changed
    records = records_of(**{METRICS: given["metrics"]})
    subscriber = SimpleNamespace(connection=given["connection"], heard_at=given["heard"].at, records=records)
    live = cast(
        Live,
        SimpleNamespace(subscriber=subscriber, bus_heard=given["heard"], store=given["store"], now=lambda: NOW),
    )
    assert standing(live)[0] == expected

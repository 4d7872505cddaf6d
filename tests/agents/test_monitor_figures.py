"""What is published of a closed day: each value beside what it is compared with."""

from __future__ import annotations

import msgspec
import pytest

from agents.measures import Baseline, Measure
from agents.monitor_figures import metrics_of
from agents.monitor_store import ClosedFigures
from agents.retrain_decision import DetectorReading, Metrics
from agents.thresholds import default_thresholds

DAY = 14_610
THRESHOLDS = default_thresholds()


def measured(value: float | None, baseline: float | None, closes: int = 0) -> Measure:
    held = None if baseline is None else Baseline(baseline, "champion")
    return Measure(n=9, value=value, baseline=held, first_day=DAY, last_day=DAY, breached_closes=closes)


def told(measures: dict[str, Measure] | None = None, **detectors: DetectorReading) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    metrics = Metrics(day=DAY, measures=measures or {}, detectors=detectors)
    figures = ClosedFigures(metrics, alerts=[], severity="none", retrain=False, version=None, n_late=0)
    return {(name, *labels.values()): value for name, value, labels in metrics_of(figures, THRESHOLDS)}


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("ctr", {"low": 0.85}),
        ("ratings_per_session", {"low": 0.8}),
        ("revenue_per_user", {"low": 0.9}),
        ("rmse", {"high": 1.05}),
        ("precision", {"low": 0.9}),
        ("ndcg", {"low": 0.92}),
        ("volume", {"low": 0.7, "high": 1.3}),
        ("new_user_share", {"low": 0.75, "high": 1.25}),
        ("new_item_share", {"low": 0.75, "high": 1.25}),
    ],
)
def test_a_measure_stands_beside_its_baseline_and_where_its_rule_is_breached(
    name: str, bounds: dict[str, float]
) -> None:
    assumed = ("true",) if name == "revenue_per_user" else ()
    expected = {
        (f"monitors.{name}.threshold", bound, *assumed): pytest.approx(2 * part) for bound, part in bounds.items()
    }
    assert told({name: measured(3.0, 2.0, closes=4)}) == expected | {
        (f"monitors.{name}", *assumed): 3.0,
        (f"monitors.{name}.baseline", *assumed): 2.0,
        (f"monitors.{name}.breached_closes", *assumed): 4,
        (f"monitors.{name}.for_days", *assumed): THRESHOLDS.rules[name].for_days,
    }


@pytest.mark.parametrize("name", ["popularity_kl", "rating_kl"])
def test_a_divergence_has_its_threshold_without_a_baseline(name: str) -> None:
    assert told({name: measured(0.3, None)})[f"monitors.{name}.threshold", "high"] == 0.1


def test_what_is_insufficient_is_absent_and_a_first_window_has_no_threshold() -> None:
    assert told({"ctr": measured(None, None, closes=3)}) == {}
    assert {name for name, *_ in told({"ctr": measured(0.03, None)})} == {
        *("monitors.ctr", "monitors.ctr.breached_closes", "monitors.ctr.for_days")
    }


def test_a_detector_stands_beside_its_level_and_its_own_threshold() -> None:
    reading = DetectorReading(signal="ctr", level=0.02, spread=0.01, latest=0.05, statistic=3.0)
    assert told(ctr_drift=reading) == {
        ("monitors.detector.level", "ctr_drift"): 0.02,
        ("monitors.detector.spread", "ctr_drift"): 0.01,
        ("monitors.detector.latest", "ctr_drift"): 0.05,
        ("monitors.detector.statistic", "ctr_drift"): 3.0,
        ("monitors.detector.threshold", "ctr_drift"): THRESHOLDS.detectors["ctr_drift"].threshold,
    }
    warming_up = msgspec.structs.replace(reading, level=None, spread=None, statistic=None, simulated=True)
    assert set(told(ctr_drift=warming_up)) == {
        ("monitors.detector.latest", "ctr_drift", "true"),
        ("monitors.detector.threshold", "ctr_drift", "true"),
    }
    adwin = told(rating_drift=DetectorReading(signal="rating", level=3.5, spread=0.5, latest=3.4))
    assert adwin["monitors.detector.significance", "rating_drift"] == THRESHOLDS.detectors["rating_drift"].delta
    assert ("monitors.detector.threshold", "rating_drift") not in adwin

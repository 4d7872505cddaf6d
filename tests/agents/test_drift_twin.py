"""A detection counts only where the same detectors are silent on the same stream without the drift."""

from __future__ import annotations

import pytest

from agents.drift_twin import Detection, clean_alerts, first_detection
from agents.thresholds import default_thresholds
from streamlens.bench.drift_world import START, World, make_ratings
from streams.drift import DriftedDataset, DriftSpec, InjectedDrift
from streams.events import DAY_S, Alert

BEGINS = 1_000 * DAY_S
DRIFT = InjectedDrift("rating-bias", 1, "high", BEGINS, 1, 1, {})
THRESHOLDS = default_thresholds()


def alert(name: str, day: int, kind: str = "drift") -> Alert:
    """One told at the end of that day after the drift began."""
    return Alert(name, "investigate", kind, {}, BEGINS + day * DAY_S)  # type: ignore[arg-type]


def found(detector: str, day: int) -> Detection:
    return Detection(detector, BEGINS + day * DAY_S, day * DAY_S)


@pytest.mark.parametrize(
    ("alerts", "clean", "expected"),
    [
        ([alert("rating_drift", 3)], [], found("rating_drift", 3)),
        ([alert("rating_drift", 0)], [], None),  # before anything was touched
        ([alert("rating_drift", 3)], [alert("rating_drift", 3)], None),
        ([alert("rating_drift", 3)], [alert("rating_drift", 2)], None),
        ([alert("rating_drift", 3)], [alert("rating_drift", 4)], None),  # a day later it would have fired anyway
        ([alert("rating_drift", 3)], [alert("rating_drift", 6)], None),
        ([alert("rating_drift", 3)], [alert("rating_drift", 7)], found("rating_drift", 3)),
        ([alert("rating_drift", 3)], [alert("volume_drift", 4)], found("rating_drift", 3)),
        ([alert("rating_drift", 3)], [alert("rating_drift", -9)], found("rating_drift", 3)),
        ([alert("rating_drift", 3), alert("volume_drift", 5)], [alert("rating_drift", 1)], found("volume_drift", 5)),
        ([alert("ctr_drift", 3)], [], None),  # the twin has no slates
        ([alert("volume", 3, "threshold")], [], None),
        ([], [], None),
    ],
)
def test_the_first_alert_on_which_the_twin_is_silent(
    alerts: list[Alert], clean: list[Alert], expected: Detection | None
) -> None:
    assert first_detection(DRIFT, alerts, clean, THRESHOLDS) == expected


def test_a_drift_in_a_world_that_does_not_change_is_found_and_its_twin_is_silent() -> None:
    world, cutoff, begins = make_ratings(110 * 500, 7), START + 40 * DAY_S, START + 80 * DAY_S
    drifted = DriftedDataset(world, [DriftSpec("rating-bias", 1, "high")], start=begins, seed=7)
    until = START + 110 * DAY_S
    clean = clean_alerts(world, THRESHOLDS, cutoff, until)
    alerts = clean_alerts(drifted, THRESHOLDS, cutoff, until)
    (drift,) = drifted.injected(world.n_ratings)
    detection = first_detection(drift, alerts, clean, THRESHOLDS)
    assert detection is not None
    assert detection.detector == "rating_drift"
    assert 0 < detection.after_s <= 10 * DAY_S
    assert first_detection(drift, clean, clean, THRESHOLDS) is None


def test_says_nothing_of_what_comes_after_the_end() -> None:
    world: World = make_ratings(60 * 500, 7)
    cutoff = START + 40 * DAY_S
    assert clean_alerts(world, THRESHOLDS, cutoff, cutoff) == []

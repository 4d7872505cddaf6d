"""Detectors: they find a shift, not before the warm-up, and their state is worth what they have seen."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.detectors import Detector, DetectorState
from agents.thresholds import DetectorRule

KINDS = {
    "page-hinkley": DetectorRule(signal="rating", every=3, warm_up=30, delta=0.25, threshold=15.0),
    "adwin": DetectorRule(signal="rating", kind="adwin", every=3, warm_up=30, delta=0.002),
}
SHIFTED = np.concatenate([np.random.default_rng(5).normal(mean, 1.0, 900) for mean in (3.0, 4.0)])


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS)
def test_a_shift_is_found_once_and_no_other(rule: DetectorRule) -> None:
    detector = Detector(rule)
    assert detector.feed(SHIFTED[:900]) == 0
    assert detector.feed(SHIFTED[900:]) == 1
    assert detector.level == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS)
def test_nothing_fires_during_the_warm_up(rule: DetectorRule) -> None:
    wild = np.repeat([0.0, 100.0], rule.warm_up * rule.every // 2)
    assert Detector(rule).feed(wild) == 0


@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS)
@given(cuts=st.lists(st.integers(0, len(SHIFTED)), max_size=5).map(sorted))
def test_saved_and_loaded_anywhere_it_goes_on_the_same(rule: DetectorRule, cuts: list[int]) -> None:
    whole = Detector(rule)
    fired = whole.feed(SHIFTED)
    detector, found = Detector(rule), 0
    for part in np.split(SHIFTED, cuts):
        found += detector.feed(part)
        saved = msgspec.json.encode(detector.state())
        detector = Detector(rule, msgspec.json.decode(saved, type=DetectorState))
    assert (found, detector.state()) == (fired, whole.state())


@pytest.mark.parametrize(("mode", "sign", "fires"), [("both", 1, True), ("up", 1, True), ("down", 1, False)])
def test_the_statistic_is_what_the_threshold_is_compared_with(mode: str, sign: int, fires: bool) -> None:
    """The highest of what was fed last, the one that fired included; nothing in the warm-up, nor of ADWIN."""
    rule = msgspec.structs.replace(KINDS["page-hinkley"], every=1, mode=mode)
    detector = Detector(rule)
    assert detector.feed(SHIFTED[: rule.warm_up]) == 0
    assert detector.statistic is None
    for value in sign * SHIFTED[rule.warm_up :]:
        fired = detector.feed(np.array([value]))
        assert detector.statistic is None or (detector.statistic > rule.threshold) == bool(fired)
        if fired:
            break
    assert bool(fired) is fires
    whole = Detector(rule)
    whole.feed(SHIFTED)
    assert whole.statistic is not None
    assert (whole.statistic > rule.threshold) is fires
    whole.feed(np.zeros(0))
    assert whole.statistic is None, "of a day without an observation"
    adwin = Detector(KINDS["adwin"])
    adwin.feed(SHIFTED)
    assert adwin.statistic is None


def test_one_odd_observation_makes_no_drift() -> None:
    """A hundred standard deviations off, between others that are as before: it counts for four."""
    rule = msgspec.structs.replace(KINDS["page-hinkley"], every=1)
    odd = np.concatenate([SHIFTED[:300], [103.0], SHIFTED[300:600]])
    assert Detector(rule).feed(odd) == 0


def test_the_state_of_another_kind_is_refused() -> None:
    detector = Detector(KINDS["adwin"])
    detector.feed(SHIFTED)
    with pytest.raises(ValueError, match="expected the state of page-hinkley, found another's"):
        Detector(KINDS["page-hinkley"], detector.state())


def test_one_direction_only() -> None:
    up = msgspec.structs.replace(KINDS["page-hinkley"], mode="up")
    assert Detector(up).feed(SHIFTED) == 1
    assert Detector(up).feed(-SHIFTED) == 0

"""Whether to retrain: each threshold on both sides, thin windows, confirmation by detectors, and the cooldown."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from agents.measures import Baseline, Measure
from agents.retrain_decision import Decision, DetectorReading, Metrics, retrain_request, should_retrain
from agents.thresholds import default_thresholds
from streams.retrain import RetrainRequested

RULES = default_thresholds()
DAY = 15_000


def measured(value: float | None, closes: int = 100, first_day: int = DAY - 6) -> Measure:
    return Measure(
        n=3_000,
        value=value,
        baseline=None if value is None else Baseline(1.0, "champion"),
        first_day=first_day,
        last_day=DAY,
        breached_closes=closes,
    )


def decide(asked_day: int | None = None, fired_day: int | None = None, **measures: Measure) -> Decision:
    readings = {"rating_drift": DetectorReading(signal="rating", fired_day=fired_day, latest=3.123456789)}
    metrics = Metrics(day=DAY, measures=measures, detectors=readings, asked_day=asked_day, offsets={"0": 7})
    return should_retrain(metrics, RULES)


@pytest.mark.parametrize(
    ("name", "at", "just_under", "severity"),
    [
        ("ctr", 0.85, 0.8501, "critical"),
        ("ratings_per_session", 0.80, 0.8001, "critical"),
        ("revenue_per_user", 0.90, 0.9001, "critical"),
        ("rmse", 1.05, 1.0499, "investigate"),  # one of the three alone
        ("precision", 0.90, 0.9001, "investigate"),
        ("ndcg", 0.92, 0.9201, "investigate"),
        ("volume", 1.30, 1.2999, "investigate"),
        ("volume", 0.70, 0.7001, "investigate"),
        ("new_user_share", 1.25, 1.2499, "investigate"),
        ("new_user_share", 0.75, 0.7501, "investigate"),
        ("new_item_share", 1.25, 1.2499, "investigate"),
        ("new_item_share", 0.75, 0.7501, "investigate"),
        ("popularity_kl", 0.1001, 0.1, "investigate"),
        ("rating_kl", 0.1001, 0.1, "investigate"),
    ],
)
def test_a_rule_fires_at_its_threshold_and_not_before(name: str, at: float, just_under: float, severity: str) -> None:
    fired = decide(**{name: measured(at)})
    assert (fired.severity, fired.retrain) == (severity, severity == "critical")
    assert list(fired.evidence) == [name, "closed", "offsets"]
    assert decide(**{name: measured(just_under)}) == Decision()


@pytest.mark.parametrize(("name", "days"), [("ctr", 7), ("ratings_per_session", 14), ("revenue_per_user", 30)])
def test_a_critical_rule_has_to_last(name: str, days: int) -> None:
    assert decide(**{name: measured(0.5, closes=days - 1)}) == Decision()
    assert decide(**{name: measured(0.5, closes=days)}).severity == "critical"


def test_two_of_the_three_measures_of_quality_ask_for_a_training() -> None:
    names = {"rmse": 1.06, "precision": 0.8, "ndcg": 0.8}
    for left_out in names:
        decision = decide(**{name: measured(value) for name, value in names.items() if name != left_out})
        assert (decision.severity, decision.retrain, len(decision.reasons)) == ("schedule", True, 2)


def test_a_thin_window_says_nothing() -> None:
    assert decide(ctr=measured(None), rmse=measured(None), volume=measured(None)) == Decision()


def test_a_detector_within_the_window_makes_an_investigation_a_training() -> None:
    assert decide(volume=measured(0.5), fired_day=DAY - 7).severity == "investigate"
    confirmed = decide(volume=measured(0.5), fired_day=DAY - 6)
    assert (confirmed.severity, confirmed.retrain) == ("schedule", True)
    assert confirmed.evidence["detectors"]["rating_drift"]["latest"] == 3.12346


def test_of_several_rules_the_longest_window_is_what_a_detector_has_to_fire_in() -> None:
    measures = {"volume": measured(0.5, first_day=DAY - 20), "rating_kl": measured(0.5)}
    assert decide(**measures, fired_day=DAY - 20).severity == "schedule"
    assert decide(**measures, fired_day=DAY - 21).severity == "investigate"


def test_a_detector_alone_only_alerts() -> None:
    assert (decide(fired_day=DAY).severity, decide(fired_day=DAY).retrain) == ("investigate", False)
    assert decide(fired_day=DAY - 1) == Decision()


def test_nothing_is_asked_for_twice_within_the_cooldown() -> None:
    critical = {"ctr": measured(0.5)}
    cooling = decide(asked_day=DAY - RULES.cooldown_days + 1, **critical)
    assert (cooling.severity, cooling.retrain, cooling.cooldown_until) == ("critical", False, DAY + 1)
    over = decide(asked_day=DAY - RULES.cooldown_days, **critical)
    assert (over.retrain, over.cooldown_until) == (True, None)


def test_a_decision_becomes_a_retrain_event() -> None:
    request = retrain_request(decide(ctr=measured(0.83)))
    assert (request.severity, request.reason) == ("critical", "ctr -17.0 % for 100 days")
    assert request.evidence["ctr"]["window"] == ["2011-01-20", "2011-01-26"]
    event = RetrainRequested.of("mf", request, id="1", source="run/monitors", time=datetime(2011, 1, 27, tzinfo=UTC))
    assert msgspec.json.decode(msgspec.json.encode(event), type=RetrainRequested) == event
    with pytest.raises(ValueError, match="expected one to retrain, found none"):
        retrain_request(Decision())


def test_revenue_carries_the_assumptions_it_rests_on() -> None:
    evidence = decide(revenue_per_user=measured(0.5)).evidence["revenue_per_user"]
    assert evidence["assumptions"] == {"dollars_per_click": 0.1, "dollars_per_session": 0.05}
    assert "assumptions" not in decide(ctr=measured(0.5)).evidence["ctr"]

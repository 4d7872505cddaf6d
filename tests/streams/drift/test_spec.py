from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.drift import DriftSpec, parse_drift, parse_drifts
from streams.drift.spec import KINDS, STRENGTHS
from streams.errors import ConfigError
from streams.replay_options import ReplayOptions


@given(st.sampled_from(KINDS), st.integers(1, 10_000), st.sampled_from(STRENGTHS))
def test_a_drift_reads_as_it_is_written(kind: str, week: int, strength: str) -> None:
    spec = DriftSpec(kind, week, strength)
    assert parse_drift(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rating-bias", "drift: expected KIND@WEEK:STRENGTH such as rating-bias@12:high, found 'rating-bias'"),
        ("rating-bias@12", "expected KIND@WEEK:STRENGTH"),
        ("rating-bias@x:low", "expected KIND@WEEK:STRENGTH"),
        ("rating-bias@-1:low", "expected KIND@WEEK:STRENGTH"),
        ("", "expected KIND@WEEK:STRENGTH"),
        ("rating-bais@12:low", "expected a kind of rating-bias, .*, found 'rating-bais'; did you mean rating-bias"),
        ("late@12:medium", "expected a strength of low, middle, high, found 'medium'"),
    ],
)
def test_what_is_no_drift_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        ReplayOptions(drift=(text,))
    assert "\n" not in str(refused.value)


def test_too_many_drifts_are_refused() -> None:
    assert len(parse_drifts(["late@12:low"] * 32)) == 32
    with pytest.raises(ConfigError, match="at most 32 in one run, found 33"):
        parse_drifts(["late@12:low"] * 33)


@pytest.mark.parametrize("week", [1, 9, 10_001])
def test_a_drift_outside_the_live_part_is_refused(week: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"drift late@{week}:low: expected a week from 10, when the live part begins"
    ):
        ReplayOptions(week=10, drift=(f"late@{week}:low",))


def test_options_without_drift_are_as_they_were_before_there_was_any() -> None:
    assert ReplayOptions().as_dict().keys() == {
        *("week", "start", "speed", "rate", "arrival", "limit", "until", "partitions", "seed")
    }
    assert ReplayOptions(drift=("rating-bias@12:low",)).as_dict()["drift"] == ["rating-bias@12:low"]
    assert "lateness_s" not in ReplayOptions(drift=("rating-bias@12:low",), lateness_s=5).as_dict()
    assert ReplayOptions(drift=("late@12:low",), lateness_s=5).as_dict()["lateness_s"] == 5

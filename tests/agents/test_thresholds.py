"""The thresholds file: what is misspelt is refused by name, what is left out has no rule."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from agents.thresholds import (
    MEASURES,
    SIGNALS,
    Gates,
    Rule,
    Severity,
    default_thresholds,
    load_thresholds,
    parse_thresholds,
)
from streams.errors import ConfigError

DEFAULT = (files("agents") / "thresholds.toml").read_text()


def test_the_default_has_a_rule_for_each_measure_and_a_detector_for_each_signal() -> None:
    assert set(default_thresholds().rules) == set(MEASURES)
    assert {rule.signal for rule in default_thresholds().detectors.values()} == set(SIGNALS)


@pytest.mark.parametrize(
    ("name", "severity", "limit", "for_days", "window_days", "min_sample"),
    [
        ("ctr", "critical", {"fall": 0.15}, 7, 1, 2_500),
        ("ratings_per_session", "critical", {"fall": 0.20}, 14, 1, 500),
        ("revenue_per_user", "critical", {"fall": 0.10}, 30, 1, 2_500),
        ("rmse", "schedule", {"rise": 0.05}, 1, 7, 2_000),
        ("precision", "schedule", {"fall": 0.10}, 1, 7, 1_500),
        ("ndcg", "schedule", {"fall": 0.08}, 1, 7, 1_500),
        ("volume", "investigate", {"change": 0.30}, 1, 7, 400),
        ("new_user_share", "investigate", {"change": 0.25}, 1, 7, 1_000),
        ("new_item_share", "investigate", {"change": 0.25}, 1, 7, 1_000),
        ("popularity_kl", "investigate", {"above": 0.1}, 1, 7, 1_000),
        ("rating_kl", "investigate", {"above": 0.1}, 1, 7, 1_000),
    ],
)
def test_the_default_rules_are_those_that_the_docs_tell(
    name: str, severity: Severity, limit: dict[str, float], for_days: int, window_days: int, min_sample: int
) -> None:
    expected = Rule(severity=severity, for_days=for_days, window_days=window_days, min_sample=min_sample, **limit)
    assert default_thresholds().rules[name] == expected


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("cooldown_days", "cooldown_day", r"found 'cooldown_day'; did you mean cooldown_days\?"),
        ("[rules.ndcg]", "[rules.ndgc]", r"\[rules\].*ctr.*found 'ndgc'; did you mean ndcg\?"),
        ("fall = 0.15", "fal = 0.15", r"\[rules.ctr\].*found 'fal'; did you mean fall\?"),
        ("fall = 0.15", "fall = 0.15\nrise = 0.1", r"exactly one of fall, rise, change and above"),
        ("fall = 0.15", "fall = -0.15", r"exactly one of fall, rise, change and above, above 0"),
        ("dollars_per_click", "dollar_per_click", r"\[assumptions\].*did you mean dollars_per_click\?"),
        ('signal = "ctr"', 'signal = "clicks"', r"signal: expected one of rating.*found 'clicks'"),
        ("cooldown_days = 14", 'cooldown_days = "a"', r"Expected `int`.*cooldown_days"),
        ("[rules.ctr]", "[rules.ctr", r"expected TOML"),
    ],
)
def test_what_is_not_understood_is_refused(right: str, wrong: str, told: str) -> None:
    assert right in DEFAULT
    with pytest.raises(ConfigError, match=f"(?s)^t.toml.*{told}"):
        parse_thresholds(DEFAULT.replace(right, wrong, 1), "t.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a TOML file at .*none.toml"):
        load_thresholds(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("min_slates = 0", "min_slates"),
        ("confidence = 1.0", "confidence"),
        ("n_bootstrap = 10", "n_bootstrap"),
        ("min_slate = 5", "did you mean min_slates"),
    ],
)
def test_gates_are_of_the_same_file_and_checked(line: str, said: str) -> None:
    assert default_thresholds().gates == Gates()
    name = line.split(" ")[0]
    text = re.sub(rf"^{name} = .*$", line, DEFAULT, flags=re.MULTILINE)
    text = text if text != DEFAULT else DEFAULT.replace("[gates]", f"[gates]\n{line}")
    with pytest.raises(ConfigError, match=said):
        parse_thresholds(text, "test")

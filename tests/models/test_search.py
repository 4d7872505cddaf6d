"""The search for hyperparameters."""

from __future__ import annotations

from typing import Any

import pytest

from models.search import Budget, Trial, search
from streams.errors import ModelError

pytest.importorskip("optuna", reason="pip install 'streamlens[train]' to run this")

DEFAULTS = {"l2": 1.0, "width": 64, "dropout": 0.5, "flag": True, "loss": "bpr", "seed": 3}


def near_three(chosen: dict[str, Any]) -> float:
    return -abs(float(chosen["l2"]) - 3.0)


def test_finds_what_is_better_than_the_defaults() -> None:
    trials: list[Trial] = []
    best = search(near_three, DEFAULTS, budget=Budget(trials=25), seed=0, on_trial=trials.append)
    assert abs(best["l2"] - 3.0) < 0.5
    assert trials[0].hyperparameters == {"l2": 1.0, "width": 64, "dropout": 0.5, "flag": True}
    assert len(trials) == 25
    assert all(trial.hyperparameters["dropout"] < 1.0 for trial in trials)
    assert all(isinstance(trial.hyperparameters["width"], int) for trial in trials)


def test_the_same_seed_tries_the_same() -> None:
    def tried(seed: int) -> list[Trial]:
        trials: list[Trial] = []
        search(near_three, DEFAULTS, budget=Budget(trials=5), seed=seed, on_trial=trials.append)
        return trials

    assert tried(1) == tried(1)
    assert tried(1) != tried(2)


def test_an_error_is_made_small() -> None:
    best = search(lambda c: -near_three(c), DEFAULTS, budget=Budget(trials=25), seed=0, maximise=False)
    assert abs(best["l2"] - 3.0) < 0.5


def test_a_trial_that_fails_is_one_of_many() -> None:
    trials: list[Trial] = []

    def diverges(chosen: dict[str, Any]) -> float:
        if len(trials) % 2:
            raise ModelError("training diverged")
        return float(chosen["l2"])

    best = search(diverges, DEFAULTS, budget=Budget(trials=6), seed=0, on_trial=trials.append)
    assert [trial.error for trial in trials] == [None, "training diverged"] * 3
    assert best["l2"] == max(trial.hyperparameters["l2"] for trial in trials if trial.error is None)


def test_no_trial_that_works_is_an_error() -> None:
    def diverges(chosen: dict[str, Any]) -> float:
        raise ModelError("training diverged")

    with pytest.raises(ModelError, match=r"found none in 2 \(training diverged"):
        search(diverges, DEFAULTS, budget=Budget(trials=2), seed=0)


def test_time_is_a_budget_too() -> None:
    trials: list[Trial] = []
    search(near_three, DEFAULTS, budget=Budget(seconds=0.2), seed=0, on_trial=trials.append)
    assert trials

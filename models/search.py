"""Hyperparameters searched for by Optuna, on a part of what a protocol trains on and never on what it tests.

A search needs no table of spaces: each number is looked for on both sides of its default, which its author chose.
Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019; its TPE sampler, seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streams.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import optuna

__all__ = ["Budget", "Trial", "search", "searched"]

_FACTOR = 5.0
"""A number is searched from a fifth of its default to five times it."""
_KEPT = ("seed",)


@dataclass(frozen=True, slots=True)
class Budget:
    """When a search ends: after so many trials or seconds, whichever comes first."""

    trials: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What was tried and what came out; None where that failed, and why."""

    number: int
    hyperparameters: dict[str, Any]
    value: float | None
    error: str | None = None


def search(
    score: Callable[[dict[str, Any]], float],
    defaults: Mapping[str, Any],
    *,
    budget: Budget,
    seed: int,
    maximise: bool = True,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> dict[str, Any]:
    """The hyperparameters of the best ``score``; the first trial is the defaults, so it is never worse than these.

    defaults: of those that may change. A trial that raises ModelError counts as failed. Raises ConfigError without
    optuna, ModelError where every trial failed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ConfigError("a search needs optuna, which is not installed: pip install 'streamlens[train]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if maximise else "minimize", sampler=optuna.samplers.TPESampler(seed=seed)
    )
    free = {name: defaults[name] for name in searched(defaults)}
    study.enqueue_trial(free)
    why = "no trial"

    def objective(trial: optuna.Trial) -> float:
        nonlocal why
        chosen = {name: _draw(trial, name, default) for name, default in free.items()}
        try:
            value = score(chosen)
        except ModelError as error:
            why = str(error)
            on_trial(Trial(trial.number, chosen, None, why))
            raise optuna.TrialPruned from error
        on_trial(Trial(trial.number, chosen, value))
        return value

    study.optimize(objective, n_trials=budget.trials, timeout=budget.seconds)
    try:
        return dict(study.best_params)
    except ValueError:
        raise ModelError(f"search: expected a trial that works, found none in {len(study.trials)} ({why})") from None


def searched(defaults: Mapping[str, Any]) -> list[str]:
    """Which hyperparameters are searched: numbers above 0 and flags.

    What is 0, a word or nothing by default is a choice and no matter of degree: it stays.

    >>> searched({"l2": 300.0, "top_weights": 0, "loss": "bpr", "bias": True, "seed": 0})
    ['l2', 'bias']
    """
    return [name for name, value in defaults.items() if name not in _KEPT and isinstance(value, int | float) and value]


def _draw(trial: optuna.Trial, name: str, default: float) -> float | bool:
    """A flag as either; a number on a logarithmic scale around its default; a share, below 1, stays one."""
    if isinstance(default, bool):
        return bool(trial.suggest_categorical(name, [False, True]))
    if isinstance(default, int):
        return trial.suggest_int(name, max(1, round(default / _FACTOR)), round(default * _FACTOR), log=True)
    highest = default * _FACTOR if default >= 1.0 else min(default * _FACTOR, (1.0 + default) / 2)
    return trial.suggest_float(name, default / _FACTOR, highest, log=True)

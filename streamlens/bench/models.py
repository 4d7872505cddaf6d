"""The four models trained and judged on one synthetic world, as `streamlens experiment` does it."""

from __future__ import annotations

import time
from typing import Any

from models.experiment import Experiment, Outcome, run_experiment
from streams.errors import ModelError

__all__ = ["COMPETITORS", "run"]

COMPETITORS = ("mf", "neumf", "two-tower", "vae")
_USERS_OF, _MOVIES_OF = 1_000_000 // 6_000, 1_000_000 // 4_000
"""Ratings for each user and each movie, of 6,000 users and 4,000 movies at a million."""


def run(events: int = 1_000_000) -> dict[str, Any]:
    """Seconds to train all of them and judge them by random splits, the yardsticks beside them, on all cores.

    Raises ModelError where one fails.
    """
    users, movies = max(1, events // _USERS_OF), max(1_500, events // _MOVIES_OF)
    data = f"synthetic:users={users},ratings={events},movies={movies}"
    started = time.monotonic()
    outcomes = list(run_experiment(Experiment(COMPETITORS, "random", data)))
    total = time.monotonic() - started
    for outcome in outcomes:
        if outcome.error:
            raise ModelError(f"bench models: {outcome.model} failed: {outcome.error}")
    figures: dict[str, Any] = {"ratings": events, "users": users, "movies": movies, "total_seconds": round(total, 1)}
    for outcome in outcomes:
        name = outcome.model.replace("-", "_")
        figures[f"{name}_seconds"] = round(outcome.seconds, 1)
        figures |= {f"{name}_{measure.partition('@')[0]}": round(v, 4) for measure, v in _measures(outcome).items()}
    return figures


def _measures(outcome: Outcome) -> dict[str, float]:
    found = {name: interval.value for one in outcome.evaluations for name, interval in one.measures.items()}
    return {name: found[name] for name in ("ndcg@10", "rmse") if name in found}

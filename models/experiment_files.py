"""An experiment on disk: a plain folder that any tool reads.

- ``experiment.json``: what was asked, of which data and versions, and each outcome with its measures;
- ``measures.parquet``: model, seed, measure, value, low, high;
- ``users.parquet``: the sums behind each measure by user, for paired comparisons later on;
- ``epochs.parquet`` and ``learning_curves.png``: what training said after each epoch, where a model trains in epochs;
- ``trials.parquet``: what a search tried; ``errors/``: tracebacks.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.experiment import Experiment, Outcome
from models.provenance import library_versions
from models.search import Trial
from streams.errors import DataError

__all__ = ["EXPERIMENT_JSON", "Score", "read_experiment", "scores", "write_experiment"]

EXPERIMENT_JSON = "experiment.json"


@dataclass(frozen=True, slots=True)
class Score:
    """A measure of a model over seeds: the mean; low and high: the interval over users of one seed, or, over several
    seeds, the mean less and plus the standard deviation between them.
    """

    value: float
    low: float
    high: float
    n_seeds: int


def scores(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Score]]:
    """By model and measure, of those that did not fail; models in the order of their first outcome."""
    found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for outcome in outcomes:
        for evaluation in outcome.evaluations:
            for name, interval in evaluation.measures.items():
                values = found.setdefault(outcome.model, {}).setdefault(name, [])
                values.append((interval.value, interval.low, interval.high))
    return {model: {name: _score(values) for name, values in measures.items()} for model, measures in found.items()}


def _score(values: list[tuple[float, float, float]]) -> Score:
    if len(values) == 1:
        return Score(*values[0], 1)
    means = np.array([value for value, _, _ in values])
    mean, spread = float(means.mean()), float(means.std(ddof=1))
    return Score(mean, mean - spread, mean + spread, len(values))


def write_experiment(
    folder: Path,
    experiment: Experiment,
    outcomes: Sequence[Outcome],
    trials: Mapping[str, Sequence[Trial]],
    *,
    fingerprint: str,
    seconds: float,
) -> None:
    """Write ``folder``, which may exist."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(folder, outcomes, trials)
    for outcome in outcomes:
        if outcome.details:
            (folder / "errors").mkdir(exist_ok=True)
            (folder / "errors" / f"{outcome.model}-{outcome.seed}.txt").write_text(outcome.details)
    about = {
        "experiment": msgspec.to_builtins(experiment),
        "searched_by": experiment.measure if experiment.search else None,
        "data_fingerprint": fingerprint,
        "seconds": round(seconds, 3),
        "python": platform.python_version(),
        "versions": library_versions(),
        "outcomes": [_described(outcome) for outcome in outcomes],
    }
    (folder / EXPERIMENT_JSON).write_bytes(msgspec.json.format(msgspec.json.encode(about)))


def read_experiment(folder: Path) -> dict[str, Any]:
    """What ``experiment.json`` of a folder says. Raises DataError where there is none."""
    path = folder / EXPERIMENT_JSON
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected what `streamlens experiment` writes, found {error}") from None
    return content


def _described(outcome: Outcome) -> dict[str, Any]:
    return {
        "model": outcome.model,
        "seed": outcome.seed,
        "hyperparameters": outcome.hyperparameters,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
        "settings": {name: value for one in outcome.evaluations for name, value in one.settings.items()},
        "n_users": max((len(one.user_ids) for one in outcome.evaluations), default=0),
        "n_lists": sum(one.n_lists for one in outcome.evaluations),
        "measures": {
            name: [interval.value, interval.low, interval.high]
            for one in outcome.evaluations
            for name, interval in one.measures.items()
        },
    }


def _write_tables(folder: Path, outcomes: Sequence[Outcome], trials: Mapping[str, Sequence[Trial]]) -> None:
    evaluated = [(outcome, one) for outcome in outcomes for one in outcome.evaluations]
    measures = [
        {"model": o.model, "seed": o.seed, "measure": n, "value": i.value, "low": i.low, "high": i.high}
        for o, one in evaluated
        for n, i in one.measures.items()
    ]
    users = [
        pa.table(
            {
                "model": [o.model] * len(one.user_ids),
                "seed": [o.seed] * len(one.user_ids),
                "measure": [name] * len(one.user_ids),
                "user_id": one.user_ids,
                "numerator": numerator,
                "denominator": denominator,
            }
        )
        for o, one in evaluated
        for name, (numerator, denominator) in one.sums.items()
    ]
    epochs = [
        {"model": o.model, "seed": o.seed, "fit": fit, "epoch": e.number, "loss": e.loss, "validation": e.validation}
        for o in outcomes
        for fit, e in o.epochs
    ]
    tried = [
        {
            "model": model,
            "trial": trial.number,
            "hyperparameters": json.dumps(trial.hyperparameters),
            "value": trial.value,
            "error": trial.error,
        }
        for model, of_model in trials.items()
        for trial in of_model
    ]
    for name, rows in (("measures", measures), ("epochs", epochs), ("trials", tried)):
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    if users:
        pq.write_table(pa.concat_tables(users), folder / "users.parquet")

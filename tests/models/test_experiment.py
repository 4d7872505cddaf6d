"""Experiments: who is compared, what is written, and that one failure is one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from models.evaluation import evaluate
from models.experiment import Experiment, Outcome, Progress, run_experiment
from models.experiment_files import read_experiment, scores, write_experiment
from models.kinds import make_model
from models.learning_curves import draw_learning_curves
from models.protocols import Judge, load_rated_data
from models.recommender import Epoch
from models.search import Budget, Trial
from models.splits import random_split
from streams.errors import ConfigError, DataError

WORLD = "synthetic:users=60,ratings=3000,movies=800,seed=5"


def run(experiment: Experiment, **watch: Any) -> dict[tuple[str, int], Outcome]:
    return {(outcome.model, outcome.seed): outcome for outcome in run_experiment(experiment, **watch)}


def test_the_yardsticks_and_the_oracle_stand_beside_a_model(tmp_path: Path) -> None:
    experiment = Experiment(("ease",), data=WORLD, seeds=(0, 1), hyperparameters={"ease": {"l2": 50.0}})
    outcomes = run(experiment)
    assert set(outcomes) == {
        (name, seed) for name in ("ease", "popularity", "decayed-popularity", "oracle") for seed in (0, 1)
    }
    assert not any(outcome.error for outcome in outcomes.values())
    data = load_rated_data(WORLD)
    split = random_split(data.ratings, data.features, seed=1)
    alone = evaluate(make_model("ease", l2=50.0, seed=1).fit(split.train, split.features), split)
    (judged,) = outcomes["ease", 1].evaluations
    assert judged.measures["ndcg@10"].value == pytest.approx(alone.measures["ndcg@10"].value)
    assert outcomes["ease", 1].hyperparameters == make_model("ease", l2=50.0, seed=1).hyperparameters
    found = scores(list(outcomes.values()))["ease"]["ndcg@10"]
    values = [outcomes["ease", seed].evaluations[0].measures["ndcg@10"].value for seed in (0, 1)]
    assert (found.value, found.n_seeds) == (pytest.approx(np.mean(values)), 2)
    assert found.high - found.value == pytest.approx(np.std(values, ddof=1))


def test_what_fails_is_told_beside_what_does_not(tmp_path: Path) -> None:
    """EASE refuses a ridge that is no number when it is trained."""
    experiment = Experiment(("ease",), data=WORLD, hyperparameters={"ease": {"l2": float("nan")}})
    outcomes = run(experiment)
    assert outcomes["ease", 0].error
    assert not outcomes["ease", 0].evaluations
    assert outcomes["popularity", 0].evaluations
    write_experiment(tmp_path, experiment, list(outcomes.values()), {}, fingerprint="f", seconds=1.0)
    errors = {outcome["model"]: outcome["error"] for outcome in read_experiment(tmp_path)["outcomes"]}
    assert errors["ease"] == outcomes["ease", 0].error
    assert errors["popularity"] is None


@pytest.mark.parametrize("protocol", ["random", "temporal", "prequential"])
def test_a_search_judges_on_what_is_not_tested(protocol: str) -> None:
    data = load_rated_data(WORLD)
    judge = Judge(protocol, data)
    part = Judge(protocol, data, validation=True)
    if protocol == "prequential":
        assert part._stream().ratings.timestamp.max() < judge._stream().cutoff
        return
    (tested,), (searched,) = judge._splits(True, False), part._splits(True, False)

    def keys(*parts: Any) -> set[tuple[int, int]]:
        return {pair for part in parts for pair in zip(part.user_id.tolist(), part.movie_id.tolist(), strict=True)}

    assert keys(searched.train, searched.test) <= keys(tested.train)


def test_what_a_search_finds_is_what_is_judged() -> None:
    pytest.importorskip("optuna", reason="pip install 'streamlens[train]' to run this")
    tried: dict[str, Any] = {}
    told: list[Progress] = []
    experiment = Experiment(("ease",), data=WORLD, search=Budget(trials=4))
    outcomes = run(experiment, on_progress=told.append, on_trials=tried.__setitem__)
    best = max(tried["ease"], key=lambda trial: trial.value)
    (held_out,) = Judge("random", load_rated_data(WORLD), validation=True).judge(lambda: make_model("ease"))
    assert tried["ease"][0].value == pytest.approx(held_out.measures["ndcg@10"].value), "searched on what is tested"
    assert outcomes["ease", 0].hyperparameters["l2"] == best.hyperparameters["l2"]
    assert [progress.done for progress in told if progress.phase == "search"] == [1, 2, 3, 4]


def test_the_stream_says_how_far_it_is_and_how_often_models_are_refitted() -> None:
    told: list[Progress] = []
    outcomes = run(Experiment(("ease",), "prequential", WORLD, seeds=(0, 1), refit_days=700), on_progress=told.append)
    (judged,) = outcomes["ease", 0].evaluations
    assert judged.settings["refit_days"] == 700
    refits = [progress for progress in told if (progress.model, progress.seed) == ("ease", 0)]
    assert [progress.done for progress in refits] == list(range(1, int(judged.settings["refits"]) + 1))
    assert ("popularity", 0) in outcomes
    assert ("popularity", 1) not in outcomes  # it would be the same


def test_the_folder_holds_all_that_was_measured(tmp_path: Path) -> None:
    experiment = Experiment(("ease",), data=WORLD)
    outcomes = list(run_experiment(experiment))
    trained = Outcome("mf", 0, {}, 1.0, epochs=((0, Epoch(1, 0.5, None)), (0, Epoch(2, 0.4, 0.1))))
    trials = {"ease": [Trial(0, {"l2": 3.0}, 0.5), Trial(1, {"l2": 4.0}, None, "diverged")]}
    write_experiment(tmp_path / "e", experiment, [*outcomes, trained], trials, fingerprint="abc", seconds=2.0)
    about = read_experiment(tmp_path / "e")
    assert about["data_fingerprint"] == "abc"
    assert about["experiment"]["data"] == WORLD
    assert "numpy" in about["versions"]
    measures = pq.read_table(tmp_path / "e" / "measures.parquet").to_pylist()
    (ndcg,) = (row for row in measures if row["model"] == "ease" and row["measure"] == "ndcg@10")
    users = pq.read_table(tmp_path / "e" / "users.parquet").to_pylist()
    own = [row for row in users if row["model"] == "ease" and row["measure"] == "ndcg@10"]
    shown, possible = sum(row["numerator"] for row in own), sum(row["denominator"] for row in own)
    assert shown / possible == pytest.approx(ndcg["value"])
    assert len(pq.read_table(tmp_path / "e" / "epochs.parquet")) == 2
    assert json.loads(pq.read_table(tmp_path / "e" / "trials.parquet").to_pylist()[1]["hyperparameters"]) == {"l2": 4.0}
    with pytest.raises(DataError, match="streamlens experiment"):
        read_experiment(tmp_path)


def test_learning_curves_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'streamlens[train]' to run this")
    assert not draw_learning_curves([Outcome("ease", 0, {}, 1.0)], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
    epochs = tuple((fit, Epoch(n, 1 / n, None if fit else n / 10)) for fit in (0, 1) for n in (1, 2, 3))
    assert draw_learning_curves([Outcome("mf", s, {}, 1.0, epochs=epochs) for s in (0, 1)], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"models": ("nope",)}, "found 'nope'"),
        ({"models": ()}, "found none"),
        ({"models": ("ease", "ease")}, "each once"),
        ({"protocol": "leave-one-out"}, "random, temporal, prequential"),
        ({"seeds": (-1,)}, "from 0 on"),
        ({"k": 0}, "1 or more"),
        ({"search": Budget()}, "found neither"),
        ({"hyperparameters": {"vae": {"width": 8}}}, "models that are compared, found vae's"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Experiment(**{"models": ("ease",), **asked})

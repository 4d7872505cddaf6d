"""Measure the models and write docs/results.md: ``make results``.

Each experiment is a command of its own, whose folder under ``var/results/`` is kept: what is there is not measured
again, so that a run that was stopped goes on where it was. Every figure of the page is read from these folders.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from models.bootstrap import Interval, paired_difference
from models.evaluation import evaluate
from models.experiment import ORACLE, YARDSTICKS
from models.experiment_files import EXPERIMENT_JSON, read_experiment
from models.exposure import ExposureCap
from models.interactions import Histories
from models.kinds import MODELS, make_model
from models.protocols import Judge, load_rated_data
from models.splits import random_split
from streams.dataset import DEFAULT_DATASET

PAGE = Path(__file__).parent / "results.md"
FOLDER = Path("var") / "results"
COMPETITORS = tuple(name for name in MODELS if name not in YARDSTICKS)
SYNTHETIC = "synthetic:users=1000,ratings=150000,movies=3000"
LATER = ("--protocol", "prequential", "--live-from", "2015-05-01")
"""The live part of ml-latest-small less its first third, on which the settings for streams were chosen."""
RECENCY: Mapping[str, float] = {"recency_half_life": 2.0, "recency_floor": 0.03}
NEXT = {"learning_rate": 1e-3}
"""Of two-tower: to learn what is rated next, at the cost of what is rated at all."""
EXPERIMENTS: Mapping[str, tuple[str, ...]] = {
    "random": ("--protocol", "random", "--seeds", "0,1,2,3,4"),
    "prequential": ("--protocol", "prequential"),
    "prequential-later": ("--models", "two-tower,vae", *LATER),
    "prequential-recency": (
        *("--models", "two-tower,vae,ease", *LATER),
        *(f"--set={model}.{name}={value}" for model in ("ease", "vae", "two-tower") for name, value in RECENCY.items()),
        *(f"--set=two-tower.{name}={value}" for name, value in NEXT.items()),
    ),
    "temporal": ("--protocol", "temporal", "--seeds", "0,1,2,3,4"),
    "synthetic": ("--protocol", "random", "--data", SYNTHETIC),
}
TRIED: tuple[tuple[str, dict[str, float]], ...] = (
    ("ease", {}),
    *(
        ("ease", {"recency_half_life": half_life, "recency_floor": floor})
        for half_life in (1.0, 2.0, 4.0, 8.0)
        for floor in (0.03, 0.1)
    ),
    ("vae", dict(RECENCY)),
    ("two-tower", dict(RECENCY)),
    ("two-tower", {**RECENCY, **NEXT}),
)
"""What the settings for streams were chosen from, by the click rate before the part they are judged on."""
CAPS = (0, 4, 2, 1)
LISTS = ("ndcg", "precision", "recall", "map", "mrr", "hit_rate", "coverage", "diversity")
SHOWN = ("ctr", *(f"{name}@10" for name in LISTS))
STARS = ("rmse", "mae")


def command_of(name: str) -> list[str]:
    models = () if "--models" in EXPERIMENTS[name] else ("--models", ",".join(COMPETITORS))
    return ["experiment", *models, *EXPERIMENTS[name], "--out", str(FOLDER / name)]


def measure(name: str) -> dict[str, Any]:
    """The experiment of that name, from its folder or measured now; a model that fails is a row that says so."""
    if not (FOLDER / name / EXPERIMENT_JSON).exists():
        done = subprocess.run([sys.executable, "-m", "streamlens", *command_of(name)], check=False)
        if done.returncode not in (0, 1):
            sys.exit(done.returncode)
    return read_experiment(FOLDER / name)


def choice(data_name: str = DEFAULT_DATASET) -> list[dict[str, Any]]:
    """The click rate of each of ``TRIED``, on the last fifth of what is before the part that is judged; kept by row."""
    path = FOLDER / "choice.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    since = datetime.fromisoformat(LATER[-1]).replace(tzinfo=UTC)
    data = replace(load_rated_data(data_name), cutoff=int(since.timestamp()))
    judge = Judge("prequential", data, validation=True)
    for model, chosen in TRIED[len(rows) :]:
        (found,) = judge.judge(partial(make_model, model, **chosen))
        ctr = found.measures["ctr"]
        rows.append({"model": model, "chosen": chosen, "ctr": [ctr.value, ctr.low, ctr.high], "slates": found.n_lists})
        sys.stderr.write(f"choice: {model} {chosen}: {ctr.value:.4f}\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    return rows


def costs(model: str = "vae", data_name: str = DEFAULT_DATASET) -> dict[str, Any]:
    """What caps on exposure give in coverage and take in NDCG, random split of seed 0; and the time of one list."""
    path = FOLDER / "costs.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    data = load_rated_data(data_name)
    split = random_split(data.ratings, data.features)
    trained = make_model(model).fit(split.train, split.features)
    lists = []
    for cap in CAPS:
        measures = evaluate(ExposureCap(trained, cap) if cap else trained, split).measures
        lists.append({"cap": cap, "ndcg": measures["ndcg@10"].value, "coverage": measures["coverage@10"].value})
    histories, times = Histories.of_users(split.train, trained.user_ids), []
    for row in range(len(histories)):
        started = time.perf_counter()
        trained.recommend_for_history(histories.slice(row, row + 1), 10)
        times.append(time.perf_counter() - started)
    found = {"model": model, "lists": lists, "p95_ms": float(np.quantile(times, 0.95)) * 1_000}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def serving_p99_ms() -> float | None:
    """None where there is no such benchmark."""
    done = subprocess.run(
        [sys.executable, "-m", "streamlens", "bench", "serve", "--json"], capture_output=True, text=True, check=False
    )
    return float(json.loads(done.stdout)["p99_ms"]) if done.returncode == 0 else None


def values(experiment: Mapping[str, Any], measure: str) -> dict[str, tuple[float, float, float]]:
    """By model: value, low, high; over seeds the mean less and plus the standard deviation."""
    found: dict[str, list[list[float]]] = {}
    for outcome in experiment["outcomes"]:
        if measure in outcome["measures"]:
            found.setdefault(outcome["model"], []).append(outcome["measures"][measure])
    return {model: _over_seeds(rows) for model, rows in found.items()}


def _over_seeds(rows: list[list[float]]) -> tuple[float, float, float]:
    if len(rows) == 1:
        return rows[0][0], rows[0][1], rows[0][2]
    means = np.array([row[0] for row in rows])
    spread = float(means.std(ddof=1))
    return float(means.mean()), float(means.mean()) - spread, float(means.mean()) + spread


def table(experiment: Mapping[str, Any], headline: tuple[str, ...]) -> Iterator[str]:
    """Models by measures; ``headline`` with their intervals. The best of each column, the oracle aside, is bold."""
    measures = [name for name in (*SHOWN, *STARS) if values(experiment, name)]
    models = list(dict.fromkeys(outcome["model"] for outcome in experiment["outcomes"]))
    yield f"| model | {' | '.join(measures)} |"
    yield f"|---|{'---|' * len(measures)}"
    for model in models:
        error = next((o["error"] for o in experiment["outcomes"] if o["model"] == model and o["error"]), None)
        cells = [_cell(values(experiment, name), model, name in headline, name in STARS) for name in measures]
        yield f"| {model} | {' | '.join(cells)} |" + (f" failed: {error}" if error else "")


def _cell(found: Mapping[str, tuple[float, float, float]], model: str, with_interval: bool, lowest: bool) -> str:
    if model not in found:
        return "-"
    value, low, high = found[model]
    others = [found[name][0] for name in found if name != ORACLE]
    best = model != ORACLE and value == (min if lowest else max)(others)
    text = f"**{value:.4f}**" if best else f"{value:.4f}"
    return f"{text} ({low:.4f} to {high:.4f})" if with_interval else text


def differences(name: str, measure: str) -> Iterator[str]:
    """Each competitor's measure less that of each yardstick, on the same users."""
    rows = pq.read_table(FOLDER / name / "users.parquet", filters=[("measure", "=", measure)]).to_pylist()
    first = min(row["seed"] for row in rows)
    sums = {
        model: tuple(
            np.array([row[part] for row in rows if row["model"] == model and row["seed"] == first])
            for part in ("numerator", "denominator")
        )
        for model in {row["model"] for row in rows}
    }
    yield f"| {measure} less that of | {' | '.join(YARDSTICKS)} |"
    yield f"|---|{'---|' * len(YARDSTICKS)}"
    for model in (name for name in COMPETITORS if name in sums):
        found = [paired_difference(sums[model], sums[other]) for other in YARDSTICKS]  # type: ignore[arg-type]
        yield f"| {model} | {' | '.join(map(_difference, found))} |"


def _difference(found: Interval) -> str:
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def targets(random: Mapping[str, Any], cost: Mapping[str, Any], p99_ms: float | None) -> Iterator[str]:
    """What was asked for, what was measured on random splits, and what stands in the way where that falls short."""
    data = load_rated_data(random["experiment"]["data"])
    split = random_split(data.ratings, data.features)
    _, n_held_out = np.unique(split.test.user_id, return_counts=True)
    ceiling = float(np.minimum(n_held_out, 10).mean() / 10)
    rated = np.isin(data.features.movie_id, split.train.movie_id)
    counts = np.bincount(np.searchsorted(data.features.movie_id, split.train.movie_id), minlength=len(rated))
    rmse, precision = _best(random, "rmse", lowest=True), _best(random, "precision@10")
    widest = cost["lists"][-1]
    most = len(n_held_out) * 10 / len(rated)
    slowest = max(outcome["seconds"] for outcome in random["outcomes"]) / 60
    yield "| target | measured | why |"
    yield "|---|---|---|"
    yield f"| RMSE < 0.85 | {rmse[1]:.4f} ({rmse[0]}) | random 90/10 |"
    yield (
        f"| precision@10 > 0.35 | {precision[1]:.4f} ({precision[0]}) | a perfect list would have {ceiling:.2f}: "
        f"half of the users have {int(np.median(n_held_out))} held-out ratings or fewer |"
    )
    none = cost["lists"][0]
    yield (
        f"| coverage > 60 % | {widest['coverage']:.1%} ({cost['model']}, no movie in two lists) | at an NDCG@10 of "
        f"{widest['ndcg']:.3f} beside {none['ndcg']:.3f} at {none['coverage']:.1%} without a cap: "
        f"all lists together have places for {most:.1%} of the movies, and {(counts < 5).mean():.0%} of these "
        "have fewer than 5 ratings to learn from |"
    )
    p99 = "" if p99_ms is None else f"; `streamlens bench serve`: p99 {p99_ms:.1f} ms"
    yield f"| p95 < 50 ms | {cost['p95_ms']:.1f} ms ({cost['model']}) | a list by fold-in, one user at a time{p99} |"
    yield f"| training < 90 min | {slowest:.1f} min, the slowest, judged too | two cores, no GPU |"


def _best(experiment: Mapping[str, Any], measure: str, *, lowest: bool = False) -> tuple[str, float]:
    found = {name: value[0] for name, value in values(experiment, measure).items() if name != ORACLE}
    if not found:
        return "no model", float("nan")
    name = (min if lowest else max)(found, key=lambda model: found[model])
    return name, found[name]


def verdict(experiment: Mapping[str, Any], measure: str) -> str:
    """How the best competitor stands to the two yardsticks that it is to pass."""
    found = {name: value[0] for name, value in values(experiment, measure).items()}
    rivals = [name for name in COMPETITORS if name in found and name not in YARDSTICKS]
    if not rivals:
        return "No competitor was measured."
    best = max(rivals, key=lambda name: found[name])
    shares = [found[best] / found[name] - 1 if found[name] else np.nan for name in ("ease", "decayed-popularity")]
    said = [f"{abs(share):.1%} {'above' if share >= 0 else 'below'}" for share in shares]
    return f"The best of the four by {measure}, {best}, is {said[0]} EASE and {said[1]} decayed popularity."


def coverage_table(cost: Mapping[str, Any]) -> Iterator[str]:
    yield f"Of {cost['model']}, random split of seed 0, where lists are made together and no movie is in more than:"
    yield ""
    yield "| lists | coverage@10 | ndcg@10 |"
    yield "|---|---|---|"
    for row in cost["lists"]:
        yield f"| {row['cap'] or 'any number'} | {row['coverage']:.1%} | {row['ndcg']:.4f} |"


def choice_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"The settings were chosen on {rows[0]['slates']:,} slates before {LATER[-1]}, from these:"
    yield ""
    yield "| model | settings | ctr |"
    yield "|---|---|---|"
    for row in rows:
        value, low, high = row["ctr"]
        chosen = ", ".join(f"{name} {setting:g}" for name, setting in row["chosen"].items()) or "defaults"
        yield f"| {row['model']} | {chosen} | {value:.4f} ({low:.4f} to {high:.4f}) |"


def page(
    experiments: Mapping[str, Mapping[str, Any]],
    cost: Mapping[str, Any],
    chosen_from: Sequence[Mapping[str, Any]],
    p99_ms: float | None,
) -> Iterator[str]:
    refit_days = experiments["prequential"]["experiment"]["refit_days"]
    yield "# Results"
    yield ""
    yield "Written by `make results`, from measurements; not by hand. What each protocol and measure is:"
    yield "[evaluation.md](evaluation.md). In brackets: a 95 % interval over users, or, of several seeds, the mean less"
    yield "and plus the standard deviation between them. Bold: the best."
    titles = {
        "prequential": f"On ml-latest-small, slate by slate, refitted every {refit_days} event days",
        "random": "On ml-latest-small, random splits, seeds 0 to 4",
        "temporal": "On ml-latest-small, one moment in time, seeds 0 to 4",
        "synthetic": f"On `{SYNTHETIC}`, random split, beside the truth",
        "prequential-later": f"The same slates from {LATER[-1]} on",
        "prequential-recency": f"The same slates from {LATER[-1]} on, the latest ratings of each history counting most",
    }
    yield from ("", "## Targets", "", *targets(experiments["random"], cost, p99_ms), "", *coverage_table(cost))
    for name, experiment in experiments.items():
        headline = "ctr" if "prequential" in name else "ndcg@10"
        yield from ("", f"## {titles[name]}", "")
        yield f"`streamlens {' '.join(command_of(name)[:-2])}`, {experiment['seconds'] / 60:.1f} min."
        if name == "prequential-recency":
            yield from ("", *choice_table(chosen_from))
        yield from ("", *table(experiment, (headline, "rmse")), "", verdict(experiment, headline), "")
        yield from differences(name, headline)
    versions = ", ".join(f"{name} {version}" for name, version in experiments["random"]["versions"].items())
    yield from ("", f"Python {experiments['random']['python']}, {versions}.")


def main() -> None:
    experiments = {name: measure(name) for name in EXPERIMENTS}
    PAGE.write_text("\n".join(page(experiments, costs(), choice(), serving_p99_ms())) + "\n")


if __name__ == "__main__":
    main()

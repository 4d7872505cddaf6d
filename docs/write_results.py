"""Measure the models and write docs/results.md: ``make results``.

Each experiment is a command of its own, whose folder under ``var/results/`` is kept: what is there is not measured
again. Every figure of the page is read from these folders.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from models.bootstrap import Interval, paired_difference
from models.experiment import ORACLE, YARDSTICKS
from models.experiment_files import EXPERIMENT_JSON, read_experiment
from models.kinds import MODELS
from models.protocols import load_rated_data
from models.splits import random_split

PAGE = Path(__file__).parent / "results.md"
FOLDER = Path("var") / "results"
COMPETITORS = tuple(name for name in MODELS if name not in YARDSTICKS)
SYNTHETIC = "synthetic:users=1000,ratings=150000,movies=3000"
EXPERIMENTS: Mapping[str, tuple[str, ...]] = {
    "prequential": ("--protocol", "prequential"),
    "random": ("--protocol", "random", "--seeds", "0,1,2,3,4"),
    "temporal": ("--protocol", "temporal", "--seeds", "0,1,2,3,4"),
    "synthetic": ("--protocol", "random", "--data", SYNTHETIC),
    "synthetic-prequential": ("--protocol", "prequential", "--data", SYNTHETIC),
}
LISTS = ("ndcg", "precision", "recall", "map", "mrr", "hit_rate", "coverage", "diversity")
SHOWN = ("ctr", *(f"{name}@10" for name in LISTS))
STARS = ("rmse", "mae")


def command_of(name: str) -> list[str]:
    return ["experiment", "--models", ",".join(COMPETITORS), *EXPERIMENTS[name], "--out", str(FOLDER / name)]


def measure(name: str) -> dict[str, Any]:
    """The experiment of that name, from its folder or measured now; a model that fails is a row that says so."""
    if not (FOLDER / name / EXPERIMENT_JSON).exists():
        done = subprocess.run([sys.executable, "-m", "streamlens", *command_of(name)], check=False)
        if done.returncode not in (0, 1):
            sys.exit(done.returncode)
    return read_experiment(FOLDER / name)


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


def targets(random: Mapping[str, Any], p99_ms: float | None) -> Iterator[str]:
    """What was asked for, what was measured on random splits, and what stands in the way where that falls short."""
    data = load_rated_data(random["experiment"]["data"])
    split = random_split(data.ratings, data.features)
    _, n_held_out = np.unique(split.test.user_id, return_counts=True)
    ceiling = float(np.minimum(n_held_out, 10).mean() / 10)
    rated = np.isin(data.features.movie_id, split.train.movie_id)
    counts = np.bincount(np.searchsorted(data.features.movie_id, split.train.movie_id), minlength=len(rated))
    rmse, precision = _best(random, "rmse", lowest=True), _best(random, "precision@10")
    coverage, ndcg = _best(random, "coverage@10"), _best(random, "ndcg@10")
    of_widest = values(random, "ndcg@10").get(coverage[0], (np.nan,))[0]
    slowest = max(outcome["seconds"] for outcome in random["outcomes"]) / 60
    yield "| target | measured | why |"
    yield "|---|---|---|"
    yield f"| RMSE < 0.85 | {rmse[1]:.4f} ({rmse[0]}) | random 90/10 |"
    yield (
        f"| precision@10 > 0.35 | {precision[1]:.4f} ({precision[0]}) | a perfect list would have {ceiling:.2f}: "
        f"half of the users have {int(np.median(n_held_out))} held-out ratings or fewer |"
    )
    yield (
        f"| coverage > 60 % | {coverage[1]:.1%} ({coverage[0]}) | at an NDCG@10 of {of_widest:.3f} beside "
        f"{ndcg[1]:.3f} ({ndcg[0]}); {(counts < 5).mean():.0%} of the movies have fewer than 5 ratings to learn from |"
    )
    p99 = "not measured" if p99_ms is None else f"p99 {p99_ms:.1f} ms"
    yield f"| p95 < 50 ms | {p99} | `streamlens bench serve` |"
    yield f"| training < 90 min | {slowest:.1f} min, the slowest, judged too | two cores, no GPU |"


def _best(experiment: Mapping[str, Any], measure: str, *, lowest: bool = False) -> tuple[str, float]:
    found = {name: value[0] for name, value in values(experiment, measure).items() if name != ORACLE}
    if not found:
        return "no model", float("nan")
    name = (min if lowest else max)(found, key=lambda model: found[model])
    return name, found[name]


def page(experiments: Mapping[str, Mapping[str, Any]], p99_ms: float | None) -> Iterator[str]:
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
        "synthetic-prequential": f"On `{SYNTHETIC}`, slate by slate, refitted every {refit_days} event days",
    }
    yield from ("", "## Targets", "", *targets(experiments["random"], p99_ms))
    for name, experiment in experiments.items():
        headline = "ctr" if "prequential" in name else "ndcg@10"
        yield from ("", f"## {titles[name]}", "")
        yield f"`streamlens {' '.join(command_of(name)[:-2])}`, {experiment['seconds'] / 60:.1f} min."
        yield from ("", *table(experiment, (headline, "rmse")), "", *differences(name, headline))
    versions = ", ".join(f"{name} {version}" for name, version in experiments["random"]["versions"].items())
    yield from ("", f"Python {experiments['random']['python']}, {versions}.")


def main() -> None:
    experiments = {name: measure(name) for name in EXPERIMENTS}
    PAGE.write_text("\n".join(page(experiments, serving_p99_ms())) + "\n")


if __name__ == "__main__":
    main()

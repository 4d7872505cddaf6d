"""Models trained and judged side by side: each (model, seed) a job in a process of its own, the yardsticks among them.

First each model's hyperparameters are searched, where that was asked for; then every model is judged by the protocol.
A model that fails has its error in place of its measures.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from models.evaluation import Evaluation
from models.kinds import MODELS, make_model
from models.prequential import REFIT_DAYS
from models.protocols import OBJECTIVES, PROTOCOLS, Judge, load_rated_data
from models.recommender import Epoch, Recommender
from models.search import Budget, Trial, search
from models.workers import Died, Tell, run_jobs
from streams.dataset import DEFAULT_DATASET
from streams.errors import ConfigError, StreamLensError

__all__ = ["ORACLE", "YARDSTICKS", "Experiment", "OnProgress", "Outcome", "Progress", "run_experiment"]

YARDSTICKS = ("popularity", "decayed-popularity", "ease")
"""They stand beside every table."""
ORACLE = "oracle"
_LOWER_IS_BETTER = ("rmse", "mae")


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared. Raises ConfigError for what does not exist.

    hyperparameters: by model, in place of its defaults; these are not searched. search: None for none. objective: what
    a search improves, by default that of the protocol. live_from: where the live part of
    ``prequential`` begins, seconds since the epoch; by default where a replay's does. workers: jobs at once, by default
    one for each core.
    """

    models: tuple[str, ...]
    protocol: str = "random"
    data: str = DEFAULT_DATASET
    seeds: tuple[int, ...] = (0,)
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Budget | None = None
    objective: str | None = None
    k: int = 10
    refit_days: int = REFIT_DAYS
    live_from: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {self.protocol!r}")
        for name in (*self.models, *self.hyperparameters):
            if name not in MODELS:
                raise ConfigError(f"models: expected some of {', '.join(MODELS)}, found {name!r}")
        if not self.models or len(set(self.models)) < len(self.models):
            raise ConfigError(f"models: expected each once, found {', '.join(self.models) or 'none'}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: expected different numbers from 0 on, found {self.seeds}")
        if min(self.k, self.refit_days) < 1 or (self.workers is not None and self.workers < 1):
            raise ConfigError(
                f"k, refit_days and workers: expected 1 or more, found {self.k}, {self.refit_days} and {self.workers}"
            )
        if self.search is not None and not (self.search.trials or self.search.seconds):
            raise ConfigError("search: expected a number of trials or seconds above 0, found neither")
        for name, chosen in self.hyperparameters.items():
            if name not in (*self.models, *YARDSTICKS):
                raise ConfigError(f"hyperparameters: expected those of models that are compared, found {name}'s")
            make_model(name, **chosen)

    @property
    def measure(self) -> str:
        """What a search improves, by its full name."""
        name = self.objective or OBJECTIVES[self.protocol]
        return name if name in ("ctr", *_LOWER_IS_BETTER) or "@" in name else f"{name}@{self.k}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model with one seed: evaluations, or an error. epochs: (fit, epoch), fits counted from 0."""

    model: str
    seed: int
    hyperparameters: dict[str, Any]
    seconds: float
    evaluations: tuple[Evaluation, ...] = ()
    epochs: tuple[tuple[int, Epoch], ...] = ()
    error: str | None = None
    details: str = ""
    """The traceback of an error that nobody foresaw."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. phase: "search", "epoch" or "refit"; total: None where nobody knows."""

    model: str
    seed: int
    phase: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class _Job:
    experiment: Experiment
    model: str
    seed: int
    hyperparameters: dict[str, Any]
    search: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    hyperparameters: dict[str, Any]
    trials: tuple[Trial, ...]
    error: str | None = None
    details: str = ""


OnProgress = Callable[[Progress], None]


def run_experiment(
    experiment: Experiment,
    *,
    on_progress: OnProgress = lambda progress: None,
    on_trials: Callable[[str, Sequence[Trial]], None] = lambda model, trials: None,
) -> Iterator[Outcome]:
    """Each (model, seed) as it is done, the yardsticks and, on a synthetic world, its oracle among them."""
    chosen = {name: dict(experiment.hyperparameters.get(name, {})) for name in MODELS}
    failed = set()
    if experiment.search is not None:
        jobs = [_Job(experiment, name, experiment.seeds[0], chosen[name], search=True) for name in experiment.models]
        for job, found in _run(_search, jobs, experiment, on_progress):
            if isinstance(found, Died):
                found = _Found({}, (), found.why)
            on_trials(job.model, found.trials)
            chosen[job.model] |= found.hyperparameters
            if found.error is not None:
                failed.add(job.model)
                yield Outcome(job.model, job.seed, chosen[job.model], 0.0, error=found.error, details=found.details)
    evaluations = [job for job in _evaluations(experiment, chosen) if job.model not in failed]
    for job, outcome in _run(_evaluate, evaluations, experiment, on_progress):
        if isinstance(outcome, Died):
            outcome = Outcome(job.model, job.seed, job.hyperparameters, 0.0, error=outcome.why)
        yield outcome


def _evaluations(experiment: Experiment, chosen: Mapping[str, dict[str, Any]]) -> list[_Job]:
    """The models with every seed; the yardsticks too where a seed changes what they are judged on, else once."""
    yardsticks = [name for name in YARDSTICKS if name not in experiment.models]
    if experiment.data.partition(":")[0] == "synthetic":
        yardsticks.append(ORACLE)
    seeds = experiment.seeds if experiment.protocol == "random" else experiment.seeds[:1]
    jobs = [_Job(experiment, name, seed, chosen[name]) for seed in experiment.seeds for name in experiment.models]
    return jobs + [_Job(experiment, name, seed, chosen.get(name, {})) for name in yardsticks for seed in seeds]


def _run(
    call: Callable[[_Job, Tell], Any], jobs: list[_Job], experiment: Experiment, on_progress: OnProgress
) -> Iterator[tuple[_Job, Any]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(experiment.workers or cores, max(1, len(jobs)))
    threads = max(1, cores // at_once)
    results = run_jobs(call, jobs, at_once=at_once, threads=threads, on_message=lambda _, said: on_progress(said))
    return ((jobs[number], result) for number, result in results)


def _evaluate(job: _Job, tell: Tell) -> Outcome:
    """In the child process."""
    started = time.monotonic()
    epochs: list[tuple[int, Epoch]] = []
    outcome = Outcome(job.model, job.seed, job.hyperparameters, 0.0)
    try:
        judge = _judge(job)
        if job.model == ORACLE:
            evaluations = judge.judge_oracle()
        else:
            evaluations = judge.judge(
                lambda: _make(job, job.hyperparameters),
                on_epoch=_epoch_teller(job, tell, epochs),
                on_refit=lambda done, total: tell(Progress(job.model, job.seed, "refit", done, total)),
            )
            outcome = replace(outcome, hyperparameters=_make(job, job.hyperparameters).hyperparameters)
        outcome = replace(outcome, evaluations=tuple(evaluations))
    except Exception as error:
        outcome = replace(outcome, error=_message(error), details=_details(error))
    return replace(outcome, epochs=tuple(epochs), seconds=time.monotonic() - started)


def _epoch_teller(job: _Job, tell: Tell, epochs: list[tuple[int, Epoch]]) -> Callable[[Epoch], None]:
    """Keeps each epoch with the number of its fit: a new fit begins where epochs do not rise."""

    def on_epoch(epoch: Epoch) -> None:
        fit, last = (epochs[-1][0], epochs[-1][1].number) if epochs else (0, 0)
        epochs.append((fit + (epoch.number <= last), epoch))
        tell(Progress(job.model, job.seed, "epoch", epoch.number, None))

    return on_epoch


def _search(job: _Job, tell: Tell) -> _Found:
    """In the child process: on a validation split, with the experiment's first seed."""
    experiment = job.experiment
    trials: list[Trial] = []
    measure, budget = experiment.measure, experiment.search or Budget(trials=1)

    def on_trial(trial: Trial) -> None:
        trials.append(trial)
        tell(Progress(job.model, job.seed, "search", len(trials), budget.trials))

    try:
        judge = replace(_judge(job), validation=True)
        of_stars = measure in _LOWER_IS_BETTER

        def score(chosen: dict[str, Any]) -> float:
            evaluations = judge.judge(
                lambda: _make(job, job.hyperparameters | chosen), ranks=not of_stars, rates=of_stars
            )
            measures = {name: found for one in evaluations for name, found in one.measures.items()}
            if measure not in measures:
                raise ConfigError(f"{job.model}: expected one of {', '.join(measures)} to search by, found {measure}")
            return measures[measure].value

        defaults = _make(job, job.hyperparameters).hyperparameters
        free = {name: value for name, value in defaults.items() if name not in job.hyperparameters}
        best = search(score, free, budget=budget, seed=job.seed, maximise=not of_stars, on_trial=on_trial)
    except Exception as error:
        return _Found({}, tuple(trials), _message(error), _details(error))
    return _Found(best, tuple(trials))


def _judge(job: _Job) -> Judge:
    e = job.experiment
    data = load_rated_data(e.data)
    if e.live_from is not None:
        data = replace(data, cutoff=e.live_from)
    return Judge(e.protocol, data, e.k, job.seed, e.refit_days)


def _make(job: _Job, hyperparameters: Mapping[str, Any]) -> Recommender:
    return make_model(job.model, **{"seed": job.seed, **hyperparameters})


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, StreamLensError) else f"{type(error).__name__}: {error}"


def _details(error: Exception) -> str:
    return "" if isinstance(error, StreamLensError) else "".join(traceback.format_exception(error))

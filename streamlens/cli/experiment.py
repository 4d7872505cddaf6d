"""``streamlens experiment``: models trained and judged side by side, beside the yardsticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import StatusLine, print_csv, print_json, print_table

if TYPE_CHECKING:
    from models.experiment import Experiment, OnProgress, Outcome, Progress
    from models.experiment_files import Score

__all__ = ["register"]

_SHOWN = ("ctr", "ndcg", "precision", "recall", "map", "mrr", "hit_rate", "coverage", "diversity", "rmse", "mae")


def register(app: typer.Typer) -> None:
    app.command()(experiment)


def experiment(
    models: Annotated[str, typer.Option("--models", metavar="A,B", help="Models, by name; the yardsticks are added.")],
    protocol: Annotated[
        str, typer.Option("--protocol", metavar="P", help="random, temporal or prequential: docs/evaluation.md.")
    ] = "random",
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="A folder, a release or synthetic.")
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="0,1", help="One training for each.")] = "0",
    chosen: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="MODEL.NAME=VALUE", help="A hyperparameter, as ease.l2=200; may be repeated."),
    ] = None,
    search: Annotated[
        int | None, typer.Option("--search", min=1, metavar="N", help="Search hyperparameters first, in N trials.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=1, metavar="SECONDS", help="Search for so long, each model.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", metavar="MEASURE", help="What a search improves: rmse, say.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="The length of lists.")] = 10,
    refit_days: Annotated[
        int, typer.Option("--refit-days", min=1, help="Event days between refits (prequential).")
    ] = 90,
    live_from: Annotated[
        datetime | None,
        typer.Option(
            "--live-from",
            formats=["%Y-%m-%d"],
            metavar="DAY",
            help="First live day (prequential); else that of week 10.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Trainings at once; by default one a core.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run's folder; by default one under var/.")
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """Train and judge models side by side: hyperparameters, measures with intervals and learning curves in a folder."""
    options.one_format(as_json, as_csv)
    from models.experiment import Experiment
    from models.search import Budget
    from streams.dataset import DEFAULT_DATASET

    asked = Experiment(
        models=tuple(filter(None, models.split(","))),
        protocol=protocol,
        data=data or DEFAULT_DATASET,
        seeds=_numbers(seeds),
        hyperparameters=_hyperparameters(chosen or []),
        search=Budget(search, budget) if search or budget else None,
        objective=objective,
        k=k,
        refit_days=refit_days,
        live_from=int(live_from.replace(tzinfo=UTC).timestamp()) if live_from else None,
        workers=workers,
    )
    folder = out or _new_folder(protocol)
    outcomes = _run(asked, folder, quiet)
    if as_json:
        from models.experiment_files import read_experiment

        print_json({"folder": str(folder), **read_experiment(folder)})
    else:
        _print(asked, outcomes, as_csv)
        if not as_csv:
            typer.echo(f"\nall of it: {folder}")
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


def _run(asked: Experiment, folder: Path, quiet: bool) -> list[Outcome]:
    import time

    from models.experiment import ORACLE, YARDSTICKS, run_experiment
    from models.experiment_files import write_experiment
    from models.learning_curves import draw_learning_curves
    from streams.dataset import open_dataset

    started = time.monotonic()
    fingerprint = open_dataset(asked.data).fingerprint  # and a dataset that is none is said before anything is trained
    trials: dict[str, Sequence[Any]] = {}
    with _watch(quiet) as show:
        outcomes = list(run_experiment(asked, on_progress=show, on_trials=trials.__setitem__))
    order = list(dict.fromkeys([*asked.models, *YARDSTICKS, ORACLE]))
    outcomes.sort(key=lambda outcome: (order.index(outcome.model), outcome.seed))
    seconds = time.monotonic() - started
    write_experiment(folder, asked, outcomes, trials, fingerprint=fingerprint, seconds=seconds)
    draw_learning_curves(outcomes, folder / "learning_curves.png")
    return outcomes


def _print(asked: Experiment, outcomes: list[Outcome], as_csv: bool) -> None:
    from models.experiment_files import scores

    found = scores(outcomes)
    present = {name for measures in found.values() for name in measures}
    columns = [name for start in _SHOWN for name in sorted(present) if name.partition("@")[0] == start]
    if as_csv:
        header = ["model", "measure", "value", "low", "high", "seeds", "error"]
        rows: list[list[object]] = [
            [model, name, *_plain(measures[name]), None]
            for model, measures in found.items()
            for name in columns
            if name in measures
        ]
        rows += [[o.model, None, None, None, None, None, o.error] for o in outcomes if o.error]
        print_csv(header, rows)
        return
    models = dict.fromkeys(outcome.model for outcome in outcomes)
    rows = []
    for model in models:
        cells = [_cell(found.get(model, {}).get(name), name in (asked.measure, "rmse")) for name in columns]
        rows.append([model, *cells, f"{sum(o.seconds for o in outcomes if o.model == model):.1f}"])
    print_table(["model", *columns, "seconds"], rows)
    typer.echo(f"\n{_said(asked, outcomes)}")
    for outcome in outcomes:
        if outcome.error:
            typer.echo(f"{outcome.model} (seed {outcome.seed}) failed: {outcome.error}")


def _said(asked: Experiment, outcomes: list[Outcome]) -> str:
    spread = "95 % interval over users" if len(asked.seeds) == 1 else "standard deviation over seeds"
    cadence = f", refitted every {asked.refit_days} event days" if asked.protocol == "prequential" else ""
    users = max((len(one.user_ids) for o in outcomes for one in o.evaluations), default=0)
    return f"{asked.protocol} on {asked.data}{cadence}; {users:,} users; in brackets: {spread}"


def _plain(score: Score) -> list[object]:
    return [score.value, score.low, score.high, score.n_seeds]


def _cell(score: Score | None, with_interval: bool) -> str:
    if score is None:
        return "-"
    if not with_interval:
        return f"{score.value:.4f}"
    if score.n_seeds > 1:
        return f"{score.value:.4f} (±{score.high - score.value:.4f})"
    return f"{score.value:.4f} ({score.low:.3f} {score.high:.3f})"


def _numbers(text: str) -> tuple[int, ...]:
    from streams.errors import ConfigError

    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"seeds: expected numbers such as 0,1,2, found {text!r}") from None


def _hyperparameters(texts: list[str]) -> dict[str, dict[str, Any]]:
    from streams.errors import ConfigError

    example = "MODEL.NAME=VALUE such as ease.l2=200"
    chosen: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, value = options.assigned(text, example)
        model, dot, name = target.partition(".")
        if not (dot and model and name):
            raise ConfigError(f"--set: expected {example}, found {text!r}")
        chosen.setdefault(model, {})[name] = value
    return chosen


def _new_folder(protocol: str) -> Path:
    import secrets
    from datetime import UTC, datetime

    from streamlens.settings import load_settings

    name = f"{protocol}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    return load_settings().var / "experiments" / name


@contextmanager
def _watch(quiet: bool) -> Iterator[OnProgress]:
    """A bar for each model and seed in a terminal, else plain lines."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        with StatusLine(quiet) as line:
            yield lambda progress: line.show(_line(progress))
        return
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    with Bars(console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            name = f"{progress.model} (seed {progress.seed}) {progress.phase}"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=progress.total)
            bars.update(tasks[name], completed=progress.done, total=progress.total)

        yield show


def _line(progress: Progress) -> str:
    total = f" of {progress.total}" if progress.total else ""
    return f"{progress.model} (seed {progress.seed})  {progress.phase} {progress.done}{total}"

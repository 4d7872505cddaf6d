"""``streamlens replay``: publish a dataset's ratings as live events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import StatusLine, day, text
from streamlens.signals import run_until_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamlens.replay_run import PreparedReplay
    from streams.progress import ReplayProgress
    from streams.replayer import ReplaySummary

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(replay)


_Option = typer.Option
_DRIFT = "What goes wrong from a week on, as in rating-bias@12:high; may be repeated."


def replay(
    data: Annotated[str | None, _Option("--data", help="A MovieLens folder, or synthetic[:option=value,...].")] = None,
    start: Annotated[str | None, _Option("--start", metavar="DATE", help="Where week 1 begins; or auto.")] = None,
    week: Annotated[int | None, _Option("--week", help="The first live week; all before is published unpaced.")] = None,
    speed: Annotated[str | None, _Option("--speed", help="Event seconds per second (86400: a day), or max.")] = None,
    rate: Annotated[float | None, _Option("--rate", help="Mean events per second, instead of a speed.")] = None,
    arrival: Annotated[str | None, _Option("--arrival", help="recorded, steady, poisson or bursty.")] = None,
    limit: Annotated[int | None, _Option("--limit", metavar="N", help="At most N live ratings.")] = None,
    until: Annotated[str | None, _Option("--until", metavar="DATE", help="No rating at or after this time.")] = None,
    seed: Annotated[int | None, _Option("--seed", help="Of everything random: arrivals, drift.")] = None,
    drift: Annotated[list[str] | None, _Option("--drift", metavar="KIND@WEEK:STRENGTH", help=_DRIFT)] = None,
    partitions: Annotated[int | None, _Option("--partitions", help="Of a new run; fixed for its life.")] = None,
    new_run: Annotated[bool, _Option("--new-run", help="Begin another run, whatever there is.")] = False,
    append: Annotated[bool, _Option("--append", help="Also behind another run on the same bus and prefix.")] = False,
    run: Annotated[str | None, _Option("--run", metavar="ID", help="Go on with this run, as it was asked for.")] = None,
    bus: options.Bus = None,
    store: options.Store = None,
    quiet: options.Quiet = False,
    with_parent: options.WithParent = False,
) -> None:
    """Publish ratings as live events: the training part at once, then the live part in time.

    The same data and options again go on with the same run. Ctrl-C stops it so that it can go on.
    """
    replay_flags = {
        "data": data,
        "start": start,
        "week": week,
        "seed": seed,
        "speed": speed,
        "rate": rate,
        "arrival": arrival,
        "drift": drift or None,
    }
    flags: dict[str, Any] = {"bus": bus, "store": store, "partitions": partitions, "replay": replay_flags}
    with suppress(KeyboardInterrupt):  # Ctrl-C before anything was published
        from streamlens.logs import configure_logs
        from streamlens.replay_run import continue_run, prepare_run
        from streamlens.settings import load_settings

        settings = load_settings(flags)
        configure_logs(settings.log)
        if run is None:
            prepared = prepare_run(settings, new_run=new_run, limit=limit, until=until)
        else:
            beside = {
                **replay_flags,
                "bus": bus,
                "store": store,
                "partitions": partitions,
                "limit": limit,
                "until": until,
            }
            _refuse_beside_run({**beside, "new-run": new_run or None})
            prepared = continue_run(settings, run)
        typer.echo(prepared.describe(), err=True)
        summary = run_until_signal(lambda stopping: _replay(prepared, stopping, quiet, append), with_parent=with_parent)
        _print_summary(summary)


def _refuse_beside_run(flags: dict[str, object]) -> None:
    from streams.errors import ConfigError

    for name, value in flags.items():
        if value is not None:
            raise ConfigError(f"--run: goes on with a run as it was asked for, found --{name} beside it; leave one out")


async def _replay(prepared: PreparedReplay, stopping: asyncio.Event, quiet: bool, append: bool) -> ReplaySummary:
    from streamlens.heartbeat import Heartbeat

    heartbeat = Heartbeat(prepared.run.path, "replayer")
    with _progress(quiet) as show:

        def on_progress(at: ReplayProgress) -> None:
            heartbeat.beat()  # also while paused, but not while the bus takes nothing
            show(at)

        return await prepared.replay(stopping, on_progress, append=append)


def _print_summary(summary: ReplaySummary) -> None:
    if summary.already_complete:
        typer.echo(f"run {summary.run_id} is complete: nothing left to publish; `--new-run` begins another")
        return
    rate = f"{text(summary.n_ratings)} ratings in {summary.elapsed_s:.1f} s, {text(round(summary.events_per_s))}/s"
    reached = f"{text(summary.position)} of {text(summary.total)}, up to {day(summary.event_time)}"
    ending = "complete" if summary.completed else f"stopped; `streamlens replay --run {summary.run_id}` goes on"
    typer.echo(f"run {summary.run_id}: published {rate}; {reached}; {ending}")
    if summary.shifted_s > 1:
        typer.echo(f"the log or this process was too slow: the schedule moved by {summary.shifted_s:.1f} s")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[ReplayProgress], None]]:
    """A progress bar in a terminal, else a plain line every five seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        with StatusLine(quiet) as line:
            yield lambda at: line.show(f"{at.phase}  {text(at.position)}/{text(at.total)}  {_describe(at)}")
        return
    columns = [
        TextColumn("{task.fields[phase]:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
    ]
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("replay", phase="", now="")
        yield lambda at: bar.update(task, completed=at.position, total=at.total, phase=at.phase, now=_describe(at))


def _describe(at: ReplayProgress) -> str:
    return f"{day(at.event_time)}  {text(round(at.events_per_s))}/s{'  paused' if at.paused else ''}"

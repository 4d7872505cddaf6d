"""``streamlens retrain``: ask for a training, and act on what was asked for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import moment, print_json, print_line
from streamlens.signals import run_until_signal

if TYPE_CHECKING:
    from streamlens.retrain_watch import WatchedEvent
    from streamlens.target import Target
    from streams.retrain import RetrainRequested

__all__ = ["app"]

app = typer.Typer(help="Ask for a training of a model, or run a command for each that is asked for.")

_GROUP = "retrain-watch"


class _Severity(StrEnum):
    CRITICAL = "critical"
    SCHEDULE = "schedule"


class _Since(StrEnum):
    START = "start"
    END = "end"


@app.callback(invoke_without_command=True)
def ask(
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="What to train: mf, ease, ...")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")] = None,
    severity: Annotated[
        _Severity, typer.Option("--severity", help="schedule: it could wait; the trainer answers both at once.")
    ] = _Severity.CRITICAL,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who asks; by default you.")] = None,
    run: options.RunId = None,
    bus: options.Bus = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Ask for a training of a model, as the monitors do: one event on the topic `retrain`, at the run's event time."""
    if context.invoked_subcommand is not None:
        return
    from streams.errors import ConfigError

    if not model or not (reason and reason.strip()):
        raise ConfigError("retrain: expected --model NAME and --reason TEXT, or `retrain watch`, found neither")
    target = options.find_target(run, bus=bus, store=store)
    event = asyncio.run(_ask(target, model, reason.strip(), severity.value, by or options.who()))
    if as_json:
        print_json(event)
    else:
        typer.echo(f"asked for a training of {model} as of {moment(event.time.timestamp())}: event {event.id}")


async def _ask(target: Target, model: str, reason: str, severity: str, by: str) -> RetrainRequested:
    import secrets
    from datetime import UTC, datetime

    from featurestore.reader import FeatureReader
    from streams.bus import TopicSpec
    from streams.errors import ConfigError
    from streams.events import RETRAIN
    from streams.retrain import RetrainRequest, RetrainRequested, ask_for_retrain

    with FeatureReader(target.store_url) as reader:
        clock = reader.clock()
    if not clock:
        raise ConfigError("retrain: expected a run whose event time has begun, found none; start `streamlens worker`")
    source = f"{target.run_id}/cli" if target.run_id else "cli"
    why = RetrainRequest(
        reason=reason,
        severity="critical" if severity == "critical" else "schedule",
        asked_by=by,
        justification=reason,
    )
    event = RetrainRequested.of(
        model,
        why,
        id=f"{source}/{secrets.token_hex(6)}",
        source=source,
        time=datetime.fromtimestamp(clock, UTC),
    )
    async with target.open_bus() as opened:
        await opened.create_topics(TopicSpec(RETRAIN, 1))
        await ask_for_retrain(opened, event)
    return event


@app.command()
def watch(
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="Run for each event: JSON on stdin, id in $STREAMLENS_EVENT_ID."),
    ] = None,
    since: Annotated[
        _Since, typer.Option("--from", help="Where to begin the first time: with the first event, or the next one.")
    ] = _Since.START,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only events of this model.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="NAME", help=f"Whose progress is kept (--exec: {_GROUP}).")
    ] = None,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
) -> None:
    """Print each retrain event as it comes, or run a command for it, at least once; until Ctrl-C.

    A command that fails is tried again, five times in all; then the watch ends with exit code 1, and begins with that
    event the next time.
    """
    kept = group or (_GROUP if command else None)
    with suppress(KeyboardInterrupt):

        async def main(stopping: asyncio.Event) -> None:
            from streamlens.waiting import once_there

            target = await once_there(lambda: _find(run, bus), stopping, options.say_waiting)
            if target is not None:
                await _watch(target, stopping, command, since.value, model, kept, as_json)

        run_until_signal(main)


async def _find(run: str | None, bus: str | None) -> Target:
    from streamlens.waiting import NothingYet
    from streams.events import RETRAIN

    target = options.find_target(run, bus=bus)
    async with target.open_bus() as opened:
        if RETRAIN not in await opened.topics():
            raise NothingYet(f"topic {RETRAIN!r}: not there yet", f"topic {RETRAIN} on {target.bus_url}")
    return target


async def _watch(
    target: Target,
    stopping: asyncio.Event,
    command: str | None,
    since: str,
    model: str | None,
    group: str | None,
    as_json: bool,
) -> None:
    from streamlens.retrain_watch import run_command, watch_retrain

    async with target.open_bus() as opened:
        events = watch_retrain(opened, stopping, group=group, since="end" if since == "end" else "start")
        async with aclosing(events):
            async for watched in events:
                if watched.event is None:
                    typer.echo(f"offset {watched.offset}: {watched.fault}", err=True)
                elif model is None or watched.event.subject == model:
                    _print(watched, as_json)
                    if command and not await run_command(
                        command, watched, stopping, say=lambda line: typer.echo(line, err=True)
                    ):
                        return


def _print(watched: WatchedEvent, as_json: bool) -> None:
    if as_json:
        typer.echo(watched.value.replace(b"\n", b" "))
        return
    assert watched.event is not None
    event, why = watched.event, watched.event.data
    print_line(f"{moment(event.time.timestamp())}  {event.id}  {event.subject}  {why.severity}  {why.reason}")

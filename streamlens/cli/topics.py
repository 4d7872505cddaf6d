"""``streamlens topics``: a look into the bus."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import print_json, print_table
from streamlens.signals import run_until_signal

if TYPE_CHECKING:
    from streamlens.target import Target

__all__ = ["app"]

app = typer.Typer(help="Look into the bus: topics, lag, and records as they come.")


@app.command("list")
def list_topics(run: options.RunId = None, bus: options.Bus = None, as_json: options.Json = False) -> None:
    """Topics, their partitions, and how many records they hold."""
    rows = asyncio.run(_list(options.find_target(run, bus=bus)))
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("no topics yet")
        return
    print_table(
        ["topic", "partition", "first", "end", "records"],
        [[row["topic"], p["partition"], p["start"], p["end"], p["records"]] for row in rows for p in row["partitions"]],
    )


async def _list(target: Target) -> list[dict[str, Any]]:
    from streamlens.bus_views import describe_topics

    async with target.open_bus() as bus:
        return await describe_topics(bus)


@app.command()
def lag(run: options.RunId = None, bus: options.Bus = None, as_json: options.Json = False) -> None:
    """How far each consumer group is behind."""
    rows = asyncio.run(_lag(options.find_target(run, bus=bus)))
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("no consumer group has committed anything yet")
        return
    columns = ["group", "topic", "partition", "committed", "end", "lag"]
    print_table(columns, [[row[name] for name in columns] for row in rows])


async def _lag(target: Target) -> list[dict[str, Any]]:
    from streamlens.bus_views import group_lags

    async with target.open_bus() as bus:
        return [row.as_dict() for row in await group_lags(bus)]


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="ratings, metrics, deadletter, control, ...")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Also what the log already holds.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Stop after N records.")] = None,
    partition: Annotated[int | None, typer.Option("--partition", metavar="P", help="Only this partition.")] = None,
    meta: Annotated[bool, typer.Option("--meta", help="With offset, key and time of publishing.")] = False,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines of JSON, which it prints anyway.")] = False,
) -> None:
    """Print records as lines of JSON as they come, until Ctrl-C; without a run, wait for one."""
    with suppress(KeyboardInterrupt):
        from streamlens.waiting import once_there

        async def main(stopping: asyncio.Event) -> None:
            waited = False

            def say(until: str) -> None:
                nonlocal waited
                waited = True  # then all that the topic holds came after this command
                options.say_waiting(until)

            target = await once_there(lambda: _find_topic(topic, run, bus), stopping, say)
            if target is not None:
                await _tail(target, stopping, topic, from_beginning or waited, limit, partition, meta)

        run_until_signal(main)


async def _find_topic(topic: str, run: str | None, bus: str | None) -> Target:
    """The run whose log has the topic; a topic that no run makes is not waited for: it may be a typo."""
    from streamlens.waiting import NothingYet
    from streams.topics import run_topics

    target = options.find_target(run, bus=bus)
    async with target.open_bus() as opened:
        missing = topic not in await opened.topics()
    if missing and topic in {made.name for made in run_topics(target.partitions)}:
        raise NothingYet(f"topic {topic!r}: not there yet on {target.bus_url}", f"topic {topic} on {target.bus_url}")
    return target


async def _tail(
    target: Target,
    stopping: asyncio.Event,
    topic: str,
    from_beginning: bool,
    limit: int | None,
    partition: int | None,
    meta: bool,
) -> None:
    from streamlens.bus_views import tail as tail_records

    async with target.open_bus() as bus:
        records = tail_records(bus, topic, stopping, from_beginning=from_beginning, partition=partition)
        count = 0
        async for record in records:
            line = record.json_record() if meta else record.json_value()
            typer.echo(line)
            count += 1
            if count == limit:
                break
        await records.aclose()

"""``streamlens topics``: a look into the bus."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import print_csv, print_csv_row, print_json, print_table
from streamlens.signals import run_until_signal

if TYPE_CHECKING:
    from streamlens.bus_views import TailedRecord
    from streamlens.target import Target

__all__ = ["app"]

app = typer.Typer(help="Look into the bus: topics, lag, and records as they come.")


@app.command("list")
def list_topics(
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """Topics, their partitions, and how many records they hold."""
    options.one_format(as_json, as_csv)
    rows = asyncio.run(_list(options.find_target(run, bus=bus)))
    if as_json:
        print_json(rows)
        return
    columns = ["topic", "partition", "start", "end", "records"]
    table = [[row["topic"], *(p[name] for name in columns[1:])] for row in rows for p in row["partitions"]]
    _print(columns, table, as_csv=as_csv, none="no topics yet")


def _print(columns: list[str], table: list[list[Any]], *, as_csv: bool, none: str) -> None:
    """A listing for people or as CSV. none: what people are told where it is empty."""
    if as_csv:
        print_csv(columns, table)
    elif table:
        print_table(columns, table)
    else:
        typer.echo(none)


async def _list(target: Target) -> list[dict[str, Any]]:
    from streamlens.bus_views import describe_topics

    async with target.open_bus() as bus:
        return await describe_topics(bus)


@app.command()
def lag(
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """How far each consumer group is behind."""
    options.one_format(as_json, as_csv)
    rows = asyncio.run(_lag(options.find_target(run, bus=bus)))
    if as_json:
        print_json(rows)
        return
    columns = ["group", "topic", "partition", "committed", "end", "lag"]
    table = [[row[name] for name in columns] for row in rows]
    _print(columns, table, as_csv=as_csv, none="no consumer group has committed anything yet")


async def _lag(target: Target) -> list[dict[str, Any]]:
    from streamlens.bus_views import group_lags

    async with target.open_bus() as bus:
        return [row.as_dict() for row in await group_lags(bus)]


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="ratings, metrics, deadletter, control, ...")],
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Also what the log already holds.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Stop after N records that were printed.")
    ] = None,
    partition: Annotated[int | None, typer.Option("--partition", metavar="P", help="Only this partition.")] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", metavar="REGEX", help="Only records whose value holds a match.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only records of this key: a user's id in ratings.")] = None,
    meta: Annotated[bool, typer.Option("--meta", help="With offset, key and time of publishing.")] = False,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lines of JSON, which it prints anyway.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header, and all that --meta tells.")] = False,
) -> None:
    """Print records as lines of JSON as they come, until Ctrl-C; without a run, wait for one."""
    options.one_format(as_json, as_csv)
    pattern = None if grep is None else _pattern(grep)
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
                found = _matching(target, stopping, topic, from_beginning or waited, partition, pattern, key)
                await _print_records(found, limit, meta, as_csv)

        run_until_signal(main)


def _pattern(regex: str) -> re.Pattern[str]:
    from streams.errors import ConfigError

    try:
        return re.compile(regex)
    except re.error as error:
        raise ConfigError(
            f"--grep: expected a regular expression, found {regex!r} ({error}); put a backslash before characters that "
            "mean themselves"
        ) from None


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


async def _matching(
    target: Target,
    stopping: asyncio.Event,
    topic: str,
    from_beginning: bool,
    partition: int | None,
    pattern: re.Pattern[str] | None,
    key: str | None,
) -> AsyncGenerator[TailedRecord]:
    from streamlens.bus_views import tail as tail_records

    async with target.open_bus() as bus:
        records = tail_records(bus, topic, stopping, from_beginning=from_beginning, partition=partition)
        async with aclosing(records):
            async for record in records:
                if record.holds(pattern, key):
                    yield record


async def _print_records(records: AsyncGenerator[TailedRecord], limit: int | None, meta: bool, as_csv: bool) -> None:
    from streamlens.bus_views import RECORD_COLUMNS

    if as_csv:
        print_csv_row(RECORD_COLUMNS)
    count = 0
    async with aclosing(records):
        async for record in records:
            if as_csv:
                print_csv_row(record.csv_row())
            else:
                typer.echo(record.json_record() if meta else record.json_value())
            count += 1
            if count == limit:
                break

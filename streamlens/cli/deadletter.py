"""``streamlens deadletter``: what could not be processed, and why; have it tried again."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import heading, moment, print_json, print_table, printable

__all__ = ["app"]

app = typer.Typer(help="What could not be processed, and why; have it tried again.")

_LONGEST_PAYLOAD = 100


@app.command("list")
def list_letters(
    last: Annotated[int, typer.Option("--last", min=0, metavar="N", help="Show the last N in full.")] = 10,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
) -> None:
    """Count the dead letters by reason, and show the last ones."""
    from streamlens.deadletters import DeadLetterSummary, read_dead_letters

    target = options.find_target(run, bus=bus)

    async def read() -> DeadLetterSummary:
        async with target.open_bus() as opened:
            return await read_dead_letters(opened, last=last)

    summary = asyncio.run(read())
    if as_json:
        letters = [placed.as_dict() for placed in summary.last]
        print_json({"total": summary.total, "reasons": dict(summary.kinds.most_common()), "last": letters})
        return
    if not summary.total:
        typer.echo("no dead letters")
        return
    print_table(["reason", "records"], [*summary.kinds.most_common(), ("all", summary.total)])
    heading(f"the last {len(summary.last)}:")
    for placed in summary.last:
        letter = placed.letter
        origin = f"{letter.topic}/{letter.partition}/{letter.offset}"
        typer.echo(f"{moment(placed.timestamp_ms / 1_000)}  {origin}  {printable(letter.reason)}")
        typer.echo(f"    {printable(letter.payload[:_LONGEST_PAYLOAD])}")


@app.command()
def replay(
    reason: Annotated[str | None, typer.Option("--reason", help="Only those that `list` counts under this.")] = None,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
) -> None:
    """Publish the records again, to the partition each came from; however often, each counts once."""
    from streamlens.deadletters import replay_dead_letters

    target = options.find_target(run, bus=bus)

    async def publish() -> dict[str, int]:
        async with target.open_bus() as opened:
            return dict(await replay_dead_letters(opened, kind=reason))

    published = asyncio.run(publish())
    if as_json:
        print_json({"published": published})
        return
    typer.echo("\n".join(f"{count:,} published to {topic}" for topic, count in published.items()) or "none to publish")

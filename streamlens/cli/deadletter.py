"""``streamlens deadletter``: what could not be processed, and why; have it tried again."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import heading, moment, print_csv, print_json, print_line, print_table, printable

if TYPE_CHECKING:
    from streams.deadletter_replay import Replayed

__all__ = ["app"]

app = typer.Typer(help="What could not be processed, and why; have it tried again.")

_COLUMNS = ("topic", "partition", "offset", "timestamp_ms", "reason", "payload", "encoding", "size")
_LONGEST_PAYLOAD = 100
_LONGEST_RECORD = 500
_MOST_TOLD = 20


@app.command("list")
def list_letters(
    last: Annotated[int, typer.Option("--last", min=0, metavar="N", help="Show the last N in full.")] = 10,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """Count the dead letters by reason, and show the last ones; in CSV only these."""
    options.one_format(as_json, as_csv)
    from streams.deadletters import DeadLetterSummary, read_dead_letters

    target = options.find_target(run, bus=bus)

    async def read() -> DeadLetterSummary:
        async with target.open_bus() as opened:
            return await read_dead_letters(opened, last=last)

    summary = asyncio.run(read())
    if as_json:
        letters = [placed.as_dict() for placed in summary.last]
        print_json({"total": summary.total, "reasons": dict(summary.kinds.most_common()), "last": letters})
        return
    if as_csv:
        print_csv(_COLUMNS, [[placed.as_dict()[name] for name in _COLUMNS] for placed in summary.last])
        return
    if not summary.total:
        typer.echo("no dead letters")
        return
    print_table(["reason", "records"], [*summary.kinds.most_common(), ("all", summary.total)])
    heading(f"the last {len(summary.last)}, up to {moment(summary.last[-1].timestamp_ms / 1_000)}:")
    for placed in summary.last:
        print_line(f"{placed.origin}  {printable(placed.letter.reason)}")
        print_line(f"    {printable(placed.letter.payload[:_LONGEST_PAYLOAD])}")


@app.command()
def replay(
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Mend: give each record this field, VALUE in JSON."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="Mend: CMD reads a record and prints the mended one, or fails."),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Only letters whose reason begins with TEXT.")
    ] = "",
    partition: Annotated[int | None, typer.Option("--partition", metavar="P", help="Only records of it.")] = None,
    offset: Annotated[
        list[int] | None, typer.Option("--offset", metavar="N", help="Only the record at it; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be published.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Publish also what is still invalid.")] = False,
    run: options.RunId = None,
    bus: options.Bus = None,
    as_json: options.Json = False,
) -> None:
    """Publish the records again, to the partition each came from; however often, each counts once.

    Mend them with --set or --exec, or with neither once the code is fixed.
    What is still invalid is reported, not published. Exit code 1 if any
    selected record was not published.
    """
    from streams.deadletter_fixes import mend_with_command, parse_fields, set_fields
    from streams.deadletter_replay import Selection, replay_dead_letters
    from streams.errors import ConfigError

    if assignments and command is not None:
        raise ConfigError("--set and --exec: expected one of them, found both; let the command set the fields")
    fix = None
    if assignments:
        fix = set_fields(parse_fields(assignments))
    elif command is not None:
        fix = mend_with_command(command)
    selection = Selection(reason, frozenset(offset or ()), partition, limit)
    target = options.find_target(run, bus=bus)
    report = _ReplayReport(dry_run)

    async def publish() -> None:
        async with target.open_bus() as opened:
            replayed = replay_dead_letters(opened, selection, fix=fix, dry_run=dry_run, force=force)
            async with aclosing(replayed):
                async for each in replayed:
                    report.add(each, show=not as_json)

    asyncio.run(publish())
    if as_json:
        print_json(report.as_dict())
    else:
        typer.echo(report.summary())
    raise typer.Exit(0 if report.published == report.selected else 1)


class _ReplayReport:
    """What a replay did: told line by line as it goes, and summed up at the end."""

    def __init__(self, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._counts: Counter[str] = Counter()
        self._topics: Counter[str] = Counter()
        self._rows: list[dict[str, Any]] = []
        self._told = 0

    def add(self, replayed: Replayed, *, show: bool) -> None:
        published = replayed.value is not None
        self._counts[replayed.outcome] += 1
        if published:
            self._topics[replayed.placed.letter.topic] += 1
        if published and not self._dry_run and not replayed.problem:
            return
        if not show:
            self._rows.append(_row(replayed))
        elif self._dry_run or self._told < _MOST_TOLD:
            self._show(replayed)
        self._told += 1

    def _show(self, replayed: Replayed) -> None:
        what = {"published": "ok", "invalid": "still invalid", "gone": "record gone"}.get(
            replayed.outcome, replayed.outcome
        )
        if replayed.value is not None and replayed.problem:
            what = "invalid, forced"
        said = f": {printable(replayed.problem)}" if replayed.problem else ""
        typer.echo(f"{replayed.placed.origin}  {what}{said}")
        if self._dry_run and replayed.value is not None:
            typer.echo(f"    {printable(replayed.value[:_LONGEST_RECORD].decode(errors='replace'))}")

    @property
    def selected(self) -> int:
        return self._counts.total()

    @property
    def published(self) -> int:
        return self._topics.total()

    def summary(self) -> str:
        """What became of how many.

        >>> report = _ReplayReport(dry_run=False)
        >>> report.summary()
        'no dead letters to publish again'
        """
        if not self.selected:
            return "no dead letters to publish again"
        verb = "would be published" if self._dry_run else "published"
        parts = [f"{count:,} {verb} to {topic}" for topic, count in self._topics.items()] or [f"none {verb}"]
        parts += [f"{n:,} {what}" for key, what in _NOT_PUBLISHED.items() if (n := self._counts[key])]
        line = f"{self.selected:,} dead letter{'s' if self.selected > 1 else ''}: {', '.join(parts)}"
        if not self._dry_run and self._told > _MOST_TOLD:
            line = f"... and {self._told - _MOST_TOLD:,} more, which --json lists\n{line}"
        if self._counts["invalid"]:
            line += "\nmend what is still invalid with --set or --exec, or publish it as it is with --force"
        return line

    def as_dict(self) -> dict[str, Any]:
        return {
            "dry_run": self._dry_run,
            "selected": self.selected,
            "published": dict(self._topics),
            **{key: self._counts[key] for key in _NOT_PUBLISHED},
            "records": self._rows,
        }


_NOT_PUBLISHED = {"invalid": "still invalid", "skipped": "skipped by the command", "gone": "gone"}


def _row(replayed: Replayed) -> dict[str, Any]:
    letter = replayed.placed.letter
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "outcome": replayed.outcome,
        "problem": replayed.problem or None,
        "value": None if replayed.value is None else replayed.value.decode(errors="replace"),
    }

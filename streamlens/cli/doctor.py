"""``streamlens doctor``: is this machine set up right?"""

from __future__ import annotations

import asyncio

import typer

from streamlens.cli import options
from streamlens.cli.console import print_json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    run: options.RunId = None, bus: options.Bus = None, store: options.Store = None, as_json: options.Json = False
) -> None:
    """Check Python, packages, SQLite, file locks, disk, data, bus, store and run; exit code 1 if anything is wrong."""
    from streamlens.checkup import examine

    findings = asyncio.run(examine(run, bus, store))
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": healthy, "checks": findings})
    else:
        for finding in findings:
            hint = "" if finding.ok else f"; {finding.hint}"
            typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:11} {finding.found}{hint}")
    raise typer.Exit(0 if healthy else 1)

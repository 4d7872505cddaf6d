"""``streamlens verify``: the proof that stream equals batch."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import print_json, print_table

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    memory_mb: Annotated[int, typer.Option("--memory-mb", min=64, help="Memory for the batch pass.")] = 256,
    run: options.RunId = None,
    bus: options.Bus = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Prove that the store holds what one batch pass over the log computes; also while events arrive.

    Exit code 0 if it does, 1 if it does not.
    """
    from featurestore.database import scratch_folder
    from featurestore.verify import VerifyReport
    from featurestore.verify import verify as verify_store

    target = options.find_target(run, bus=bus, store=store)

    async def check() -> VerifyReport:
        async with target.open_bus() as opened:
            temp_dir = scratch_folder(target.store_url) or target.folder
            return await verify_store(opened, target.store_url, memory_limit_mb=memory_mb, temp_dir=temp_dir)

    report = asyncio.run(check())
    if as_json:
        print_json(report.as_dict())
    else:
        print_table(["view", "rows", "mismatches"], [[n, v.rows, v.mismatches] for n, v in report.views.items()])
        for name, view in report.views.items():
            for example in view.examples:
                typer.echo(f"{name}: {example}")
        for note in report.notes:
            typer.echo(f"note: {note}")
        outcome = (
            "passed: the store equals a batch pass" if report.ok else "FAILED: the store differs from a batch pass"
        )
        typer.echo(f"verify {outcome} over {report.events:,} events ({report.rows:,} rows, {report.seconds:.1f} s)")
    raise typer.Exit(0 if report.ok else 1)

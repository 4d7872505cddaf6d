"""``streamlens snapshot``: interactions and features as of one event time, as files that training reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import moment, print_json, print_table

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(snapshot)


def snapshot(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; it must not exist yet.")],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="A date, a date and time (UTC), or epoch seconds; default: now."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a snapshot that is there.")] = False,
    run: options.RunId = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Write ratings, features and movies as of a time to Parquet files with a manifest; also while events arrive."""
    import msgspec

    from featurestore.snapshot import take_snapshot
    from streamlens.feature_views import parse_as_of
    from streamlens.priority import yield_to_ingest

    yield_to_ingest()
    target = options.find_target(run, store=store)
    manifest = take_snapshot(target.store_url, out, parse_as_of(as_of), overwrite=force)
    if as_json:
        print_json(msgspec.to_builtins(manifest, str_keys=True))
        return
    print_table(["file", "rows", "bytes"], [[name, file.rows, file.bytes] for name, file in manifest.files.items()])
    typer.echo(f"snapshot {manifest.snapshot_id[:12]} as of {moment(manifest.as_of)} in {out}")
    if manifest.clock < manifest.as_of:
        typer.echo(f"note: only events up to {moment(manifest.clock)} were applied by then")

"""``streamlens status``: how the run stands."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

from streamlens.cli import options
from streamlens.cli.console import heading, moment, print_json, print_table, text
from streamlens.cli.loop_role import print_loop
from streamlens.cli.monitors_role import print_monitors
from streamlens.cli.reactive_role import print_reactive

__all__ = ["register"]

_COUNTS = ("ratings", "late", "duplicates", "dead_lettered")
_QUALITY = "quality."
_MONITORS = "monitors."  # they have a part of their own
_MEASURES = ("null_share", "out_of_range", "min", "max", "psi")


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    run: options.RunId = None, bus: options.Bus = None, store: options.Store = None, as_json: options.Json = False
) -> None:
    """Offsets, lag, event time, freshness and counts of the run, and who is at work on it."""
    from streamlens.run_status import run_status

    target = options.find_target(run, bus=bus, store=store)

    async def look() -> dict[str, Any]:
        async with target.open_bus() as opened:
            return await run_status(target, opened)

    found = asyncio.run(look())
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    typer.echo(f"run       {found['run'] or '-'}  ({found['data'] or 'unknown data'})")
    if found["drift"]:
        typer.echo(f"drift     {', '.join(found['drift'])}")
    typer.echo(f"bus       {found['bus']}\nstore     {found['store']}")
    for role in ("replayer", "worker", "trainer"):
        typer.echo(f"{role:9} {'not running' if found[role] is None else f'running (process {found[role]})'}")
    if found["no_champion"]:
        typer.echo(f"champion  none: {found['no_champion']}")
    features = found["features"]
    if features is None:
        typer.echo("features  none yet; start `streamlens worker` to build them from the log")
    else:
        _print_features(features, found["freshness"])
    if found["loop"] is not None:
        print_loop(found["loop"], found["loop_worker"])
    if found["reactive"] is not None:
        print_reactive(found["reactive"], found["reactive_worker"])
    if found["monitors"] is not None:
        print_monitors(found["monitors"], found["monitors_worker"])
    heading("topics:")
    print_table(["topic", "records"], found["topics"].items())
    _print_jobs(found["jobs"])
    _print_metrics({name: _whole(row["value"]) for name, row in found["metrics"].items()})


def _print_jobs(jobs: list[dict[str, Any]]) -> None:
    if jobs:
        heading("training jobs:")
        columns = ["job", "kind", "model", "event time", "effective", "state", "tries", "what"]
        rows = [
            [
                *(job[name] for name in ("id", "kind", "model")),
                *(moment(job[name]) for name in ("event_time", "due")),
                *(job[name] for name in ("state", "attempts")),
                job["progress"] or job["reason"] or "-",
            ]
            for job in jobs
        ]
        print_table(columns, rows)


def _print_metrics(metrics: dict[str, float | int]) -> None:
    """The metrics; those of the features' quality as one row per feature."""
    quality: dict[str, dict[str, float | int]] = {}
    others = {}
    for name, value in metrics.items():
        if name.startswith(_QUALITY):
            measure, _, feature = name.removeprefix(_QUALITY).removesuffix("}").partition("{feature=")
            quality.setdefault(feature, {})[measure] = value
        elif not name.startswith(_MONITORS):
            others[name] = value
    if others:
        heading("metrics:")
        print_table(["metric", "value"], others.items())
    if quality:
        heading("quality of the features:")
        rows = [[feature, *(quality[feature].get(measure) for measure in _MEASURES)] for feature in sorted(quality)]
        print_table(["feature", *(measure.replace("_", " ") for measure in _MEASURES)], rows)


def _print_features(features: dict[str, Any], freshness: dict[str, Any] | None) -> None:
    ended = " (the run has ended)" if features["end_of_run"] else ""
    ago = features["applied_ago_s"]
    typer.echo(f"clock     {moment(features['clock'])}{ended}")
    typer.echo(f"lag       {text(features['lag'])} records; last applied {text(ago)} s ago")
    counts = ", ".join(f"{text(features[name])} {name.replace('_', '-')}" for name in _COUNTS)
    typer.echo(f"applied   {counts}")
    _print_freshness(freshness or {"embeddings": []})
    heading("ratings:")
    columns = ["partition", "end", "applied", "lag", "clock"]
    rows = [[*(row[name] for name in columns[:-1]), moment(row["clock"])] for row in features["partitions"]]
    print_table(columns, rows)


def _print_freshness(freshness: dict[str, Any]) -> None:
    """Which views are fresh, and why the others are not."""
    views = {view: row for view, row in freshness.items() if view != "embeddings"}
    for row in freshness["embeddings"]:
        views[f"{row['kind']} embeddings of {row['model']}"] = row
    fresh = [view for view, row in views.items() if not row["stale"]]
    typer.echo(f"fresh     {', '.join(fresh) or 'nothing'}")
    for view, row in views.items():
        if row["stale"]:
            typer.echo(f"stale     {view}: {row['why']}")


def _whole(value: float) -> float | int:
    """Counts travel as floats, and are read as counts."""
    return int(value) if value.is_integer() else value

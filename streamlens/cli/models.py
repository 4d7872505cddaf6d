"""``streamlens models``: the trained versions of a run; which one serves, and who decided it, and why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from streamlens.cli import options
from streamlens.cli.console import moment, print_csv, print_json, print_table

if TYPE_CHECKING:
    from models.registry import Registry, Version

__all__ = ["app"]

_SHOWN = ("ctr", "ndcg@10", "precision@10", "coverage@10")


class _ListByDefault(TyperGroup):
    """``streamlens models`` lists them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ListByDefault, help="Trained versions: list them, promote one, roll back; who did it, and why.")

_VersionId = Annotated[str, typer.Argument(metavar="VERSION")]
_Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, kept in the audit trail.")]


@app.command("list")
def list_versions(run: options.RunId = None, as_json: options.Json = False, as_csv: options.Csv = False) -> None:
    """The versions, the oldest first, with status and measures (the default)."""
    options.one_format(as_json, as_csv)
    registry = _registry(run)
    versions, damaged = registry.versions(), registry.damaged()
    if as_json:
        print_json([_as_dict(version) for version in versions] + [_as_damaged(*found) for found in damaged.items()])
        return
    columns = ["version", "status", "as of", "serves from", *_SHOWN]
    rows = [
        [v.version_id, v.status, moment(v.manifest.as_of), moment(v.manifest.serves_from), *_measures(v)]
        for v in versions
    ]
    rows += [[version_id, "damaged", None, None, *(None for _ in _SHOWN)] for version_id in damaged]
    if as_csv:
        print_csv([column.replace(" ", "_") for column in columns], rows)
    elif rows:
        shown = [["-" if value is None else _measure(value) for value in row] for row in rows]
        print_table(columns, shown)
        for why in damaged.values():
            typer.echo(f"damaged: {why}")
    else:
        typer.echo("no versions yet; `streamlens train` makes them")


@app.command()
def promote(version: _VersionId, why: _Why, run: options.RunId = None) -> None:
    """Make a version the champion, if its files are what was trained."""
    registry = _registry(run)
    registry.promote(registry.get(version), by=options.who(), why=why)
    before = next(entry.previous for entry in reversed(registry.audit()) if entry.version_id == version)
    typer.echo(f"{version} is the champion" + (f", {before} was" if before else ""))


@app.command()
def reject(version: _VersionId, why: _Why, run: options.RunId = None) -> None:
    """Decide against a version: it is no challenger, and nothing is rolled back to it."""
    registry = _registry(run)
    registry.reject(registry.get(version), by=options.who(), why=why)
    typer.echo(f"{version} is rejected")


@app.command()
def rollback(why: _Why, run: options.RunId = None) -> None:
    """Make the champion before this one the champion again."""
    champion = _registry(run).roll_back(by=options.who(), why=why)
    typer.echo(f"{champion.version_id} is the champion again")


@app.command()
def audit(run: options.RunId = None, as_json: options.Json = False, as_csv: options.Csv = False) -> None:
    """Every decision, the oldest first: when, what, which version, from which, by whom, why; and jobs without one."""
    options.one_format(as_json, as_csv)
    import msgspec

    from models.registry import Registry
    from streamlens.training_status import no_champion, undecided_jobs

    target = options.find_target(run)
    entries = Registry(target.models).audit()
    if as_json:
        print_json(msgspec.to_builtins(entries))
        return
    rows = [
        [e.at, e.action, e.version_id, e.previous, None if e.effective is None else moment(e.effective), e.by, e.why]
        for e in entries
    ]
    columns = ["at", "action", "version", "previous", "effective", "by", "why"]
    if as_csv:
        print_csv(columns, rows)
    elif rows:
        print_table(columns, [[moment(datetime.fromisoformat(str(at)).timestamp()), *rest] for at, *rest in rows])
    else:
        typer.echo("no decisions yet")
    if not as_csv:
        for job in undecided_jobs(target.store_url):
            asked = f"; asked for by {job.asked}" if job.asked else ""
            said = f"{job.state}, no decision on a version: {job.id}, {job.model} as of {moment(job.event_time)}"
            typer.echo(f"{said}: {job.reason}{asked}")
        if why := no_champion(target.store_url, target.models):
            typer.echo(f"no champion: {why}")


def _registry(run: str | None) -> Registry:
    from models.registry import Registry

    return Registry(options.find_target(run).models)


def _measures(version: Version) -> list[float | None]:
    validation = version.manifest.validation
    measures = validation.measures if validation else {}
    return [measures[name][0] if name in measures else None for name in _SHOWN]


def _measure(value: object) -> object:
    return f"{value:.4f}" if isinstance(value, float) else value


def _as_damaged(version_id: str, why: str) -> dict[str, Any]:
    return {"version_id": version_id, "status": "damaged", "why": why}


def _as_dict(version: Version) -> dict[str, Any]:
    import msgspec

    return {**msgspec.to_builtins(version.manifest, str_keys=True), "status": version.status}

"""``streamlens train``: a version of a model from what a run knew as of a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import StatusLine, moment, print_json, print_table

if TYPE_CHECKING:
    from models.recommender import Epoch
    from models.registry import Version
    from streamlens.target import Target

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="mf, neumf, two-tower, vae, ease, ...")],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="Learn from nothing after it; by default the store's clock."),
    ] = None,
    chosen: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A hyperparameter, as width=64; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    promote: Annotated[bool, typer.Option("--promote", help="Make it the champion at once.")] = False,
    run: options.RunId = None,
    store: options.Store = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train on a snapshot of the run's features; the version is kept with its manifest, embeddings go to the store."""
    from models.registry import Registry
    from models.training import Recipe, train_version
    from streamlens.feature_views import parse_as_of
    from streamlens.priority import yield_to_ingest

    recipe = Recipe(model, dict(options.assigned(text, "NAME=VALUE such as width=64") for text in chosen or []), seed)
    moment_asked = parse_as_of(as_of)
    target = options.find_target(run, store=store)
    registry = Registry(target.models)
    yield_to_ingest()
    with StatusLine(quiet) as line:
        version = train_version(
            target.store_url,
            registry,
            recipe,
            as_of=moment_asked,
            user_groups=_user_groups(target),
            on_progress=lambda phase, epoch: line.show(_line(model, phase, epoch)),
        )
    if promote:
        version = registry.promote(version, by=options.who(), why="streamlens train --promote")
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(version.manifest, str_keys=True), "status": version.status})
    else:
        _print(version)


def _user_groups(target: Target) -> Mapping[int, str]:
    """None where the data is not on this machine."""
    from streams.dataset import open_user_groups
    from streams.errors import DataError

    try:
        return open_user_groups(target.data) if target.data else {}
    except DataError:
        return {}


def _line(model: str, phase: str, epoch: Epoch | None) -> str:
    if epoch is None:
        return f"{model}  {phase}"
    held_out = "" if epoch.validation is None else f"  held out {epoch.validation:.4f}"
    return f"{model}  {phase}  epoch {epoch.number}  loss {epoch.loss:.4f}{held_out}"


def _print(version: Version) -> None:
    manifest = version.manifest
    validation = manifest.validation
    if validation is None:
        typer.echo("not measured: too few ratings to hold some out")
    else:
        measured = {manifest.kind: validation.measures, **validation.yardsticks}
        columns = list(validation.measures)
        rows = [
            [name, *(f"{found[c][0]:.4f}" if c in found else "-" for c in columns)] for name, found in measured.items()
        ]
        print_table(["model", *columns], rows)
        typer.echo(
            f"\n{validation.n_slates:,} slates of {validation.n_users:,} users from {moment(validation.start)} on, "
            "which the models above were not fitted on"
        )
    typer.echo(
        f"{version.version_id} ({version.status}): {manifest.n_ratings:,} ratings before {moment(manifest.as_of)}, "
        f"{manifest.seconds:.1f} s, in {version.folder}"
    )

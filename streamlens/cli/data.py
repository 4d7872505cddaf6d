"""``streamlens data``: which MovieLens releases there are, and fetch one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import StatusLine, print_json, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from streams.transfer import Watch

__all__ = ["app"]

app = typer.Typer(help="List the MovieLens releases, and download one.")

_FOLDER = Path("data")


@app.command("list")
def list_releases(as_json: options.Json = False) -> None:
    """The releases by name, with about how large they are and what may be done with them."""
    from streams.movielens.releases import LICENCE, RELEASES

    releases = list(RELEASES.values())
    if as_json:
        print_json({"licence": LICENCE, "releases": releases})
        return
    print_table(
        ["name", "ratings", "archive", "redistribution"],
        ([r.name, f"about {r.n_ratings:,}", f"{r.archive_mb} MB", r.redistribution] for r in releases),
    )
    typer.echo(f"\n{LICENCE}")


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A release of `streamlens data list`.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where its folder NAME goes.")] = _FOLDER,
    url: Annotated[str | None, typer.Option("--url", metavar="BASE", help="A mirror of GroupLens' folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder NAME, whatever is in it.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Fetch a MovieLens release from GroupLens, check it and unpack it into DIR/NAME.

    Ctrl-C or a broken connection loses nothing: the same command goes on.
    """
    from streams.download import GROUPLENS
    from streams.download import download as fetch
    from streams.movielens.releases import LICENCE

    try:
        with _watch(quiet) as watch:
            done = fetch(name, to.expanduser(), url=url or GROUPLENS, force=force, watch=watch)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on with what was received", err=True)
        raise
    if done.was_there:
        typer.echo(f"{done.folder}: there already; --force fetches it anew")
    else:
        typer.echo(f"{done.folder}: complete; `streamlens replay --data {done.folder}` replays it")
        typer.echo(LICENCE)


@contextmanager
def _watch(quiet: bool) -> Iterator[Watch]:
    """A progress bar in a terminal, else plain lines."""
    from rich.console import Console

    from streams.transfer import Watch

    console = Console(stderr=True)
    if quiet:
        yield Watch()
    elif console.is_terminal:
        with _bar(console) as watch:
            yield watch
    else:
        with StatusLine() as line:
            yield Watch(lambda said: typer.echo(said, err=True), _lines(line.show))


@contextmanager
def _bar(console: Console) -> Iterator[Watch]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from streams.transfer import Watch

    columns = [TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done, total=total)

        yield Watch(lambda said: bar.console.print(said, markup=False, highlight=False), show)


def _lines(show: Callable[[str], None]) -> Callable[[str, int, int | None], None]:
    from streams.transfer import megabytes

    def line(phase: str, done: int, total: int | None) -> None:
        show(f"{phase}  {megabytes(done)}" + (f" of {megabytes(total)}" if total is not None else ""))

    return line

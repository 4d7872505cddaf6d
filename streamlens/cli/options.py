"""Options that several commands take, and the run they lead to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from streamlens.target import Target

__all__ = [
    "Bus",
    "Csv",
    "Json",
    "Quiet",
    "RunId",
    "Store",
    "WithParent",
    "assigned",
    "find_target",
    "one_format",
    "say_waiting",
    "who",
]

RunId = Annotated[str | None, typer.Option("--run", metavar="ID", help="The run; by default the last one started.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]
Bus = Annotated[str | None, typer.Option("--bus", metavar="URL", help="The bus; by default the run's own log.")]
Store = Annotated[str | None, typer.Option("--store", metavar="URL", help="The feature store; by default the run's.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True, help="Stop when stdin, a pipe, ends.")]


def find_target(run: str | None, *, bus: str | None = None, store: str | None = None) -> Target:
    """What a command is about. The settings are loaded here and not on import, which would slow ``--help`` down."""
    from streamlens.target import find_target

    return find_target(run, bus=bus, store=store)


def one_format(as_json: bool, as_csv: bool) -> None:
    """Raises ConfigError where both are asked for."""
    if as_json and as_csv:
        from streams.errors import ConfigError

        raise ConfigError("--json and --csv: expected one of them, found both")


def say_waiting(until: str) -> None:
    """What a command waits for, on stderr."""
    typer.echo(f"waiting for {until}; Ctrl-C leaves", err=True)


def assigned(text: str, example: str) -> tuple[str, Any]:
    """Name and value of ``NAME=VALUE``, the value in JSON, or a word. Raises ConfigError for anything else."""
    import msgspec

    from streams.errors import ConfigError

    name, equals, value = text.partition("=")
    if not (equals and name):
        raise ConfigError(f"--set: expected {example}, found {text!r}")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:  # a word needs no quotes
        return name, value


def who() -> str:
    """The person, as the system calls them."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"

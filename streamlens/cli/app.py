"""All commands under one name, and one way for each of them to fail: a line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from streamlens.cli import (
    bench,
    control,
    dashboard,
    data,
    deadletter,
    demo,
    doctor,
    experiment,
    features,
    models,
    recommend,
    replay,
    retrain,
    snapshot,
    status,
    topics,
    train,
    verify,
    worker,
)
from streamlens.signals import interruptible

__all__ = ["app", "run"]


_ORDER = (
    "demo",
    "replay",
    "control",
    "data",
    "worker",
    "dashboard",
    "status",
    "topics",
    "features",
    "snapshot",
    "verify",
    "deadletter",
    "experiment",
    "train",
    "models",
    "recommend",
    "retrain",
    "doctor",
    "bench",
)
_MENDED_BY_ANOTHER_FOLDER = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


class _Commands(TyperGroup):
    """Commands in the order in which a newcomer meets them; a reader that goes away (``| head``) is no error."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise typer.Exit(_reader_went_away()) from None


def _reader_went_away() -> int:
    """Nothing more can be printed, and the interpreter's own flush at the end must not fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


app = typer.Typer(
    cls=_Commands,
    help="Replay a recommender's past as live events, and keep features that count each of them exactly once.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (demo, replay, worker, dashboard, status, snapshot, verify, experiment, train, recommend, doctor, bench):
    module.register(app)
app.add_typer(control.app, name="control")
app.add_typer(data.app, name="data")
app.add_typer(topics.app, name="topics")
app.add_typer(features.app, name="features")
app.add_typer(deadletter.app, name="deadletter")
app.add_typer(models.app, name="models")
app.add_typer(retrain.app, name="retrain")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"streamlens {version('streamlens')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. What a user can mend is one line on stderr, never a traceback."""
    with interruptible():
        try:
            code = app(list(arguments), prog_name="streamlens", standalone_mode=False)
            sys.stdout.flush()
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "streamlens"
            return _fail(f"{error.format_message()} (see `{command} --help`)", error.exit_code)
        except BrokenPipeError:
            return _reader_went_away()
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """The line and exit code of an error that is meant for the user; any other is a bug, and keeps its traceback."""
    from streams.errors import StreamLensError  # numpy comes with it, and `--help` shall not wait for that

    if isinstance(error, StreamLensError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, OSError) and error.errno in _MENDED_BY_ANOTHER_FOLDER:
        hint = "run in a folder that can be written, or set STREAMLENS_VAR to one"
        return _fail(f"{error.filename or 'system'}: {error.strerror}; {hint}", 2)
    if isinstance(error, OSError):
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", 3)
    raise error


def _fail(message: str, exit_code: int) -> int:
    typer.echo(f"streamlens: {' '.join(message.split())}", err=True)
    return exit_code

"""Output: JSON for programs, tables for people, and times and numbers as people read them."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import msgspec
import typer

__all__ = ["StatusLine", "day", "heading", "is_terminal", "moment", "print_json", "print_table", "printable", "text"]

_PLAIN_INTERVAL_S = 5.0


def print_json(value: Any) -> None:
    """One JSON document; NaN, which JSON does not know, becomes null."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns, numbers to the right, nothing drawn around them: easy to read, grep and cut."""
    from rich.cells import cell_len  # a title may hold characters that are two columns wide, or none

    def padded(cell: str, width: int, right: bool) -> str:
        space = " " * (width - cell_len(cell))
        return space + cell if right else cell + space

    cells = [[printable(text(value)) for value in row] for row in rows]
    right = [all(_is_number(row[i]) for row in cells) and bool(cells) for i in range(len(columns))]
    widths = [max(cell_len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        line = [padded(c, w, r) for c, w, r in zip(row, widths, right, strict=True)]
        typer.echo("  ".join(line).rstrip())


def heading(title: str) -> None:
    typer.echo(f"\n{title}")


def text(value: object) -> str:
    """A value as a table shows it: counts with separators, floats short, an absent value as a dash.

    >>> [text(value) for value in (1234567, 3.14159, None, float("nan"), True, "free text")]
    ['1,234,567', '3.14', '-', '-', 'yes', 'free text']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def printable(foreign: str) -> str:
    r"""Text from outside on one line, without what a terminal would obey.

    >>> printable("Léon\x1b[2J\n")
    'Léon\\x1b[2J\\n'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in foreign)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


def moment(seconds: float | None) -> str:
    """An event time, in UTC; a dash for none."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}" if seconds else "-"


def day(seconds: float | None) -> str:
    """An event time's day, in UTC; a dash for none."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}" if seconds else "-"


def is_terminal() -> bool:
    """True if a person watches; else lines are plain and nothing is redrawn."""
    return sys.stdout.isatty()


class StatusLine:
    """One line that is redrawn in a terminal; elsewhere a plain line every five seconds, and the last one at the end.

    It goes to stderr, since it is not what a command was asked to print.
    """

    def __init__(self, quiet: bool = False, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._monotonic = monotonic
        self._redraw = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn = False
        self._next = monotonic()
        self._pending = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            typer.echo(err=True)
        elif self._pending and not self._quiet:
            typer.echo(self._pending, err=True)

    def show(self, line: str) -> None:
        """Say how things are now."""
        if self._quiet:
            return
        if self._redraw:
            self._drawn = True
            width = shutil.get_terminal_size().columns - 1
            typer.echo(f"\r\x1b[2K{line[:width]}", nl=False, err=True)
            return
        self._pending = line
        if self._monotonic() >= self._next:
            typer.echo(line, err=True)
            self._pending = ""
            self._next = self._monotonic() + _PLAIN_INTERVAL_S

"""Output: JSON and CSV for programs, tables for people, and times and numbers as people read them."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import msgspec
import typer

__all__ = [
    "StatusLine",
    "csv_line",
    "day",
    "heading",
    "is_terminal",
    "moment",
    "print_csv",
    "print_csv_row",
    "print_json",
    "print_line",
    "print_stale",
    "print_table",
    "printable",
    "shortened",
    "sparkline",
    "text",
]

_PLAIN_INTERVAL_S = 5.0
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:-=+*#@"


def print_json(value: Any) -> None:
    """One JSON document; NaN, which JSON does not know, becomes null."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_stale(freshness: Mapping[str, Any]) -> None:
    """One line for an answer that is older than its TTL allows; nothing for one that is fresh."""
    if freshness["stale"]:
        typer.echo(f"stale: {freshness['why']}")


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A header and a line per row, as RFC 4180 quotes them."""
    for row in (columns, *rows):
        print_csv_row(row)


def print_csv_row(values: Sequence[object]) -> None:
    """One row; in a terminal, which would obey what foreign text holds, on one line and escaped."""
    line = csv_line(values)
    typer.echo(printable(line) if is_terminal() else line)


def csv_line(values: Sequence[object]) -> str:
    """One row without its line end; what is absent is empty.

    >>> csv_line([1234, 4.5, None, float("nan"), "Thing, The", "say"])
    '1234,4.5,,,"Thing, The",say'
    """
    line = io.StringIO()
    absent = [value is None or (isinstance(value, float) and math.isnan(value)) for value in values]
    plain = ["" if no else value for no, value in zip(absent, values, strict=True)]
    csv.writer(line, lineterminator="").writerow(plain)
    return line.getvalue()


def sparkline(counts: Sequence[int], *, ascii_only: bool | None = None) -> str:
    """Counts as a line of bars, the largest of them the highest, zero a blank; in ASCII where stdout knows no blocks.

    >>> sparkline([0, 1, 4, 8], ascii_only=False), sparkline([0, 1, 4, 8], ascii_only=True)
    (' ▁▄█', ' .=@')
    """
    if ascii_only is None:
        ascii_only = not _prints(_BLOCKS)
    bars = _ASCII if ascii_only else _BLOCKS
    top = max(counts, default=0)
    return "".join(bars[-(-count * (len(bars) - 1) // top) if count else 0] for count in counts)


def _prints(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, fit: bool = False) -> None:
    """Aligned columns, numbers to the right, nothing drawn around them: easy to read, grep and cut.

    fit: in a terminal, lines end where it does; for a table whose last column may be long and is no news.
    """
    from rich.cells import cell_len  # a title may hold characters that are two columns wide, or none

    def padded(cell: str, width: int, right: bool) -> str:
        space = " " * (width - cell_len(cell))
        return space + cell if right else cell + space

    cells = [[printable(text(value)) for value in row] for row in rows]
    right = [all(_is_number(row[i]) for row in cells) and bool(cells) for i in range(len(columns))]
    widths = [max(cell_len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    for row in [list(columns), *cells]:
        line = [padded(c, w, r) for c, w, r in zip(row, widths, right, strict=True)]
        (print_line if fit else typer.echo)("  ".join(line).rstrip())


def print_line(line: str) -> None:
    """A line that ends where the terminal does; all of it where stdout is no terminal."""
    typer.echo(shortened(line, shutil.get_terminal_size().columns if is_terminal() else None))


def shortened(line: str, columns: int | None) -> str:
    """As much of a line as fits, the end marked where some is missing; all of it for None.

    >>> shortened("Shawshank Redemption, The", 12), shortened("Heat", 12), shortened("Heat", None)
    ('Shawshank...', 'Heat', 'Heat')
    """
    from rich.cells import cell_len, set_cell_size

    if columns is None or cell_len(line) <= columns:
        return line
    return set_cell_size(line, max(columns - 3, 0)).rstrip() + "..."


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

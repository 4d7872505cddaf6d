"""Ratings of any MovieLens format, checked row by row and brought into their total order by DuckDB.

A file either gives all its ratings, or one error that names line, what was expected and what was found.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from streams.errors import DataError
from streams.events import EARLIEST_TIMESTAMP
from streams.movielens.layout import RATING_COLUMNS, Layout
from streams.movielens.releases import PAGE

__all__ = ["RENEW", "RatingColumns", "check_header", "read_ratings"]

RENEW = f"is the file truncated? Unpack the archive from {PAGE} again"

RatingColumns = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint8], npt.NDArray[np.int32]]
"""User, movie, half stars and timestamp."""

_FETCH_ROWS = 2_000_000
_MAX_INT32 = 2**31 - 1
_MAX_LINE = 10_000
"""Characters of a line that are looked at; a broken file may have no line ends at all."""

# Every rating is an integer in [1, 10] once doubled; ids and times fit 32 bits in every MovieLens release. All are read
# as DOUBLE, which holds them exactly: read as INTEGER, the user 3.7 would silently be the user 4.
_VALID = f"""
    user_id >= 0 AND movie_id >= 0 AND rating BETWEEN 0.5 AND 5 AND timestamp >= {EARLIEST_TIMESTAMP}
    AND rating * 2 = trunc(rating * 2)
    AND user_id = trunc(user_id) AND movie_id = trunc(movie_id) AND timestamp = trunc(timestamp)
"""


def check_header(path: Path, columns: tuple[str, ...]) -> None:
    """Raise DataError unless the first line of a CSV file names these columns."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        found = tuple(next(csv.reader([file.readline(1_000)]), []))
    if found != columns:
        raise DataError(
            f"{path} line 1: expected the columns {','.join(columns)}, found {','.join(found)[:80] or 'nothing'}; "
            "is this a MovieLens folder?"
        )


def read_ratings(path: Path, layout: Layout) -> RatingColumns:
    """All ratings of a file, ordered by (timestamp, user, movie). Raises DataError for a row that is none."""
    if layout.header:
        check_header(path, RATING_COLUMNS)
    with tempfile.TemporaryDirectory(prefix="streamlens-") as spill, duckdb.connect() as db:
        db.execute("SET memory_limit = '640MB'")
        db.execute("SET temp_directory = $1", [spill])
        db.execute("SET enable_progress_bar = false")
        try:
            db.execute(
                f"""
                CREATE TEMP TABLE ratings AS
                SELECT user_id::INTEGER AS user_id, movie_id::INTEGER AS movie_id,
                    (rating * 2)::UTINYINT AS half_stars, timestamp::INTEGER AS timestamp, {_VALID} AS valid
                FROM read_csv($1, header = $2, delim = $3, quote = $4, escape = $4, auto_detect = false, columns =
                    {{user_id: 'DOUBLE', movie_id: 'DOUBLE', rating: 'DOUBLE', timestamp: 'DOUBLE'}})
                ORDER BY 4, 1, 2
                """,
                [str(path), layout.header, layout.separator, '"' if layout.header else ""],
            )
        except duckdb.Error as error:
            raise _first_bad_row(path, layout) or _unreadable(path, error) from error
        n, n_valid = db.execute("SELECT count(*), count(*) FILTER (valid) FROM ratings").fetchall()[0]
        if n_valid < n:
            raise _first_bad_row(path, layout) or DataError(f"{path}: {n - n_valid} rows are not ratings; {RENEW}")
        if n == 0:
            expected = "line 2: expected ratings below the header" if layout.header else "line 1: expected ratings"
            raise DataError(f"{path} {expected}, found the end of the file; {RENEW}")
        columns = (np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.int32))
        for begin in range(0, n, _FETCH_ROWS):
            part = db.execute(
                "SELECT user_id, movie_id, half_stars, timestamp FROM ratings WHERE rowid >= $1 AND rowid < $2",
                [begin, begin + _FETCH_ROWS],
            ).fetchnumpy()
            for column, values in zip(columns, part.values(), strict=True):
                column[begin : begin + _FETCH_ROWS] = values
    return columns


def _first_bad_row(path: Path, layout: Layout) -> DataError | None:
    """What is wrong with the first row that is not a rating: a second, slower reading that counts lines."""
    for number, line in _lines(path):
        if number == 1 and layout.header:
            continue
        row = next(csv.reader([line]), []) if layout.header and '"' in line else line.split(layout.separator)
        expected = _expected_instead(row, layout.separator) if line else None  # empty lines are skipped
        if expected is not None:
            return DataError(f"{path} line {number}: expected {expected}, found {line[:80]!r}; {RENEW}")
    return None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines by number, without their ends."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            yield number, line.rstrip("\n")


def _expected_instead(row: list[str], separator: str) -> str | None:
    """What a row should have held, or None if it is a rating."""
    if len(row) != len(RATING_COLUMNS):
        return f"{len(RATING_COLUMNS)} values ({separator.expandtabs(1).join(RATING_COLUMNS)})"
    for name, value in zip(("userId", "movieId", "timestamp"), (row[0], row[1], row[3]), strict=True):
        lowest = EARLIEST_TIMESTAMP if name == "timestamp" else 0
        number = _number(value)
        if not (number.is_integer() and lowest <= number <= _MAX_INT32):
            return f"a {name} from {lowest} to {_MAX_INT32}"
    return None if _number(row[2]) * 2 in range(1, 11) else "a rating from 0.5 to 5.0 in half stars"


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _unreadable(path: Path, error: duckdb.Error) -> DataError:
    """A file whose every row is a rating, and that DuckDB still cannot read."""
    with path.open(encoding="utf-8", errors="replace") as file:
        while not isinstance(file.newlines, tuple) and file.readline(_MAX_LINE):
            pass
        ends = file.newlines
    if isinstance(ends, tuple):
        kinds = " and ".join(repr(end) for end in sorted(ends))
        return DataError(f"{path}: expected one kind of line end, found {kinds}; make them all '\\n'")
    return DataError(f"{path}: expected ratings, found what DuckDB cannot read: {str(error).splitlines()[0]}; {RENEW}")

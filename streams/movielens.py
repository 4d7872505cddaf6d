"""MovieLens folders: ``ratings.csv`` and ``movies.csv`` of ml-latest-small, ml-latest, 25M and 32M.

Loading is checked row by row: a folder either gives all its ratings in their total order, or one error that names
file, row, what was expected and what was found. DuckDB reads and sorts the file within a bounded memory; the ratings
are then kept as 13 bytes each and widened chunk by chunk.
"""

from __future__ import annotations

import csv
import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from streams.dataset import DEFAULT_DATASET, Movie, Ratings
from streams.errors import DataError
from streams.events import EARLIEST_TIMESTAMP

__all__ = ["MovieLensFolder", "find_bundled", "read_movies"]

_RATINGS_COLUMNS = ["userId", "movieId", "rating", "timestamp"]
_MOVIES_COLUMNS = ["movieId", "title", "genres"]
_DOWNLOAD = "https://grouplens.org/datasets/movielens/"
_RENEW = f"is the file truncated? Unpack the archive from {_DOWNLOAD} again"
_FETCH_ROWS = 2_000_000
_MAX_INT32 = 2**31 - 1
_YEAR = re.compile(r"\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)\s*$")

# Every rating is an integer in [1, 10] once doubled; ids and times fit 32 bits in every MovieLens release.
_VALID = f"""
    user_id >= 0 AND movie_id >= 0 AND rating BETWEEN 0.5 AND 5 AND rating * 2 = round(rating * 2)
    AND timestamp >= {EARLIEST_TIMESTAMP}
"""


def find_bundled() -> Path:
    """The folder of ml-latest-small: ``data/`` of the working directory, else of the checkout this code runs from."""
    places = [Path.cwd(), Path(__file__).resolve().parent.parent]
    for place in places:
        folder = place / "data" / DEFAULT_DATASET
        if folder.is_dir():
            return folder
    raise DataError(
        f"expected the default dataset in {places[0] / 'data' / DEFAULT_DATASET}, found no such folder; "
        f"unpack ml-latest-small.zip from {_DOWNLOAD} there, name a folder, or use the dataset 'synthetic'"
    )


class MovieLensFolder:
    """A folder with ``ratings.csv`` and ``movies.csv``, as unpacked from a MovieLens archive.

    Opening it reads all ratings: 25 million take 15 s, with 0.9 GB while they are sorted and 0.4 GB afterwards.
    Raises DataError for a folder or file that is missing, has other columns, or holds a row that is not a rating.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        self.name = self._folder.resolve().name
        self._ratings_file = _existing(self._folder, "ratings.csv")
        self._movies_file = _existing(self._folder, "movies.csv")
        _check_header(self._ratings_file, _RATINGS_COLUMNS)
        _check_header(self._movies_file, _MOVIES_COLUMNS)
        self._user_id, self._movie_id, self._half_stars, self._timestamp = _read_ratings(self._ratings_file)
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both files."""
        if self._fingerprint is None:
            digests = []
            for path in (self._ratings_file, self._movies_file):
                with path.open("rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256").hexdigest())
            self._fingerprint = hashlib.sha256(" ".join(digests).encode()).hexdigest()
        return self._fingerprint

    @property
    def n_ratings(self) -> int:
        return len(self._timestamp)

    @property
    def first_timestamp(self) -> int:
        return int(self._timestamp[0])

    @property
    def last_timestamp(self) -> int:
        return int(self._timestamp[-1])

    def timestamp_at(self, position: int) -> int:
        if not 0 <= position < self.n_ratings:
            raise IndexError(f"position: expected 0 to {self.n_ratings - 1}, found {position}")
        return int(self._timestamp[position])

    def position_of(self, timestamp: int) -> int:
        return int(np.searchsorted(self._timestamp, timestamp))

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        for begin in range(start, self.n_ratings, size):
            part = slice(begin, begin + size)
            yield Ratings(
                self._user_id[part].astype(np.int64),
                self._movie_id[part].astype(np.int64),
                self._half_stars[part] / 2.0,
                self._timestamp[part].astype(np.int64),
            )

    def movies(self) -> dict[int, Movie]:
        return _read_movies(self._movies_file)


def read_movies(folder: Path) -> dict[int, Movie]:
    """The movies of a folder, by id. Raises DataError as :class:`MovieLensFolder` does."""
    return _read_movies(_existing(folder, "movies.csv"))


def _existing(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: expected a MovieLens folder, found {'a file' if folder.exists() else 'nothing'}; "
            f"unpack an archive from {_DOWNLOAD} there, or use the dataset 'synthetic'"
        )
    path = folder / name
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "an empty folder"
        raise DataError(
            f"{path}: expected this file of ml-latest-small, ml-latest, 25M or 32M, found {found}; "
            f"unpack the whole archive from {_DOWNLOAD}"
        )
    return path


def _check_header(path: Path, columns: list[str]) -> None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        found = next(csv.reader([file.readline(1_000)]), [])
    if found != columns:
        raise DataError(
            f"{path} line 1: expected the columns {','.join(columns)}, found {','.join(found)[:80] or 'nothing'}; "
            "is this a MovieLens folder?"
        )


def _read_ratings(
    path: Path,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """User, movie, half stars and timestamp of all ratings, ordered by (timestamp, user, movie)."""
    with tempfile.TemporaryDirectory(prefix="streamlens-") as spill, duckdb.connect() as db:
        db.execute("SET memory_limit = '640MB'")
        db.execute("SET temp_directory = $1", [spill])
        db.execute("SET enable_progress_bar = false")
        try:
            db.execute(
                f"""
                CREATE TEMP TABLE ratings AS
                SELECT user_id, movie_id, (rating * 2)::UTINYINT AS half_stars, timestamp, {_VALID} AS valid
                FROM read_csv($1, header = true, delim = ',', quote = '"', auto_detect = false, columns =
                    {{user_id: 'INTEGER', movie_id: 'INTEGER', rating: 'DOUBLE', timestamp: 'INTEGER'}})
                ORDER BY timestamp, user_id, movie_id
                """,
                [str(path)],
            )
        except duckdb.Error as error:
            raise _first_bad_row(path) or DataError(f"{path}: {str(error).splitlines()[0]}") from error
        n, n_valid = db.execute("SELECT count(*), count(*) FILTER (valid) FROM ratings").fetchall()[0]
        if n_valid < n:
            raise _first_bad_row(path) or DataError(f"{path}: {n - n_valid} rows are not ratings")
        if n == 0:
            raise DataError(f"{path} line 2: expected ratings below the header, found the end of the file; {_RENEW}")
        columns = (np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint8), np.empty(n, np.int32))
        for begin in range(0, n, _FETCH_ROWS):
            part = db.execute(
                "SELECT user_id, movie_id, half_stars, timestamp FROM ratings WHERE rowid >= $1 AND rowid < $2",
                [begin, begin + _FETCH_ROWS],
            ).fetchnumpy()
            for column, values in zip(columns, part.values(), strict=True):
                column[begin : begin + _FETCH_ROWS] = values
    return columns


def _first_bad_row(path: Path) -> DataError | None:
    """What is wrong with the first row that is not a rating: a second, slower reading that counts lines."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        for row in reader:
            expected = _expected_instead(row) if row else None  # empty lines are skipped
            if expected is not None:
                found = ",".join(row)[:80]
                return DataError(f"{path} line {reader.line_num}: expected {expected}, found {found!r}; {_RENEW}")
    return None


def _expected_instead(row: list[str]) -> str | None:
    """What a row of ratings.csv should have held, or None if it is a rating."""
    if len(row) != len(_RATINGS_COLUMNS):
        return f"{len(_RATINGS_COLUMNS)} values ({','.join(_RATINGS_COLUMNS)})"
    for name, value in zip(("userId", "movieId", "timestamp"), (row[0], row[1], row[3]), strict=True):
        lowest = EARLIEST_TIMESTAMP if name == "timestamp" else 0
        if not (value.isascii() and value.isdigit() and lowest <= int(value) <= _MAX_INT32):
            return f"a {name} from {lowest} to {_MAX_INT32}"
    try:
        half_stars = float(row[2]) * 2
    except ValueError:
        half_stars = 0.0
    return None if half_stars in range(1, 11) else "a rating from 0.5 to 5.0 in half stars"


def _read_movies(path: Path) -> dict[int, Movie]:
    movies = {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        for row in filter(None, reader):
            if len(row) != len(_MOVIES_COLUMNS) or not (row[0].isascii() and row[0].isdigit()):
                found = ",".join(row)[:80]
                raise DataError(
                    f"{path} line {reader.line_num}: expected movieId,title,genres, found {found!r}; {_RENEW}"
                )
            movie_id, title, genres = int(row[0]), row[1].strip(), row[2]
            year = _YEAR.search(title)
            names = () if genres == "(no genres listed)" else tuple(genres.split("|"))
            movies[movie_id] = Movie(movie_id, title, int(year[1]) if year else None, names)
    return movies

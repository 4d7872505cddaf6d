"""Movies of any MovieLens format: title, year and genres by id.

``movies.csv`` is UTF-8 and quoted. ``movies.dat`` and ``u.item`` are Latin-1 in 1M and 100K and UTF-8 in 10M: what does
not read as UTF-8 is Latin-1. ``u.item`` marks its genres by flags, in the order of ``u.genre``.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from streams.dataset import Movie
from streams.errors import DataError
from streams.movielens.layout import CSV, DAT, Layout
from streams.movielens.ratings import RENEW, check_header

__all__ = ["MOVIE_COLUMNS", "movies_of"]

MOVIE_COLUMNS = ("movieId", "title", "genres")
_ITEM_FIELDS = 5
"""Of ``u.item`` before its flags: id, title, release date, video release date, address at IMDb."""
_NO_GENRES = {"(no genres listed)", "unknown", ""}
"""How the formats write that a movie has none: CSV and 10M, 100K, and a field left empty."""
_YEAR = re.compile(r"\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)\s*$")
_RELEASED = re.compile(r"\d{1,2}-[A-Za-z]{3}-(\d{4})$")


def movies_of(folder: Path, layout: Layout) -> dict[int, Movie]:
    """The movies of a folder by id. Raises DataError for a file without, and a row that is none, with its line."""
    path = folder / layout.movies_file
    if layout is CSV:
        movies = _from_csv(path)
    elif layout is DAT:
        movies = _from_dat(path)
    else:
        movies = _from_flags(path, _genre_names(folder / str(layout.genres_file)))
    by_id = {movie.movie_id: movie for movie in movies}
    if not by_id:
        raise DataError(f"{path}: expected movies, found none; {RENEW}")
    return by_id


def _from_csv(path: Path) -> Iterator[Movie]:
    check_header(path, MOVIE_COLUMNS)
    reader = csv.reader(io.StringIO(_utf8(path), newline=""))
    next(reader)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error:
            row = ["a quote that is not closed"]
        if row is None:
            return
        if row and (len(row) != len(MOVIE_COLUMNS) or not _is_id(row[0])):
            raise _not_a_movie(path, line, ",".join(MOVIE_COLUMNS), ",".join(row))
        if row:
            yield _movie(row[0], row[1], row[2].split("|"))


def _from_dat(path: Path) -> Iterator[Movie]:
    for number, line in _lines(path):
        movie_id, first, rest = line.partition("::")
        title, last, genres = rest.rpartition("::")
        if not (first and last and _is_id(movie_id)):
            raise _not_a_movie(path, number, "::".join(MOVIE_COLUMNS), line)
        yield _movie(movie_id, title, genres.split("|"))


def _from_flags(path: Path, names: list[str]) -> Iterator[Movie]:
    for number, line in _lines(path):
        row = line.split("|")
        flags = row[_ITEM_FIELDS:]
        if len(flags) != len(names) or not _is_id(row[0]) or not set(flags) <= {"0", "1"}:
            raise _not_a_movie(path, number, f"id|title|date|video date|address and {len(names)} flags 0 or 1", line)
        genres = [name for name, flag in zip(names, flags, strict=True) if flag == "1"]
        yield _movie(row[0], row[1], genres, released=row[2])


def _genre_names(path: Path) -> list[str]:
    names: list[str] = []
    for number, line in _lines(path):
        name, _, position = line.rpartition("|")
        if not name or position != str(len(names)):
            raise DataError(f"{path} line {number}: expected genre|{len(names)}, found {line[:80]!r}; {RENEW}")
        names.append(name)
    if not names:
        raise DataError(f"{path} line 1: expected genres, found the end of the file; {RENEW}")
    return names


def _movie(movie_id: str, title: str, genres: list[str], *, released: str = "") -> Movie:
    """A movie with the year in its title, else that of its release."""
    title = title.strip()
    year = _YEAR.search(title) or _RELEASED.match(released.strip())
    names = tuple(name for name in genres if name not in _NO_GENRES)
    return Movie(int(movie_id), title, int(year[1]) if year else None, names)


def _is_id(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 10


def _not_a_movie(path: Path, line: int, expected: str, found: str) -> DataError:
    return DataError(f"{path} line {line}: expected {expected}, found {found[:80]!r}; {RENEW}")


def _utf8(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} line {line}: expected UTF-8, found the byte 0x{error.object[error.start]:02x}; "
            f"was it saved in another encoding? {RENEW}"
        ) from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines by number, empty ones left out; a file that is not UTF-8 is Latin-1."""
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    for number, line in enumerate(text.split("\n"), 1):
        if line := line.removesuffix("\r"):
            yield number, line

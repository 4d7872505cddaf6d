"""Which MovieLens format a folder holds, told by its files; and what is wrong with a folder that holds none."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from streams.errors import DataError
from streams.movielens.releases import PAGE, RELEASES

__all__ = ["CSV", "DAT", "LAYOUTS", "RATING_COLUMNS", "TAB", "Layout", "find_layout"]

RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way MovieLens was published: its files, and how the values of a rating stand on their line.

    releases: those in this format, in words; genres_file: names of the genres where movies carry flags.
    """

    releases: str
    ratings_file: str
    movies_file: str
    separator: str
    header: bool = False
    genres_file: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All that is read, the ratings first."""
        return tuple(name for name in (self.ratings_file, self.movies_file, self.genres_file) if name)


CSV = Layout("ml-latest-small, ml-latest, 25M or 32M", "ratings.csv", "movies.csv", ",", header=True)
DAT = Layout("10M or 1M", "ratings.dat", "movies.dat", "::")
TAB = Layout("100K", "u.data", "u.item", "\t", genres_file="u.genre")
LAYOUTS = (CSV, DAT, TAB)


def find_layout(folder: Path, *, movies_only: bool = False) -> Layout:
    """The format of a folder that has all its files; with ``movies_only``, all but the ratings.

    Raises DataError, which says what the folder is instead.
    """
    _check_is_folder(folder)
    held = [layout for layout in LAYOUTS if (folder / layout.ratings_file).is_file()]
    if not held:
        held = [layout for layout in LAYOUTS if (folder / layout.movies_file).is_file()]
    if not held:
        raise _no_movielens(folder)
    if len(held) > 1:
        raise DataError(
            f"{folder}: expected one dataset, found {' and '.join(layout.files[0] for layout in held)}; "
            "give each a folder of its own"
        )
    (layout,) = held
    for name in layout.files[1:] if movies_only else layout.files:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name}: expected this file of {layout.releases}, found {_listed(_names_in(folder))}; "
                f"unpack the whole archive from {PAGE}"
            )
    return layout


def _check_is_folder(path: Path) -> None:
    if path.is_dir():
        return
    if path.is_file() and zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: expected a MovieLens folder, found a zip archive; unpack it and name the folder, "
            f"or have `streamlens data download {_release_of(path.stem)}` do both"
        )
    raise DataError(
        f"{path}: expected a MovieLens folder, found {'a file' if path.exists() else 'nothing'}; "
        f"unpack an archive from {PAGE} there, `streamlens data download NAME` does, or use the dataset 'synthetic'"
    )


def _no_movielens(folder: Path) -> DataError:
    """What a folder without ratings and movies is: one too high, one with the archive still packed, or another."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_ratings(path)]
    if inside:
        return DataError(
            f"{folder}: expected a MovieLens folder, found one level too high: it holds "
            f"{_listed(f'{path.name}/' for path in inside)}; name {inside[0]}"
        )
    names = _names_in(folder)
    archives = [name for name in names if name.lower().endswith(".zip")]
    if archives:
        return DataError(
            f"{folder}: expected a MovieLens folder, found {archives[0]} still packed; unpack it and name the folder, "
            f"or have `streamlens data download {_release_of(Path(archives[0]).stem)}` do both"
        )
    return DataError(
        f"{folder}: expected {_listed(layout.ratings_file for layout in LAYOUTS)} of a MovieLens archive, "
        f"found {_listed(names)}; unpack the whole archive from {PAGE}"
    )


def _holds_ratings(folder: Path) -> bool:
    return any((folder / layout.ratings_file).is_file() for layout in LAYOUTS)


def _release_of(stem: str) -> str:
    return stem if stem in RELEASES else "NAME"


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(list(names)[:6]) or "an empty folder"

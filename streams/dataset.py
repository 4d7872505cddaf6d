"""What the replayer replays: ratings in their total order, chunk by chunk, and the movies they are about.

The total order is ``(timestamp, user_id, movie_id)``: equal timestamps are common in MovieLens, and two replays must
publish the same records in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streams.records import Int64s

__all__ = ["DEFAULT_DATASET", "Dataset", "Movie", "Ratings", "open_dataset", "open_movies", "open_user_groups"]

DEFAULT_DATASET = "ml-latest-small"
"""The ratings that come with a checkout; they are no part of wheel or image."""


@dataclass(frozen=True, slots=True, eq=False)
class Ratings:
    """Ratings as columns of shape (n,): int64 ids, float64 stars (0.5 to 5), int64 seconds since the epoch.

    Injected drift may add two more: arrival, int64, the event time at which a record reaches the log, where that is
    not its timestamp for all; malformed, uint8, the sort of defect it is published with, 0 for none.
    """

    user_id: Int64s
    movie_id: Int64s
    rating: npt.NDArray[np.float64]
    timestamp: Int64s
    arrival: Int64s | None = None
    malformed: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def arrives(self) -> Int64s:
        """Event time at which each record reaches the log: what order, ticks and pace follow."""
        return self.timestamp if self.arrival is None else self.arrival

    def slice(self, start: int, stop: int | None = None) -> Ratings:
        """Ratings ``start`` to ``stop`` as views."""
        return self._at(slice(start, stop))

    def take(self, index: Int64s) -> Ratings:
        """The ratings at ``index``, copied."""
        return self._at(index)

    def _at(self, index: Any) -> Ratings:
        return Ratings(
            self.user_id[index],
            self.movie_id[index],
            self.rating[index],
            self.timestamp[index],
            None if self.arrival is None else self.arrival[index],
            None if self.malformed is None else self.malformed[index],
        )


@dataclass(frozen=True, slots=True)
class Movie:
    """A movie of the catalogue; ``year`` is None where the title names none."""

    movie_id: int
    title: str
    year: int | None
    genres: tuple[str, ...]


class Dataset(Protocol):
    """A source of ratings; equal ``fingerprint`` means equal ratings in equal order."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Hex digest over content (files) or over all options and the seed (synthetic)."""
        ...

    @property
    def n_ratings(self) -> int: ...

    @property
    def first_timestamp(self) -> int: ...

    @property
    def last_timestamp(self) -> int: ...

    def timestamp_at(self, position: int) -> int:
        """Event time at which the rating at ``position`` in the total order arrives. Raises IndexError beyond the ends.

        That is its timestamp, but for late records (``streams.drift``).
        """
        ...

    def position_of(self, timestamp: int) -> int:
        """How many ratings arrive before ``timestamp``: the position of the first one at or after it."""
        ...

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        """The ratings from position ``start`` on, in the total order, at most ``size`` at a time."""
        ...

    def movies(self) -> dict[int, Movie]: ...


def open_dataset(name: str = DEFAULT_DATASET) -> Dataset:
    """The dataset behind ``name``.

    name: a MovieLens folder of any format; "ml-latest-small" or another release by its name, found in ``data/`` of the
    working directory or of the checkout;
    or "synthetic", with options behind a colon: "synthetic:users=1000,ratings=200000,movies=5000,seed=7".
    Raises DataError for a folder that is not one, ConfigError for options that cannot be used.
    """
    kind, _, options = name.partition(":")
    if kind == "synthetic":
        from streams.synthetic import SyntheticDataset, parse_options

        return SyntheticDataset(parse_options(options))
    from streams.movielens import MovieLensFolder

    return MovieLensFolder(_folder(name))


def open_movies(name: str = DEFAULT_DATASET) -> dict[int, Movie]:
    """The movies of ``open_dataset(name)`` by id; of a folder, without reading its ratings. Raises as that does."""
    if name.partition(":")[0] == "synthetic":
        return open_dataset(name).movies()
    from streams.movielens import read_movies

    return read_movies(_folder(name))


def open_user_groups(name: str = DEFAULT_DATASET) -> dict[int, str]:
    """The demographic group of each user of ``open_dataset(name)``; empty for all but MovieLens 1M and 100K."""
    if name.partition(":")[0] == "synthetic":
        return {}
    from streams.movielens import read_user_groups

    return read_user_groups(_folder(name))


def _folder(name: str) -> Path:
    from streams.movielens import RELEASES, find_bundled

    path = Path(name).expanduser()
    return find_bundled(name) if name in RELEASES and not path.exists() else path

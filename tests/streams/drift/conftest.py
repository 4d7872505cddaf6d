"""Data to put drift into: ratings held in memory, of movies with genres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from streams.dataset import Movie, Ratings
from streams.events import DAY_S

DAY_0 = 12_000 * DAY_S
GENRES = (("Drama",), ("Comedy", "Drama"), ("War",), ())


@dataclass
class HeldDataset:
    """Ratings in their total order; ``chunk_size`` cuts its chunks whatever size is asked for."""

    ratings: Ratings
    chunk_size: int = 100_000
    name: str = "held"
    fingerprint: str = "f"

    @property
    def n_ratings(self) -> int:
        return len(self.ratings)

    @property
    def first_timestamp(self) -> int:
        return self.timestamp_at(0)

    @property
    def last_timestamp(self) -> int:
        return self.timestamp_at(self.n_ratings - 1)

    def timestamp_at(self, position: int) -> int:
        if not 0 <= position < self.n_ratings:
            raise IndexError(position)
        return int(self.ratings.timestamp[position])

    def position_of(self, timestamp: int) -> int:
        return int(np.searchsorted(self.ratings.timestamp, timestamp))

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        size = min(size, self.chunk_size)
        for begin in range(start, self.n_ratings, size):
            yield self.ratings.slice(begin, begin + size)

    def movies(self) -> dict[int, Movie]:
        ids = np.unique(self.ratings.movie_id).tolist()
        return {i: Movie(i, f"Movie {i} (1999)", 1999, GENRES[i % len(GENRES)]) for i in ids}


def hold(n: int, days: float, *, seed: int = 0, seconds: int = 1, users: int = 40, movies: int = 99) -> HeldDataset:
    """``n`` ratings over ``days``, some movies far more popular than others; times are multiples of ``seconds``."""
    rng = np.random.default_rng(seed)
    times = DAY_0 + rng.integers(0, max(int(days * DAY_S), 1), n) // seconds * seconds
    arrival = np.sort(rng.integers(0, max(int(days * DAY_S), 1), users))  # users come one after the other
    user = np.array([rng.integers(1, 2 + np.searchsorted(arrival, t - DAY_0)) for t in times.tolist()], np.int64)
    movie = np.minimum(rng.geometric(0.1, n), movies).astype(np.int64)
    order = np.lexsort((movie, user, times))
    return HeldDataset(Ratings(user[order], movie[order], rng.integers(1, 11, n) / 2, times[order]))


@pytest.fixture(scope="session")
def held() -> Callable[..., HeldDataset]:
    return hold

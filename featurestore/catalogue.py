"""The movies a store knows: title, year and genres, and how ratings spread over genres.

A store is built with one catalogue, because users' taste depends on it; its fingerprint stands in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from featurestore.decay import Float64s
from streams.dataset import Movie
from streams.records import Int64s

__all__ = ["EMPTY_CATALOGUE", "Catalogue"]


@dataclass(frozen=True, slots=True, eq=False)
class _GenreRows:
    """Genre codes of each movie: ``codes[start[i]:start[i + 1]]`` for ``movie_ids[i]``, which rise."""

    movie_ids: Int64s
    start: Int64s
    codes: Int64s


class Catalogue:
    """Movies by rising id. ``genres``: all genre names, sorted; a movie may have none."""

    def __init__(self, movies: Iterable[Movie] = ()) -> None:
        self.movies: Mapping[int, Movie] = {m.movie_id: m for m in sorted(movies, key=lambda m: m.movie_id)}
        self.genres: tuple[str, ...] = tuple(sorted({genre for m in self.movies.values() for genre in m.genres}))

    def __len__(self) -> int:
        return len(self.movies)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all movies."""
        rows = [[m.movie_id, m.title, m.year, list(m.genres)] for m in self.movies.values()]
        return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()

    @cached_property
    def _genre_rows(self) -> _GenreRows:
        code = {genre: i for i, genre in enumerate(self.genres)}
        codes = [code[genre] for m in self.movies.values() for genre in m.genres]
        counts = [len(m.genres) for m in self.movies.values()]
        return _GenreRows(
            movie_ids=np.fromiter(self.movies, np.int64, len(self.movies)),
            start=np.concatenate(([0], np.cumsum(counts, dtype=np.int64))),
            codes=np.array(codes, np.int64),
        )

    def genre_sums(
        self, group: Int64s, n_groups: int, movie_id: Int64s, half_stars: Int64s, weight: Float64s
    ) -> Float64s:
        """Weighted counts and half-star sums per group and genre: float64 (n_groups, genres, 2).

        group, movie_id, half_stars, weight: (n,), one rating each; ``group`` from 0. A rating counts for every genre of
        its movie; one of a movie that is not in the catalogue counts for none.
        """
        rows, n_genres = self._genre_rows, len(self.genres)
        if not n_genres:
            return np.zeros((n_groups, 0, 2))
        at = np.searchsorted(rows.movie_ids, movie_id)
        at[at == len(rows.movie_ids)] = 0
        counts = np.where(rows.movie_ids[at] == movie_id, rows.start[at + 1] - rows.start[at], 0)
        rating = np.repeat(np.arange(len(movie_id)), counts)
        within = np.arange(len(rating)) - np.repeat(np.cumsum(counts) - counts, counts)
        cell = group[rating] * n_genres + rows.codes[np.repeat(rows.start[at], counts) + within]
        sums = np.empty((n_groups * n_genres, 2))
        sums[:, 0] = np.bincount(cell, weight[rating], minlength=len(sums))
        sums[:, 1] = np.bincount(cell, (weight * half_stars)[rating], minlength=len(sums))
        return sums.reshape(n_groups, n_genres, 2)


EMPTY_CATALOGUE = Catalogue()

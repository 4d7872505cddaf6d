"""What genres each user rated so far, and how well what a user rates today fits that.

A taste that turns moves neither stars nor popularity, but what is rated comes from other genres than before.
"""

from __future__ import annotations

import msgspec
import numpy as np

from agents.monitor_columns import PackedArray, RatingColumns, pack, unpack
from featurestore.catalogue import Catalogue
from models.metrics import Floats
from streams.records import Int64s

__all__ = ["TasteBook", "TasteBookState"]

_LEAST = 5
"""Genres that a user must have rated (those of a movie count each) before a day is compared with them."""
_PRIOR = 10.0
"""Genres that a user is taken to have rated as everybody does, so that what was never rated is unlikely, no more."""


class TasteBookState(msgspec.Struct, frozen=True):
    """``TasteBook`` as JSON holds it: users in the order in which they came, ratings by user and genre."""

    users: PackedArray
    counts: PackedArray
    fit_sum: float
    n_fit: int


class TasteBook:
    """Ratings by user and genre of ``catalogue``; without genres nothing fits or does not."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._row: dict[int, int] = {}
        self._counts = np.zeros((0, len(catalogue.genres)), np.int64)
        self._fit_sum, self._n_fit = 0.0, 0

    def add(self, ratings: RatingColumns) -> Floats:
        """Take in a day's ratings (n,); how well each fits what its user rated on the days before: float64 (n,).

        That is the log of how much likelier its genres are with this user than with everybody, less what that was on
        average on the days before; NaN for a user of whom too little is known, and for a movie without genres.
        """
        n, fit = len(ratings), np.full(len(ratings), np.nan)
        if not n or not self._catalogue.genres:
            return fit
        movies, movie = np.unique(ratings.movie_id, return_inverse=True)
        users, owner = np.unique(ratings.user_id, return_inverse=True)
        row = self._rows_of(users)
        genres = self._genres_of(movies)
        everybody = self._counts.sum(axis=0)
        held = self._counts[row]
        told = held.sum(axis=1)
        known = (told >= _LEAST)[owner] & (genres @ everybody > 0)[movie]
        if known.any():
            usual = everybody / everybody.sum()
            own = (held + _PRIOR * usual) / (told + _PRIOR)[:, None]
            at = np.flatnonzero(known)
            likely = np.einsum("ng,ng->n", genres[movie[at]], own[owner[at]])
            found = np.log(likely / (genres @ usual)[movie[at]])
            if self._n_fit:
                fit[at] = found - self._fit_sum / self._n_fit
            self._fit_sum, self._n_fit = self._fit_sum + float(found.sum()), self._n_fit + len(found)
        np.add.at(self._counts, row[owner], genres[movie])
        return fit

    def state(self) -> TasteBookState:
        users = np.fromiter(self._row, np.int64, len(self._row))
        return TasteBookState(pack(users), pack(self._counts[: len(users)]), self._fit_sum, self._n_fit)

    @classmethod
    def of(cls, state: TasteBookState, catalogue: Catalogue) -> TasteBook:
        """Raises ValueError for a state over other genres."""
        book = cls(catalogue)
        users, counts = unpack(state.users), unpack(state.counts)
        if counts.shape != (len(users), len(catalogue.genres)):
            raise ValueError(
                f"taste: expected counts of {len(users)} users by {len(catalogue.genres)} genres, found {counts.shape}"
            )
        book._row = {user: row for row, user in enumerate(users.tolist())}
        book._counts = counts.copy()
        book._fit_sum, book._n_fit = state.fit_sum, state.n_fit
        return book

    def _genres_of(self, movies: Int64s) -> Int64s:
        """1 where the movie has the genre: int64 (m, genres)."""
        one = np.ones(len(movies))
        sums = self._catalogue.genre_sums(np.arange(len(movies)), len(movies), movies, one.astype(np.int64), one)
        return sums[:, :, 0].astype(np.int64)

    def _rows_of(self, users: Int64s) -> Int64s:
        """Of each user; a new one gets an empty one."""
        rows = np.array([self._row.setdefault(user, len(self._row)) for user in users.tolist()], np.int64)
        if (missing := len(self._row) - len(self._counts)) > 0:
            more = max(missing, len(self._counts) // 2)  # rarely, so that a day costs what it holds
            self._counts = np.concatenate([self._counts, np.zeros((more, self._counts.shape[1]), np.int64)])
        return rows

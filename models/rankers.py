"""Whoever is evaluated, in one shape: lists for users with histories, and stars where it predicts them.

A model answers by user where it was trained on these users, by history where it was not; a synthetic world's oracle
knows what users like, and is the score that no model can be expected to pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from models.interactions import Float32s, Histories
from models.ranking import top_k
from models.recommender import RatingPredictor, Recommender
from streams.events import DAY_S
from streams.records import Int64s
from streams.synthetic import Oracle

__all__ = ["ByHistory", "ByUser", "OracleRanker", "Ranker"]

_PAIRS_AT_ONCE = 1 << 20


class Ranker(Protocol):
    """What evaluation asks. user_ids, timestamps: (n,), who and when; histories: what each had rated by then."""

    name: str

    def rank(self, user_ids: Int64s, histories: Histories, timestamps: Int64s, k: int) -> Int64s:
        """The ``k`` best movies for each that are not in the history: int64 (n, k), ``NO_MOVIE`` where none is left."""
        ...

    def stars(self, user_ids: Int64s, histories: Histories, movie_ids: Int64s) -> Float32s | None:
        """The stars (n,) that each gives the movie beside it; None from whoever predicts none."""
        ...


class ByUser:
    """A trained model, asked about users of its training."""

    def __init__(self, model: Recommender) -> None:
        self.name = model.name
        self._model = model

    def rank(self, user_ids: Int64s, histories: Histories, timestamps: Int64s, k: int) -> Int64s:
        return self._model.recommend(user_ids, k).movie_ids

    def stars(self, user_ids: Int64s, histories: Histories, movie_ids: Int64s) -> Float32s | None:
        return self._model.predict(user_ids, movie_ids) if isinstance(self._model, RatingPredictor) else None


class ByHistory:
    """A trained model, asked about histories alone. groups: of users, for those without a history."""

    def __init__(self, model: Recommender, groups: Mapping[int, str] | None = None) -> None:
        self.name = model.name
        self._model = model
        self._groups = groups or {}

    def rank(self, user_ids: Int64s, histories: Histories, timestamps: Int64s, k: int) -> Int64s:
        groups = [self._groups.get(user) for user in user_ids.tolist()] if self._groups else None
        return self._model.recommend_for_history(histories, k, groups=groups).movie_ids

    def stars(self, user_ids: Int64s, histories: Histories, movie_ids: Int64s) -> Float32s | None:
        if not isinstance(self._model, RatingPredictor):
            return None
        return self._model.predict_for_history(histories, movie_ids)


class OracleRanker:
    """The truth of a synthetic world: movies by the chance that the user picks them next, on the day that it is.

    It knows no more than that: what is picked, and the noise of the stars, is chance. Where a split mixes times, it is
    asked about the mean time of a user's held-out ratings.
    """

    name = "oracle"

    def __init__(self, oracle: Oracle, movie_ids: Int64s) -> None:
        """movie_ids: all of the world, rising."""
        self._oracle, self._movie_ids = oracle, movie_ids

    def rank(self, user_ids: Int64s, histories: Histories, timestamps: Int64s, k: int) -> Int64s:
        ranked = np.empty((len(user_ids), k), np.int64)
        day = timestamps // DAY_S
        order = np.argsort(day, kind="stable")
        at_once = max(1, _PAIRS_AT_ONCE // len(self._movie_ids))
        for same_day in np.split(order, np.flatnonzero(np.diff(day[order])) + 1):
            for first in range(0, len(same_day), at_once):
                rows = same_day[first : first + at_once]
                ranked[rows] = self._rank(rows, user_ids, histories, int(timestamps[rows[0]]), k)
        return ranked

    def stars(self, user_ids: Int64s, histories: Histories, movie_ids: Int64s) -> Float32s | None:
        return self._oracle.expected_rating(user_ids, movie_ids).astype(np.float32)

    def _rank(self, rows: Int64s, user_ids: Int64s, histories: Histories, timestamp: int, k: int) -> Int64s:
        n, m = len(rows), len(self._movie_ids)
        users, movies = np.repeat(user_ids[rows], m), np.tile(self._movie_ids, n)
        scores = self._oracle.affinity(users, movies, timestamp=timestamp).astype(np.float32).reshape(n, m)
        for i, row in enumerate(rows):
            seen = histories.movie_id[histories.start[row] : histories.start[row + 1]]
            scores[i, np.searchsorted(self._movie_ids, seen)] = -np.inf
        columns, _ = top_k(scores, k)
        return np.where(columns < 0, columns, self._movie_ids[columns])

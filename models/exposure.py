"""Lists that together show many movies: each movie stands in so many lists at most.

A cap on exposure is the bluntest way to coverage, and says what coverage costs: with a cap of 1, n users see n * k
movies, or all there are. Who comes first matters, so users take turns, each time in another order, a movie a turn.
"""

from __future__ import annotations

import numpy as np

from models.interactions import Float32s, Histories
from models.ranking import NO_MOVIE
from models.recommender import Recommender
from streams.records import Int64s

__all__ = ["ExposureCap", "capped_lists"]


class ExposureCap:
    """A :class:`models.rankers.Ranker`: a trained model, its lists made together, no movie in more than ``cap``."""

    def __init__(self, model: Recommender, cap: int, *, seed: int = 0) -> None:
        self.name = f"{model.name}-cap-{cap}"
        self._model, self._cap, self._seed = model, cap, seed

    def rank(self, user_ids: Int64s, histories: Histories, timestamps: Int64s, k: int) -> Int64s:
        scores = self._model.score(histories)
        known = np.isin(histories.movie_id, self._model.movie_ids)
        scores[histories.row[known], np.searchsorted(self._model.movie_ids, histories.movie_id[known])] = -np.inf
        columns = capped_lists(scores, k, self._cap, np.random.default_rng(self._seed))
        return np.where(columns == NO_MOVIE, NO_MOVIE, self._model.movie_ids[columns])

    def stars(self, user_ids: Int64s, histories: Histories, movie_ids: Int64s) -> Float32s | None:
        return None


def capped_lists(scores: Float32s, k: int, cap: int, random: np.random.Generator) -> Int64s:
    """Columns (n, k): in each of k rounds every user takes the best movie left to take; ``NO_MOVIE`` where none is.

    scores: (n, movies), -inf for what is not to be listed; it is changed.
    """
    lists = np.full((len(scores), k), NO_MOVIE, np.int64)
    left = np.full(scores.shape[1], cap)
    for place in range(k):
        for user in random.permutation(len(scores)):
            column = int(scores[user].argmax())
            if scores[user, column] == -np.inf:
                continue
            lists[user, place] = column
            scores[user, column] = -np.inf
            left[column] -= 1
            if not left[column]:
                scores[:, column] = -np.inf
    return lists

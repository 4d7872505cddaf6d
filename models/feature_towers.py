"""A linear map of a history plus a small hidden layer on one side, a vector for each movie on the other.

What :mod:`models.two_tower` and :mod:`models.hybrid_vae` are once trained. A movie's weights on either side are a part
of its own plus a projection of its genres and year, so the sum over a history holds the user's taste for these, and a
movie that nobody rated has weights as well.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.history_weights import history_matrix, recency_weights
from models.interactions import Float32s, Histories
from models.movie_features import feature_matrix
from models.recommender import Recommender
from models.side_features import SideFeatures
from streams.records import Int64s

__all__ = ["FeatureTowers"]


class FeatureTowers(Recommender):
    """Scores are user . movie + bias of the movie, where user = t + tanh(t hidden + hidden_bias) out, t = x history.

    x is the history at unit length, its later ratings weighing more where ``recency_half_life`` is not 0.
    """

    knows_features: ClassVar[bool] = True

    recency_half_life: float
    recency_floor: float
    _learnt_arrays: dict[str, npt.NDArray[Any]]
    _by_factor: Float32s
    """What users are multiplied with: (width + 1, n_movies), the biases last. So a list takes half the time of one from
    rows of movies."""

    def user_vectors(self, histories: Histories) -> Float32s:
        """(n, width), for histories of columns."""
        a = self._learnt_arrays
        weights = recency_weights(histories, self.recency_half_life, self.recency_floor)
        taste = history_matrix(histories, weights, len(a["history"])) @ a["history"]
        vectors: Float32s = taste + np.tanh(taste @ a["hidden"] + a["hidden_bias"]) @ a["out"]
        return vectors

    def _score(self, histories: Histories) -> Float32s:
        scores: Float32s = self._with_one(histories) @ self._by_factor
        return scores

    def _score_at(self, histories: Histories, columns: Int64s) -> Float32s:
        scores: Float32s = self._with_one(histories) @ self._by_factor[:, columns]
        return scores

    def score_by_features(self, histories: Histories, features: SideFeatures) -> Float32s:
        a, inputs = self._learnt_arrays, feature_matrix(features.with_genres(self.genre_names))
        weights = np.column_stack([inputs @ a["movie_features"], inputs @ a["bias_features"]])
        scores: Float32s = self._with_one(self._learnt(self._known(histories))) @ weights.T
        return scores

    def _with_one(self, histories: Histories) -> Float32s:
        """User vectors, then 1, which the bias is multiplied by."""
        users = self.user_vectors(histories)
        return np.column_stack([users, np.ones(len(users), np.float32)])

    def _vectors(self, histories: Histories) -> tuple[Float32s, Int64s, Float32s]:
        return self._with_one(histories), np.arange(self._by_factor.shape[1]), self._by_factor.T

    def _extend(self, at: Int64s, features: SideFeatures) -> None:
        a = dict(self._learnt_arrays)
        inputs = feature_matrix(features)
        for name in ("history", "movie", "bias"):
            values = inputs @ a[f"{name}_features"]
            values[at] = a[name]
            a[name] = values
        self._restore(a)
        self._columns = np.arange(len(inputs))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self._learnt_arrays

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        n_movies, width = arrays["movie"].shape
        by_factor = np.empty((width + 1, n_movies), np.float32)  # concatenate would keep the order of a movie's row
        by_factor[:-1], by_factor[-1] = arrays["movie"].T, arrays["bias"]
        self._by_factor = by_factor
        self._learnt_arrays = arrays | {"movie": by_factor[:-1].T, "bias": by_factor[-1]}

"""Two towers: a history becomes a vector, a movie becomes a vector, and their product is the score.

Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019 (in-batch
softmax, corrected by log Q, how often a movie is in a batch); Covington et al., "Deep Neural Networks for YouTube
Recommendations", RecSys 2016 (a user is the embeddings watched; what comes next is predicted from what came before).
A movie's embeddings are a part of its own plus a projection of genres and year, so the sum over a history holds the
user's taste for these, and a movie that nobody rated has a vector as well.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.history_weights import history_matrix, recency_weights
from models.interactions import Float32s, Histories
from models.movie_features import feature_matrix
from models.recommender import OnEpoch, Recommender, TrainingData
from models.side_features import SideFeatures
from streams.records import Int64s

__all__ = ["TwoTower"]


class TwoTower(Recommender):
    """Predicts the next ratings from those before, the latest of which count most.

    width: of the vectors. ridge: see :mod:`models.factor_start`. recency_half_life, in ratings, and recency_floor: see
    :func:`models.history_weights.recency_weights`; short ones fit a stream, in which a slate is judged by the next
    ratings, long ones (or 0, none) a random split, which has no next. horizon: how many ratings ahead is predicted.
    id_dropout: how often a movie to predict is known by its features only. examples_per_epoch: at most.
    device: "cpu", "cuda", or "auto": CUDA where there is one.
    """

    name: ClassVar[str] = "two-tower"
    knows_features: ClassVar[bool] = True

    def __init__(
        self,
        *,
        width: int = 64,
        ridge: float = 4.0,
        recency_half_life: float = 2.0,
        recency_floor: float = 0.03,
        horizon: int = 10,
        history_length: int = 100,
        id_dropout: float = 0.1,
        learning_rate: float = 5e-5,
        epochs: int = 6,
        patience: int = 2,
        batch_size: int = 1_024,
        examples_per_epoch: int = 50_000,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if not 0.0 <= id_dropout < 1.0:
            raise ValueError(f"id_dropout: expected 0 to below 1, found {id_dropout}")
        least = min(width, horizon, history_length, epochs, batch_size, examples_per_epoch)
        if least < 1:
            raise ValueError(f"sizes and counts: expected 1 or more, found {least}")
        self.width = width
        self.ridge = ridge
        self.recency_half_life = recency_half_life
        self.recency_floor = recency_floor
        self.horizon = horizon
        self.history_length = history_length
        self.id_dropout = id_dropout
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.examples_per_epoch = examples_per_epoch
        self.device = device
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        from models.two_tower_training import train_two_tower  # needs torch, serving does not

        self._learnt_arrays = train_two_tower(data, self, on_epoch)

    def user_vectors(self, histories: Histories) -> Float32s:
        """The user tower: (n, width)."""
        a = self._learnt_arrays
        weights = recency_weights(histories, self.recency_half_life, self.recency_floor)
        taste = history_matrix(histories, weights, len(a["history"])) @ a["history"]
        vectors: Float32s = taste + np.tanh(taste @ a["hidden"] + a["hidden_bias"]) @ a["out"]
        return vectors

    def _score(self, histories: Histories) -> Float32s:
        scores: Float32s = self.user_vectors(histories) @ self._learnt_arrays["movie"].T + self._learnt_arrays["bias"]
        return scores

    def _vectors(self, histories: Histories) -> tuple[Float32s, Int64s, Float32s]:
        a = self._learnt_arrays
        users = self.user_vectors(histories)
        with_one = np.column_stack([users, np.ones(len(users), np.float32)])  # which the bias is multiplied by
        return with_one, np.arange(len(a["bias"])), np.column_stack([a["movie"], a["bias"]])

    def _extend(self, at: Int64s, features: SideFeatures) -> None:
        a = dict(self._learnt_arrays)
        inputs = feature_matrix(features)
        for name in ("history", "movie", "bias"):
            values = inputs @ a[f"{name}_features"]
            values[at] = a[name]
            a[name] = values
        self._learnt_arrays = a
        self._columns = np.arange(len(inputs))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self._learnt_arrays

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._learnt_arrays = arrays

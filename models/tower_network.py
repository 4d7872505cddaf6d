""":mod:`models.feature_towers` as a network to train, from a linear autoencoder on; this needs torch."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.factor_start import linear_start
from models.interactions import Float32s
from models.movie_features import feature_matrix, ridge_projection
from models.recommender import TrainingData

__all__ = ["TowerNetwork", "parameter"]

_GENTLE = 0.1
"""The hidden layer and the feature projections move many movies at once: they learn at a tenth of the rate."""


class TowerNetwork(torch.nn.Module):
    """Both towers; a movie's weights are its own plus ``features`` times a projection."""

    def __init__(
        self, features: Float32s, history: Float32s, movie: Float32s, rated: Float32s, sharpness: float, seed: int
    ) -> None:
        """history, movie: the weights to start from (movies, width). rated: 1 for movies that were, else 0 (movies,).

        sharpness: what their products are multiplied with; it is learnt.
        """
        super().__init__()
        width = history.shape[1]
        random = np.random.default_rng(seed)
        self.features: Tensor
        self.register_buffer("features", torch.tensor(features))
        of_history, of_movie = (ridge_projection(features, weights, rated) for weights in (history, movie))
        self.history_features, self.movie_features = parameter(of_history), parameter(of_movie)
        self.history_own = parameter((history - features @ of_history) * rated[:, None])
        self.movie_own = parameter((movie - features @ of_movie) * rated[:, None])
        self.bias_own, self.bias_features = parameter(np.zeros(len(features))), parameter(np.zeros(features.shape[1]))
        self.hidden = parameter(random.normal(0, width**-0.5, (width, width)))
        self.hidden_bias = parameter(np.zeros(width))
        self.out = parameter(np.zeros((width, width)))
        self.log_sharpness = parameter(np.log(sharpness))

    @classmethod
    def of(cls, data: TrainingData, *, width: int, ridge: float, sharpness: float, seed: int) -> Self:
        """From the linear autoencoder of ``data``; see :mod:`models.factor_start`."""
        encoder, decoder, unit = linear_start(data, width, ridge=ridge, seed=seed)
        rated = (np.bincount(data.column, minlength=data.n_movies) > 0).astype(np.float32)
        return cls(feature_matrix(data.features), encoder, decoder, rated, sharpness * unit, seed)

    def taste(self, histories: Tensor) -> Tensor:
        """(n, width) of histories (n, movies), rows of unit length."""
        return histories @ (self.history_own + self.features @ self.history_features)

    def users(self, taste: Tensor) -> Tensor:
        """User vectors (n, width)."""
        return taste + torch.tanh(taste @ self.hidden + self.hidden_bias) @ self.out

    def scores(self, users: Tensor) -> Tensor:
        """Of all movies: (n, movies)."""
        weights = self.movie_own + self.features @ self.movie_features
        return users @ weights.T * self.log_sharpness.exp() + self.bias_own + self.features @ self.bias_features

    def scores_of(self, users: Tensor, movies: Tensor, known_by_id: Tensor) -> Tensor:
        """Of some movies (m,): (n, m). known_by_id (m,): 1.0, or 0.0 where features alone are to serve."""
        features = self.features[movies]
        weights = self.movie_own[movies] * known_by_id[:, None] + features @ self.movie_features
        bias = self.bias_own[movies] * known_by_id + features @ self.bias_features
        return users @ weights.T * self.log_sharpness.exp() + bias

    def optimiser(self, rate: float) -> torch.optim.Optimizer:
        own, fast = [self.history_own, self.movie_own, self.bias_own], [self.log_sharpness]
        slow = [p for p in self.parameters() if not any(p is q for q in own + fast)]
        groups = [{"params": own, "lr": rate}, {"params": slow, "lr": rate * _GENTLE}, {"params": fast, "lr": 0.05}]
        return torch.optim.Adam(groups, fused=True)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What serving needs, sharpness and projections multiplied in."""
        with torch.no_grad():
            sharpness = self.log_sharpness.exp()
            found = {
                "history": self.history_own + self.features @ self.history_features,
                "history_features": self.history_features,
                "movie": (self.movie_own + self.features @ self.movie_features) * sharpness,
                "movie_features": self.movie_features * sharpness,
                "bias": self.bias_own + self.features @ self.bias_features,
                "bias_features": self.bias_features,
                "hidden": self.hidden,
                "hidden_bias": self.hidden_bias,
                "out": self.out,
            }
            return {name: np.array(values.cpu().numpy()) for name, values in found.items()}


def parameter(values: npt.ArrayLike) -> torch.nn.Parameter:
    """A float32 parameter that starts as ``values``."""
    return torch.nn.Parameter(torch.tensor(np.asarray(values), dtype=torch.float32))

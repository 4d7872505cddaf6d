"""A variational autoencoder of histories that knows movies by genres and year too.

Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018 (Mult-VAE): a history is noised, encoded
as a Gaussian, and a multinomial over all movies is decoded; the KL term is annealed. From Shenbin et al., "RecVAE",
WSDM 2020: a user's KL weight follows the length of the history. From Steck, "Autoencoders that don't overfit towards
the Identity", NeurIPS 2020: only what was dropped from the input is to be predicted. A movie has weights of
its own plus a projection of its features, so that one that nobody rated has weights as well.
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

__all__ = ["HybridVae"]


class HybridVae(Recommender):
    """Mult-VAE with side features, started from the linear autoencoder of its width.

    width: of the latent Gaussian. ridge: see :mod:`models.factor_start`. kl_weight: what the annealing ends at, after
    ``anneal_epochs``. dropout: the most of a history that is left out, each time another share. recency_half_life, in
    ratings, and recency_floor: see :func:`models.history_weights.recency_weights`. epochs: at most; early stopping
    takes fewer. device: "cpu", "cuda", or "auto": CUDA where there is one.
    """

    name: ClassVar[str] = "vae"
    knows_features: ClassVar[bool] = True

    def __init__(
        self,
        *,
        width: int = 128,
        ridge: float = 4.0,
        kl_weight: float = 0.02,
        anneal_epochs: int = 5,
        dropout: float = 0.5,
        learning_rate: float = 1e-4,
        epochs: int = 10,
        patience: int = 3,
        batch_size: int = 100,
        recency_half_life: float = 0.0,
        recency_floor: float = 0.0,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout: expected 0 to below 1, found {dropout}")
        if min(width, epochs, batch_size) < 1:
            raise ValueError(f"width, epochs, batch_size: expected 1 or more, found {width}, {epochs}, {batch_size}")
        self.width = width
        self.ridge = ridge
        self.kl_weight = kl_weight
        self.anneal_epochs = anneal_epochs
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.recency_half_life = recency_half_life
        self.recency_floor = recency_floor
        self.device = device
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        from models.vae_training import train_vae  # needs torch, serving does not

        self._learnt_arrays = train_vae(data, self, on_epoch)

    def encode(self, histories: Histories) -> Float32s:
        """The mean of each history's latent Gaussian: (n, width)."""
        a = self._learnt_arrays
        weights = recency_weights(histories, self.recency_half_life, self.recency_floor)
        linear = history_matrix(histories, weights, len(a["encoder"])) @ a["encoder"]
        mean: Float32s = linear + np.tanh(linear @ a["hidden"] + a["hidden_bias"]) @ a["mean"]
        return mean

    def _score(self, histories: Histories) -> Float32s:
        a = self._learnt_arrays
        scores: Float32s = self.encode(histories) @ a["decoder"].T + a["bias"]
        return scores

    def _vectors(self, histories: Histories) -> tuple[Float32s, Int64s, Float32s]:
        a = self._learnt_arrays
        users = self.encode(histories)
        with_one = np.column_stack([users, np.ones(len(users), np.float32)])  # which the bias is multiplied by
        return with_one, np.arange(len(a["bias"])), np.column_stack([a["decoder"], a["bias"]])

    def _extend(self, at: Int64s, features: SideFeatures) -> None:
        a = dict(self._learnt_arrays)
        inputs = feature_matrix(features)
        for name in ("encoder", "decoder", "bias"):
            values = inputs @ a[f"{name}_features"]
            values[at] = a[name]
            a[name] = values
        self._learnt_arrays = a
        self._columns = np.arange(len(inputs))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return self._learnt_arrays

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._learnt_arrays = arrays

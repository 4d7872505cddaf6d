"""A variational autoencoder of histories that knows movies by genres and year too.

Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018 (Mult-VAE): a history is noised, encoded
as a Gaussian, and a multinomial over all movies is decoded; the KL term is annealed. From Shenbin et al., "RecVAE",
WSDM 2020: a user's KL weight follows the length of the history. From Steck, "Autoencoders that don't overfit towards
the Identity", NeurIPS 2020: only what was dropped from the input is to be predicted. How it scores, and what it knows
of movies that nobody rated: :mod:`models.feature_towers`.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from models.early_stopping import train_stopping_early
from models.feature_towers import FeatureTowers
from models.recommender import OnEpoch, TrainingData

__all__ = ["HybridVae"]


class HybridVae(FeatureTowers):
    """Mult-VAE with side features, started from the linear autoencoder of its width.

    width: of the latent Gaussian. ridge: see :mod:`models.factor_start`. kl_weight: what the annealing ends at, after
    ``anneal_epochs``. dropout: the most of a history that is left out, each time another share. recency_half_life, in
    ratings, and recency_floor: see :func:`models.history_weights.recency_weights`. epochs: at most; early stopping
    takes fewer. device: "cpu", "cuda", or "auto": CUDA where there is one.
    """

    name: ClassVar[str] = "vae"

    def __init__(
        self,
        *,
        width: int = 128,
        ridge: float = 4.0,
        kl_weight: float = 0.02,
        anneal_epochs: int = 3,
        dropout: float = 0.5,
        learning_rate: float = 1e-4,
        epochs: int = 5,
        patience: int = 2,
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
        from models.vae_training import VaeTrainer  # needs torch, serving does not

        self._restore(train_stopping_early(self, data, partial(VaeTrainer, self), on_epoch))

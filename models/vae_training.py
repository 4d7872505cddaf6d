"""Training of :mod:`models.hybrid_vae`; this needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.history_weights import history_matrix, recency_weights
from models.hybrid_vae import HybridVae
from models.recommender import TrainingData
from models.torch_device import device_named
from models.tower_network import TowerNetwork, parameter
from streams.records import Int64s

__all__ = ["VaeNetwork", "VaeTrainer", "kl_to_standard_normal"]

_SHARPNESS = 90.0
"""What makes logits of the linear autoencoder's output, whose inputs have unit length, at first."""


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the last axis."""
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)


class VaeNetwork(TowerNetwork):
    """The user's vector is the mean of a Gaussian, whose variance is told from the history too."""

    def __init__(self, *start: Any) -> None:
        super().__init__(*start)
        width = len(self.hidden)
        self.variance, self.variance_bias = parameter(np.zeros((width, width))), parameter(np.full(width, -5.0))

    def encode(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, width) of histories (n, movies), rows of unit length."""
        taste = self.taste(histories)
        return self.users(taste), taste @ self.variance + self.variance_bias


class VaeTrainer:
    """Adam on the evidence lower bound, over batches of users."""

    def __init__(self, model: HybridVae, data: TrainingData) -> None:
        self._model, self._histories, self._n_movies = model, data.histories, data.n_movies
        self._device = device_named(model.device)
        start = VaeNetwork.of(data, width=model.width, ridge=model.ridge, sharpness=_SHARPNESS, seed=model.seed)
        self._network = start.to(self._device)
        self._optimiser = self._network.optimiser(model.learning_rate)
        self._random = np.random.default_rng(model.seed)
        self._noise = torch.Generator(self._device).manual_seed(model.seed)
        self._epoch = 0

    @property
    def learnt(self) -> dict[str, npt.NDArray[Any]]:
        return self._network.arrays()

    def epoch(self) -> float:
        """One pass over all users. Returns the mean loss, per rating left out."""
        model, n_users = self._model, len(self._histories)
        self._epoch += 1
        kl_weight = model.kl_weight * min(1.0, self._epoch / max(1, model.anneal_epochs))
        losses = []
        for rows in np.array_split(self._random.permutation(n_users), -(-n_users // model.batch_size)):
            given, wanted = (tensor.to(self._device) for tensor in self._noised(rows))
            loss = _loss(self._network, given, wanted, kl_weight, self._noise)
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def _noised(self, rows: Int64s) -> tuple[Tensor, Tensor]:
        """Histories with a share left out, as rows of unit length, and what was left out as ones; both (n, movies)."""
        model, part, random = self._model, self._histories.take(rows), self._random
        left_out = random.random(len(part.movie_id)) < np.repeat(random.random(len(rows)) * model.dropout, part.lengths)
        given = part.kept(~left_out, part.movie_id)
        weights = recency_weights(given, model.recency_half_life, model.recency_floor)
        wanted = np.zeros((len(rows), self._n_movies), np.float32)
        wanted[part.row[left_out], part.movie_id[left_out]] = 1.0
        return torch.from_numpy(history_matrix(given, weights, self._n_movies).toarray()), torch.from_numpy(wanted)


def _loss(network: VaeNetwork, given: Tensor, wanted: Tensor, kl_weight: float, noise: torch.Generator) -> Tensor:
    """Mean over ratings of the negative multinomial log-likelihood of what was left out, and the weighted KL."""
    mean, log_variance = network.encode(given)
    epsilon = torch.randn(mean.shape, generator=noise, device=mean.device)
    logits = network.scores(mean + epsilon * torch.exp(0.5 * log_variance))
    log_p = torch.log_softmax(logits.masked_fill(given > 0, -1e4), dim=1)
    lengths = wanted.sum(1)
    evidence = -(wanted * log_p).sum(1) + kl_weight * kl_to_standard_normal(mean, log_variance) * lengths.sqrt()
    weight = (lengths + 1.0) ** -0.5
    return (weight * evidence).sum() / (weight * lengths).sum().clamp_min(1.0)

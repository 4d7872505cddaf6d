"""Training of :mod:`models.two_tower`; this needs torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.history_weights import history_matrix, recency_weights
from models.recommender import TrainingData
from models.torch_device import device_named
from models.tower_network import TowerNetwork
from models.two_tower import TwoTower
from streams.records import Int64s

__all__ = ["TwoTowerTrainer", "expected_in_batch", "in_batch_loss"]

_SHARPNESS = 90.0
"""What makes logits of the linear autoencoder's output, whose inputs have unit length, at first."""
_NEVER = -1e9


def in_batch_loss(logits: Tensor, owner: Tensor, wrong: Tensor, log_q: Tensor) -> Tensor:
    """Mean cross-entropy of each answer against those of the batch that are wrong for its user.

    logits (n, m): of n users and the m answers of all of them. owner (m,): the user of each answer. wrong (n, m): which
    of the answers the user never gave. log_q (m,): the logarithm of how often each answer is expected in a batch: a
    movie that is frequent stands in many batches as the wrong answer; taking log_q off makes up for that, so that
    logits tend to log p(movie | user) + constant.
    """
    corrected = logits - log_q
    others = corrected.masked_fill(~wrong, _NEVER).logsumexp(dim=1)
    right = corrected[owner, torch.arange(len(owner), device=owner.device)]
    return torch.nn.functional.softplus(others[owner] - right).mean()


def expected_in_batch(data: TrainingData, horizon: int, batch_size: int) -> npt.NDArray[np.float64]:
    """How often each movie (movies,) is expected among the answers of a batch.

    A user is cut before the rating of rank 1 to n - 1, each as likely, so that the rating of rank r is an answer after
    min(r, horizon) of these n - 1 cuts.
    """
    histories = data.histories
    lengths = histories.lengths[data.row]
    rank = np.arange(len(data.row)) - histories.start[data.row]
    chance = np.minimum(rank, horizon) / np.maximum(lengths - 1, 1)
    among = max(1, int((histories.lengths > 1).sum()))
    return np.bincount(data.column, chance, minlength=data.n_movies) * batch_size / among


class TwoTowerTrainer:
    """Adam on the in-batch softmax: a batch is users, each cut at random; what each rated next are the answers."""

    def __init__(self, model: TwoTower, data: TrainingData) -> None:
        self._model, self._histories, self._n_movies = model, data.histories, data.n_movies
        self._device = device_named(model.device)
        start = TowerNetwork.of(data, width=model.width, ridge=model.ridge, sharpness=_SHARPNESS, seed=model.seed)
        self._network = start.to(self._device)
        self._optimiser = self._network.optimiser(model.learning_rate)
        self._random = np.random.default_rng(model.seed)
        self._users = np.flatnonzero(self._histories.lengths > 1)
        often = expected_in_batch(data, model.horizon, min(model.batch_size, max(1, len(self._users))))
        self._log_q = np.log(np.maximum(often, 1e-9)).astype(np.float32)

    @property
    def learnt(self) -> dict[str, npt.NDArray[Any]]:
        return self._network.arrays()

    def epoch(self) -> float:
        """``steps`` batches. Returns the mean loss of an answer."""
        if not len(self._users):
            return 0.0
        losses = [self._step() for _ in range(self._model.steps)]
        return float(np.mean(losses))

    def _step(self) -> float:
        size = min(self._model.batch_size, len(self._users))
        rows = self._random.choice(self._users, size, replace=False)
        x, owner, answers, wrong = self._batch(rows)
        by_id = (self._random.random(len(answers)) >= self._model.id_dropout).astype(np.float32)
        network, device = self._network, self._device
        users = network.users(network.taste(torch.from_numpy(x).to(device)))
        logits = network.scores_of(users, torch.from_numpy(answers).to(device), torch.from_numpy(by_id).to(device))
        log_q = torch.from_numpy(self._log_q[answers]).to(device)
        loss = in_batch_loss(logits, torch.from_numpy(owner).to(device), torch.from_numpy(wrong).to(device), log_q)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.item()

    def _batch(self, rows: Int64s) -> tuple[np.ndarray, Int64s, Int64s, np.ndarray]:
        """Histories (n, movies) at unit length, and of the m answers: whose (m,), movie (m,), for whom wrong (n, m)."""
        model, part = self._model, self._histories.take(rows)
        rank = np.arange(len(part.movie_id)) - part.start[part.row]
        cut = self._random.integers(1, part.lengths)[part.row]
        given = part.kept(rank < cut, part.movie_id)
        weights = recency_weights(given, model.recency_half_life, model.recency_floor)
        next_ones = (rank >= cut) & (rank < cut + model.horizon)
        owner, answers = part.row[next_ones], part.movie_id[next_ones]
        rated = np.zeros((len(rows), self._n_movies), bool)
        rated[part.row, part.movie_id] = True
        return history_matrix(given, weights, self._n_movies).toarray(), owner, answers, ~rated[:, answers]

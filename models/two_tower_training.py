"""Training of :mod:`models.two_tower`; this needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.factor_start import linear_start
from models.history_weights import history_matrix
from models.holdout import Holdout, histories_of, hold_out_last
from models.interactions import Float32s, Histories
from models.movie_features import feature_matrix, ridge_projection
from models.recommender import Epoch, OnEpoch, TrainingData
from models.torch_device import device_named
from models.two_tower import TwoTower
from streams.errors import ModelError

__all__ = ["TowerNetwork", "in_batch_loss", "train_two_tower"]

_SHARPNESS = 15.0
"""What logits are of the linear autoencoder's output at first, whose inputs have unit length; it is learnt."""

_GENTLE = 0.1
"""The hidden layer and the feature projections move many movies at once: they learn at a tenth of the rate."""


@dataclass(frozen=True, slots=True, eq=False)
class _Examples:
    """A batch: the movies of each history (n, length), padded with movie 0 of weight 0, and the movie to predict."""

    movies: Tensor
    weights: Tensor
    target: Tensor
    known_by_id: Tensor


def in_batch_loss(logits: Tensor, target: Tensor, log_q: Tensor) -> Tensor:
    """Mean cross-entropy of row i choosing column i; other columns of the same movie are no wrong answers.

    logits (n, n): user i and the movie of example j. target (n,): the movie of each example. log_q (n,): the logarithm
    of how often the movie of example j is expected in a batch. A movie that is frequent stands in many batches as the
    wrong answer; taking log_q off makes up for that, so that logits tend to log p(movie | user) + constant.
    """
    corrected = logits - log_q
    same = target[:, None] == target[None, :]
    itself = torch.eye(len(target), dtype=torch.bool, device=target.device)
    corrected = corrected.masked_fill(same & ~itself, -torch.inf)
    return torch.nn.functional.cross_entropy(corrected, torch.arange(len(target), device=target.device))


class TowerNetwork(torch.nn.Module):
    """Both towers; a movie's weights are its own plus ``features`` times a projection."""

    def __init__(
        self, features: Float32s, encoder: Float32s, decoder: Float32s, rated: Float32s, sharpness: float, seed: int
    ) -> None:
        """encoder, decoder: the start (movies, width). rated: 1 for movies that were, else 0 (movies,)."""
        super().__init__()
        width = encoder.shape[1]
        random = np.random.default_rng(seed)
        encoder_projection, decoder_projection = (ridge_projection(features, w, rated) for w in (encoder, decoder))
        encoder_own = (encoder - features @ encoder_projection) * rated[:, None]
        decoder_own = (decoder - features @ decoder_projection) * rated[:, None]
        self.features: Tensor
        self.register_buffer("features", torch.tensor(features))
        self.history_own, self.movie_own = _parameter(encoder_own), _parameter(decoder_own)
        self.history_features, self.movie_features = _parameter(encoder_projection), _parameter(decoder_projection)
        self.bias_own, self.bias_features = _parameter(np.zeros(len(encoder))), _parameter(np.zeros(features.shape[1]))
        self.hidden = _parameter(random.normal(0, width**-0.5, (width, width)))
        self.hidden_bias = _parameter(np.zeros(width))
        self.out = _parameter(np.zeros((width, width)))
        self.log_sharpness = _parameter(np.log(sharpness))

    def users(self, movies: Tensor, weights: Tensor) -> Tensor:
        """Vectors (n, width) of histories: movies and weights (n, length), the weights of unit length."""
        embeddings = self.history_own + self.features @ self.history_features
        taste = torch.nn.functional.embedding_bag(movies, embeddings, per_sample_weights=weights, mode="sum")
        return taste + torch.tanh(taste @ self.hidden + self.hidden_bias) @ self.out

    def movies(self, movies: Tensor, known_by_id: Tensor) -> Tensor:
        """Vectors (n, width + 1) of movies, the last column a bias; known_by_id: 1, or 0 where features alone serve."""
        own = self.movie_own[movies] * known_by_id[:, None]
        vectors = (own + self.features[movies] @ self.movie_features) * self.log_sharpness.exp()
        bias = self.bias_own[movies] * known_by_id + self.features[movies] @ self.bias_features
        return torch.cat([vectors, bias[:, None]], dim=1)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameters with their learning rates."""
        own, fast = [self.history_own, self.movie_own], [self.log_sharpness]
        slow = [self.history_features, self.movie_features, self.hidden, self.hidden_bias, self.out, self.bias_features]
        return [
            {"params": own, "lr": rate},
            {"params": slow, "lr": rate * _GENTLE},
            {"params": fast, "lr": 0.01},
            {"params": [self.bias_own], "lr": 10 * rate},
        ]

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


def train_two_tower(data: TrainingData, model: TwoTower, on_epoch: OnEpoch | None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of ``model``; a held out last time slice, where there is one, says how many epochs all data gets."""
    held = hold_out_last(data)
    if held is None:
        return _trained(data, model, model.epochs, None, on_epoch)[0]
    _, best = _trained(held[0], model, model.epochs, held[1], on_epoch)
    return _trained(data, model, best, None, None)[0]


def _trained(
    data: TrainingData, model: TwoTower, epochs: int, holdout: Holdout | None, on_epoch: OnEpoch | None
) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """The arrays after the last epoch, and after which epoch the holdout was ranked best."""
    device = device_named(model.device)
    network, histories = _start(data, model).to(device), histories_of(data)
    optimiser = torch.optim.Adam(network.groups(model.learning_rate))
    random = np.random.default_rng(model.seed)
    rank = np.arange(len(data.row)) - np.repeat(histories.start[:-1], histories.lengths)
    predictable = np.flatnonzero(rank > 0)
    counts = np.bincount(data.column[predictable], minlength=data.n_movies)
    best, best_epoch = -1.0, 0
    if holdout is not None:
        best = holdout.ndcg(_scores(network, model, holdout.given))
    for epoch in range(1, epochs + 1 if len(predictable) else 1):
        losses = []
        chosen = random.permutation(predictable)[: model.examples_per_epoch]
        for at in np.array_split(chosen, -(-len(chosen) // model.batch_size)):
            batch = _examples(histories, rank, at, model, random, device)
            frequency = torch.tensor(counts[data.column[at]] / len(predictable) * len(at), device=device)
            vectors = network.movies(batch.target, batch.known_by_id)
            logits = network.users(batch.movies, batch.weights) @ vectors[:, :-1].T + vectors[:, -1]
            loss = in_batch_loss(logits, batch.target, frequency.log().float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        loss_of_epoch = float(np.mean(losses))
        if not np.isfinite(loss_of_epoch):
            raise ModelError(
                f"two-tower: training diverged (loss {loss_of_epoch} in epoch {epoch}); lower its learning rate"
            )
        validation = holdout.ndcg(_scores(network, model, holdout.given)) if holdout is not None else None
        if on_epoch:
            on_epoch(Epoch(epoch, loss_of_epoch, validation))
        if validation is not None and validation > best:
            best, best_epoch = validation, epoch
        if holdout is not None and epoch - best_epoch >= model.patience:
            break
    return network.arrays(), best_epoch


def _start(data: TrainingData, model: TwoTower) -> TowerNetwork:
    encoder, decoder = linear_start(data, model.width, ridge=model.ridge, seed=model.seed)
    inputs = history_matrix(histories_of(data), np.ones(len(data.row), np.float32), data.n_movies)
    scale = 1.0 / max(1e-3, float(np.sqrt(((inputs @ encoder) ** 2).mean())))  # user vectors of unit variance
    rated = (np.bincount(data.column, minlength=data.n_movies) > 0).astype(np.float32)
    return TowerNetwork(
        feature_matrix(data.features), encoder * scale, decoder * scale, rated, _SHARPNESS / scale**2, model.seed
    )


def _examples(
    histories: Histories,
    rank: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    model: TwoTower,
    random: np.random.Generator,
    device: str,
) -> _Examples:
    """The ratings ``at`` to predict, each from a history that ends up to ``horizon`` before it, of one at least."""
    gap = np.minimum(random.integers(0, model.horizon, len(at)), rank[at] - 1)
    back = 1 + np.arange(model.history_length)
    there = back <= (rank[at] - gap)[:, None]
    source = np.where(there, (at - gap)[:, None] - back, 0)
    decay = np.exp2(-(back - 1) / model.recency_half_life) if model.recency_half_life else np.ones(len(back))
    weights = there * (model.recency_floor + (1.0 - model.recency_floor) * decay)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return _Examples(
        torch.from_numpy(histories.movie_id[source]).to(device),
        torch.from_numpy(weights.astype(np.float32)).to(device),
        torch.from_numpy(histories.movie_id[at]).to(device),
        torch.from_numpy((random.random(len(at)) >= model.id_dropout).astype(np.float32)).to(device),
    )


def _scores(network: TowerNetwork, model: TwoTower, histories: Histories) -> Float32s:
    probe = TwoTower(**model.hyperparameters)
    probe._restore(network.arrays())
    return probe._score(histories)


def _parameter(values: npt.ArrayLike) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(np.asarray(values), dtype=torch.float32))

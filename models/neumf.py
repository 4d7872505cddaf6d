"""NeuMF: a factorisation and a small network side by side, on users made of what they rated.

He et al., "Neural Collaborative Filtering", WWW 2017: a score is linear in the product of both vectors (GMF) and in
what a multi-layer perceptron (MLP) makes of them; learnt by cross-entropy of what was rated against sampled movies.
There a user is a row of a table, which says nothing of users unseen in training. Here, as in Kabbur et al., "FISM",
KDD 2013, a user is the sum of vectors of the movies they rated over the root of their number, so that one path serves
everybody; in training without the movie in question. The MLP's first layer, linear in both, is part of the vectors.
The paper starts from a GMF trained before; here the GMF part starts from a linear autoencoder of its width in closed
form, see :mod:`models.factor_start`: from random numbers it ends at three quarters of that NDCG on ml-latest-small.

Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020, find that a tuned dot
product beats the MLP and is faster to serve: compare it with ``mf`` before choosing it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.early_stopping import train_stopping_early
from models.factor_start import linear_start
from models.interactions import Float32s, Histories
from models.recommender import OnEpoch, Recommender, TrainingData
from models.torch_device import device_named
from streams.records import Int64s

if TYPE_CHECKING:
    import torch

__all__ = ["NeuMF"]

_PAIRS_AT_ONCE = 1 << 14
"""Pairs of a history and a movie scored together: their hidden layers stay in the processor's cache."""

_SHARPNESS, _RARE = 60.0, -2.0
"""Logits at first: the linear autoencoder's output, whose inputs have unit length, times the one plus the other."""
_SMALL = 0.1
"""The MLP says little at first."""


class NeuMF(Recommender):
    """NeuMF with users as what they rated, stars aside.

    factors: of the GMF part. hidden: width of the MLP's first layer; the next has half of it. ridge: see
    :mod:`models.factor_start`. negatives: sampled movies per rating. batch: ratings of an optimiser step, of whole
    users. epochs: at most so many passes; the last slice of ratings says how many, ``patience`` how long to
    wait for a better one, and then all ratings are learnt from. device: cpu, cuda, or auto.
    """

    name: ClassVar[str] = "neumf"

    def __init__(
        self,
        *,
        factors: int = 64,
        hidden: int = 32,
        ridge: float = 4.0,
        negatives: int = 4,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-5,
        batch: int = 2_048,
        epochs: int = 6,
        patience: int = 2,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("factors", factors, 1),
            ("hidden", hidden, 2),
            ("negatives", negatives, 1),
            ("batch", batch, 1),
            ("epochs", epochs, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: expected {least} or more, found {value}")
        self.factors = factors
        self.hidden = hidden
        self.ridge = ridge
        self.negatives = negatives
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch = batch
        self.epochs = epochs
        self.patience = patience
        self.device = device
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        self._restore(train_stopping_early(self, data, partial(_Trainer, self), on_epoch))

    def _score(self, histories: Histories) -> Float32s:
        return self._score_movies(histories, self._weights["movie"], self._weights["bias"])

    def _score_at(self, histories: Histories, columns: Int64s) -> Float32s:
        return self._score_movies(histories, self._weights["movie"][columns], self._weights["bias"][columns])

    def _score_movies(self, histories: Histories, movie: Float32s, bias: Float32s) -> Float32s:
        """Scores (n, m) of movies of these vectors (m, factors + hidden) and biases (m,)."""
        learnt = self._weights
        summed = np.add.reduceat(learnt["history"][histories.movie_id], histories.start[:-1])
        user = (summed / np.sqrt(histories.lengths)[:, None]).astype(np.float32)
        factors = self.factors
        scores = (user[:, :factors] * learnt["out_gmf"]) @ movie[:, :factors].T
        scores += bias
        of_movie = movie[:, factors:] + learnt["first_bias"]
        size = max(1, _PAIRS_AT_ONCE // max(1, self.hidden))
        hidden, half = np.empty((size, self.hidden), np.float32), np.empty((size, self.hidden // 2), np.float32)
        for at in range(0, len(of_movie), size):
            some = of_movie[at : at + size]
            first, second = hidden[: len(some)], half[: len(some)]
            for row, of_user in enumerate(user[:, factors:]):
                np.maximum(np.add(some, of_user, out=first), 0.0, out=first)
                np.add(np.matmul(first, learnt["second"], out=second), learnt["second_bias"], out=second)
                scores[row, at : at + size] += np.maximum(second, 0.0, out=second) @ learnt["out_mlp"]
        found: Float32s = scores.astype(np.float32, copy=False)
        return found

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return dict(self._weights)

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._weights = arrays


class _Trainer:
    """Adam over batches of whole users."""

    def __init__(self, model: NeuMF, data: TrainingData) -> None:
        import torch

        self._model, self._data = model, data
        self._device = device_named(model.device)
        self._random = np.random.default_rng(model.seed)
        seeded = torch.Generator().manual_seed(model.seed)
        width, half = model.factors + model.hidden, model.hidden // 2

        def normal(*shape: int, deviation: float) -> torch.Tensor:
            return (torch.randn(*shape, generator=seeded) * deviation).to(self._device).requires_grad_()

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, device=self._device, requires_grad=True)

        self._parameters = {
            "history": normal(data.n_movies, width, deviation=0.1),
            "movie": normal(data.n_movies, width, deviation=0.1),
            "bias": zeros(data.n_movies),
            "first_bias": zeros(model.hidden),
            "second": normal(model.hidden, half, deviation=(2 / model.hidden) ** 0.5),
            "second_bias": zeros(half),
            "out_gmf": torch.ones(model.factors, device=self._device, requires_grad=True),
            "out_mlp": normal(half, deviation=_SMALL * (1 / half) ** 0.5),
        }
        encoder, decoder, unit = linear_start(data, model.factors, ridge=model.ridge, seed=model.seed)
        with torch.no_grad():
            self._parameters["history"][:, : model.factors] = torch.from_numpy(encoder)
            self._parameters["movie"][:, : model.factors] = torch.from_numpy(decoder * (_SHARPNESS * unit))
            self._parameters["bias"] += _RARE
        self._optimiser = torch.optim.Adam(
            self._parameters.values(), model.learning_rate, weight_decay=model.weight_decay, fused=True
        )
        self._rated = data.row * data.n_movies + data.column
        self._rated.sort()
        self._start = np.searchsorted(data.row, np.arange(data.n_users + 1))

    @property
    def learnt(self) -> dict[str, Float32s]:
        return {name: values.detach().cpu().numpy().copy() for name, values in self._parameters.items()}

    def epoch(self) -> float:
        """One pass over all users in random order. Returns the cross-entropy per pair."""
        total, pairs = 0.0, 0
        order = self._random.permutation(self._data.n_users)
        so_far = np.cumsum(np.diff(self._start)[order])
        for users in np.split(order, np.flatnonzero(np.diff(so_far // self._model.batch)) + 1):
            loss, n = self._step(users)
            total, pairs = total + loss * n, pairs + n
        return total / max(1, pairs)

    def _step(self, users: Int64s) -> tuple[float, int]:
        import torch
        from torch.nn import functional

        lengths = self._start[users + 1] - self._start[users]
        owner = np.repeat(np.arange(len(users)), lengths)
        if not len(owner):
            return 0.0, 0
        at = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + self._start[users][owner]
        rated = self._data.column[at]
        n = self._model.negatives
        sampled = self._random.integers(self._data.n_movies, size=len(rated) * n)
        free = ~self._is_rated(users[np.repeat(owner, n)], sampled)
        tensors = (torch.as_tensor(x, device=self._device) for x in (rated, owner, lengths))
        movies, of, count = tensors
        vectors = self._parameters["history"].index_select(0, movies)
        summed = torch.zeros(len(users), vectors.shape[1], device=self._device).index_add(0, of, vectors)
        others = (summed.index_select(0, of) - vectors) / (count[of] - 1).clamp(min=1).sqrt()[:, None]
        whole = summed / count.clamp(min=1).sqrt()[:, None]
        negatives = torch.as_tensor(sampled[free], device=self._device)
        of_negatives = torch.as_tensor(np.repeat(owner, n)[free], device=self._device)
        logits = torch.cat([self._logits(others, movies), self._logits(whole.index_select(0, of_negatives), negatives)])
        wanted = torch.zeros_like(logits)
        wanted[: len(movies)] = 1.0
        loss = functional.binary_cross_entropy_with_logits(logits, wanted)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return float(loss.detach()), len(logits)

    def _logits(self, user: torch.Tensor, movies: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        p, factors = self._parameters, self._model.factors
        movie = p["movie"].index_select(0, movies)
        first = functional.relu(user[:, factors:] + movie[:, factors:] + p["first_bias"])
        second = functional.relu(first @ p["second"] + p["second_bias"])
        product = (user[:, :factors] * movie[:, :factors]) @ p["out_gmf"]
        return product + second @ p["out_mlp"] + p["bias"].index_select(0, movies)

    def _is_rated(self, users: Int64s, movies: Int64s) -> npt.NDArray[np.bool_]:
        pair = users * self._data.n_movies + movies
        at = np.searchsorted(self._rated, pair)
        at[at == len(self._rated)] = 0
        found: npt.NDArray[np.bool_] = self._rated[at] == pair
        return found

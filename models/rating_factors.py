"""Factors that predict stars: variational Bayes over biases and factors, movies' prior means from genres and year.

    stars(u, i) = mean + bias_u + bias_i + u.i + noise of variance 1 / precision_u

Lim & Teh, "Variational Bayesian Approach to Movie Rating Prediction", KDD Cup 2007: users and movies keep a mean and a
(diagonal) variance, so that a movie of few ratings moves nobody far. Beside that, priors are learnt (empirical Bayes),
a movie's prior mean is linear in its genres and year, and each user has a noise of their own: steady raters teach more.
A user's posterior is in closed form given the movies', so that fold-in is what training does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.interactions import Float32s, Histories
from models.recommender import TrainingData
from models.row_batches import row_batches
from models.side_features import SideFeatures

if TYPE_CHECKING:
    import torch

__all__ = ["RatingFactors", "RatingTrainer", "rating_users"]

_NOISE_RATINGS = 10.0
"""A user's noise is an average with so many ratings of everybody's noise."""
_SIDE_L2 = 10.0
_NOISE_STEPS = 3


@dataclass(frozen=True, slots=True, eq=False)
class RatingFactors:
    """What fold-in needs of d factors. The last of the d + 1 places is the bias.

    movies, variances: float32 (n_movies, d + 1). precision: float32 (d + 1, d + 1), of the users' prior, of mean 0.
    level: float32 (2,), the mean of all stars, and the variance of their noise.
    """

    movies: Float32s
    variances: Float32s
    precision: Float32s
    level: Float32s


class RatingTrainer:
    """Alternates between users and movies; see :class:`RatingFactors`."""

    def __init__(self, data: TrainingData, *, factors: int, seed: int, device: str) -> None:
        import torch

        random = torch.Generator().manual_seed(seed)
        start = 0.3 * torch.randn(data.n_movies, factors + 1, generator=random)
        start[:, -1] = 0.0
        self._mean = float(data.rating.mean(dtype=np.float64))
        self._stars = torch.as_tensor(data.rating - np.float32(self._mean), device=device)
        self._row, self._column = (torch.as_tensor(x, device=device) for x in (data.row, data.column))
        self._ratings_of = torch.bincount(self._row, minlength=data.n_users).float()
        self._users = _Side.of(data.row, torch.zeros(data.n_users, factors + 1), device)
        self._movies = _Side.of(data.column, start, device)
        self._users.precision[:-1, :-1] /= 5.0  # users free to move, or what little the factors say is taken for noise
        self._features = torch.as_tensor(_design(data.features), device=device)
        self._noise = max(float(self._stars.var(correction=0)), 1e-3)
        self._weight = torch.full((data.n_users,), 1.0 / self._noise, device=device)

    def sweep(self) -> float:
        """Users, movies, priors, noise, in this order. Returns the mean squared error, in stars squared."""
        import torch

        weight = self._weight[self._row]
        self._users.solve(self._movies, self._column, self._stars, weight)
        self._movies.solve(self._users, self._row, self._stars, weight)
        ridge = _SIDE_L2 * torch.eye(self._features.shape[1], device=weight.device)
        weights = torch.linalg.solve(self._features.T @ self._features + ridge, self._features.T @ self._movies.vectors)
        self._movies.prior = self._features @ weights
        self._users.learn_precision()
        self._movies.learn_precision()
        error, spread = self._errors()
        expected = error + spread
        of_user = torch.bincount(self._row, expected, minlength=len(self._weight)).float()
        self._noise = max(float(expected.mean()), 1e-6)
        self._weight = (_NOISE_RATINGS + self._ratings_of) / (_NOISE_RATINGS * self._noise + of_user)
        return float(error.mean())

    @property
    def factors(self) -> RatingFactors:
        movies, variances, precision = (
            x.cpu().numpy().copy() for x in (self._movies.vectors, self._movies.variances, self._users.precision)
        )
        return RatingFactors(movies, variances, precision, np.array([self._mean, self._noise], np.float32))

    def _errors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each rating: the squared error, and what the uncertainty of both vectors adds to it."""
        user, movie = self._users.design()[self._row], self._movies.design()[self._column]
        bias = self._users.vectors[self._row, -1] + self._movies.vectors[self._column, -1]
        error = self._stars - (user[:, :-1] * movie[:, :-1]).sum(1) - bias
        of_user, of_movie = self._users.variances[self._row], self._movies.variances[self._column]
        both = (of_user[:, :-1] * of_movie[:, :-1]).sum(1)
        return error**2, (movie**2 * of_user).sum(1) + (user**2 * of_movie).sum(1) + both


@dataclass(slots=True, eq=False)
class _Side:
    """Users, or movies: posterior means and variances (n, d + 1), and the prior they are drawn from."""

    vectors: torch.Tensor
    variances: torch.Tensor
    prior: torch.Tensor
    precision: torch.Tensor
    covariance: torch.Tensor  # summed over rows
    batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

    @classmethod
    def of(cls, row: np.ndarray, vectors: torch.Tensor, device: str) -> _Side:
        import torch

        d = vectors.shape[1]
        batches = [
            (
                torch.as_tensor(batch.rows, device=device),
                torch.as_tensor(batch.at, device=device),
                torch.as_tensor(batch.inside, device=device),
            )
            for batch in row_batches(row, len(vectors))
        ]
        vectors = vectors.to(device)
        nothing, eye = torch.zeros_like(vectors), torch.eye(d, device=device)
        return cls(vectors, nothing, nothing.clone(), 5.0 * eye, 0.0 * eye, batches)

    def design(self) -> torch.Tensor:
        """The vectors as the other side sees them: 1 in place of the bias."""
        import torch

        return torch.cat([self.vectors[:, :-1], torch.ones_like(self.vectors[:, -1:])], dim=1)

    def solve(self, other: _Side, other_row: torch.Tensor, stars: torch.Tensor, weight: torch.Tensor) -> None:
        """The posterior given the other side. other_row, stars, weight: of each rating."""
        import torch

        design, spread = other.design(), other.variances.clone()
        spread[:, -1] = 0.0
        target = stars - other.vectors[other_row, -1]
        shrunk = self.prior @ self.precision
        none = torch.linalg.inv(self.precision)  # of a row without ratings: the prior
        vectors, variances = self.prior.clone(), none.diagonal().expand_as(self.prior).clone()
        self.covariance = none * float(len(vectors) - sum(len(rows) for rows, _, _ in self.batches))
        for rows, at, inside in self.batches:
            seen, w = design[other_row[at]], weight[at] * inside
            weighted = seen * w[..., None]
            matrix = weighted.transpose(1, 2) @ seen + self.precision
            matrix += torch.diag_embed((spread[other_row[at]] * w[..., None]).sum(1))
            right = (weighted * target[at][..., None]).sum(1) + shrunk[rows]
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
            vectors[rows] = (inverse @ right[..., None])[..., 0]
            variances[rows] = inverse.diagonal(dim1=1, dim2=2)
            self.covariance = self.covariance + inverse.sum(0)
        self.vectors, self.variances = vectors, variances

    def learn_precision(self) -> None:
        """The prior's precision, as if d + 1 more rows had varied by 0.05."""
        import torch

        n, d = self.vectors.shape
        off = self.vectors - self.prior
        scatter = off.T @ off + self.covariance + d * 0.05 * torch.eye(d, device=off.device)
        precision = torch.linalg.inv(scatter / (n + d))
        self.precision = (precision + precision.T) / 2


def rating_users(factors: RatingFactors, histories: Histories) -> Float32s:
    """The vectors (n, d + 1) of users with these histories of columns; those of an empty one are 0, the prior's mean.

    A user's noise and vector depend on each other: a few steps of both.
    """
    mean, noise = factors.level
    users = np.zeros((len(histories), factors.movies.shape[1]), np.float32)
    for batch in row_batches(histories.row, len(histories)):
        columns, inside = histories.movie_id[batch.at], batch.inside
        vectors, variances = factors.movies[columns].copy(), factors.variances[columns]
        bias, bias_variance = vectors[..., -1].copy(), variances[..., -1]
        vectors[..., -1] = 1.0
        stars = (histories.rating[batch.at] - mean - bias) * inside
        spread = variances * inside[..., None]
        spread[..., -1] = 0.0
        padded = vectors * inside[..., None]
        gram = padded.transpose(0, 2, 1) @ vectors
        diagonal = np.arange(gram.shape[1])
        gram[:, diagonal, diagonal] += spread.sum(1)
        right = (padded * stars[..., None]).sum(1)
        n, weight = inside.sum(1), np.full(len(batch.rows), 1.0 / noise, np.float32)
        for _ in range(_NOISE_STEPS):
            inverse = np.linalg.inv(weight[:, None, None] * gram + factors.precision)
            found = (inverse @ (weight[:, None] * right)[..., None])[..., 0]
            error = (stars - (padded @ found[..., None])[..., 0]) ** 2
            of_user = inverse[:, diagonal, diagonal]
            doubt = ((padded**2 + spread) @ of_user[..., None])[..., 0] + (spread @ (found**2)[..., None])[..., 0]
            total = (error + doubt + bias_variance * inside).sum(1)
            weight = ((_NOISE_RATINGS + n) / (_NOISE_RATINGS * noise + total)).astype(np.float32)
        users[batch.rows] = found
    return users


def _design(features: SideFeatures) -> Float32s:
    """(n_movies, genres + 4): genres, whether the year is known, the year and its square, 1."""
    known = (features.year > 0).astype(np.float32)
    year = known * (features.year - 1990) / 20
    columns = [features.genres, np.stack([known, year, year**2, np.ones_like(known)], axis=1)]
    return np.concatenate(columns, axis=1).astype(np.float32)

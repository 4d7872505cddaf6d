"""Factors that rank: implicit alternating least squares, where all that a user did not rate counts a little.

Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, in the form of Rendle et al.,
"Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022: over users u and movies i,

    sum over rated (1 - u.i)^2 + unrated_weight * sum over all (u.i)^2 + sum l2_u |u|^2 + sum l2_i |i|^2

with l2_u = l2 * (ratings of u + unrated_weight * movies), l2_i likewise. A user's vector is the exact minimum given the
movies', so that a user unseen in training is answered as one of training is.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from models.interactions import Float32s, Histories
from models.recommender import TrainingData
from models.row_batches import row_batches
from streams.records import Int64s

if TYPE_CHECKING:
    import torch

__all__ = ["RankingTrainer", "ranking_users", "turned_to_axes"]


class RankingTrainer:
    """Alternates between users and movies; ``movies`` are the factors, float32 (n_movies, n_factors)."""

    def __init__(
        self, data: TrainingData, *, factors: int, unrated_weight: float, l2: float, seed: int, device: str
    ) -> None:
        import torch

        self._weight = unrated_weight
        start = 0.1 / factors**0.5
        random = torch.Generator().manual_seed(seed)
        self._movies = (torch.randn(data.n_movies, factors, generator=random) * start).to(device)
        self._users = torch.zeros(data.n_users, factors, device=device)
        self._row, self._column = (torch.as_tensor(x, device=device) for x in (data.row, data.column))
        self._by_user = _Side(data.row, data.column, (data.n_users, data.n_movies), unrated_weight, l2, device)
        self._by_movie = _Side(data.column, data.row, (data.n_movies, data.n_users), unrated_weight, l2, device)

    @property
    def movies(self) -> Float32s:
        movies: Float32s = self._movies.cpu().numpy().copy()
        return movies

    def sweep(self) -> float:
        """Solve for all users, then for all movies. Returns the objective, per rating."""
        self._by_user.solve(self._users, self._movies)
        self._by_movie.solve(self._movies, self._users)
        rated = (self._users[self._row] * self._movies[self._column]).sum(1)
        grams = (self._users.T @ self._users) * (self._movies.T @ self._movies)
        penalty = (self._by_user.l2 @ self._users**2).sum() + (self._by_movie.l2 @ self._movies**2).sum()
        return float((((1 - rated) ** 2).sum() + self._weight * grams.sum() + penalty) / len(self._row))


class _Side:
    """The rows of one side, each with what it rated, or was rated by, on the other."""

    def __init__(
        self, row: Int64s, other: Int64s, shape: tuple[int, int], weight: float, l2: float, device: str
    ) -> None:
        import torch

        n_rows, n_others = shape
        self._weight = weight
        ratings = np.bincount(row, minlength=n_rows)
        self.l2 = torch.as_tensor(l2 * (ratings + weight * n_others), dtype=torch.float32, device=device)

        self._batches = [
            tuple(torch.as_tensor(x, device=device) for x in (batch.rows, other[batch.at], batch.inside))
            for batch in row_batches(row, n_rows)
        ]

    def solve(self, rows: torch.Tensor, others: torch.Tensor) -> None:
        """Set ``rows`` to the minimum of the objective given ``others``; a row without ratings to 0."""
        import torch

        rows.zero_()
        spectrum, turned = torch.linalg.eigh(self._weight * (others.T @ others))
        others = others @ turned  # there, what all rows have in common is diagonal
        for at, rated, inside in self._batches:
            vectors = others[rated] * inside[..., None]
            common = spectrum.clamp(min=0.0) + self.l2[at][:, None]
            if vectors.shape[1] < vectors.shape[2]:  # Woodbury: as many equations as ratings
                scaled = vectors / common[:, None]
                found = (_solved(scaled @ vectors.transpose(1, 2), 1.0, inside)[:, None] @ scaled)[:, 0]
            else:
                found = _solved(vectors.transpose(1, 2) @ vectors, common, vectors.sum(1))
            rows[at] = found @ turned.T


def _solved(matrix: torch.Tensor, diagonal: torch.Tensor | float, right: torch.Tensor) -> torch.Tensor:
    """Of (matrix + diagonal) x = right, for each of a batch."""
    import torch

    matrix.diagonal(dim1=1, dim2=2).add_(diagonal)
    return torch.cholesky_solve(right[..., None], torch.linalg.cholesky(matrix))[..., 0]


def turned_to_axes(movies: Float32s) -> tuple[Float32s, Float32s]:
    """Movies (m, factors) in the axes in which movies' @ movies is diagonal, and that diagonal.

    Products of users and movies are the same in any axes; in these, what all users have in common costs nothing.
    """
    exact = movies.astype(np.float64)
    spectrum, axes = np.linalg.eigh(exact.T @ exact)
    return (exact @ axes).astype(np.float32), spectrum.clip(min=0.0).astype(np.float32)


def ranking_users(
    movies: Float32s, spectrum: Float32s, histories: Histories, *, unrated_weight: float, l2: float
) -> Float32s:
    """The vectors (n, factors) of users with these histories of columns: what :class:`RankingTrainer` solves for.

    movies, spectrum: of :func:`turned_to_axes`; the users are in the same axes.
    """
    users = np.zeros((len(histories), movies.shape[1]), np.float32)
    of_all = unrated_weight * (spectrum + l2 * len(movies))
    for row, (first, last) in enumerate(pairwise(histories.start.tolist())):
        vectors = movies[histories.movie_id[first:last]]
        n, factors = vectors.shape
        common = of_all + l2 * n
        if n < factors:  # Woodbury: as many equations as ratings
            root = np.sqrt(common)
            vectors /= root
            users[row] = (_one_solved(vectors @ vectors.T, 1.0, np.ones(n, np.float32)) @ vectors) / root
        else:
            users[row] = _one_solved(vectors.T @ vectors, common, vectors.sum(axis=0))
    return users


def _one_solved(matrix: Float32s, diagonal: Float32s | float, right: Float32s) -> Float32s:
    """Of (matrix + diagonal) x = right, where the matrix is X X' of some X: half the work of a general solve."""
    matrix.ravel()[:: len(matrix) + 1] += diagonal
    _, found, failed = lapack.sposv(matrix, right)
    solved: Float32s = np.linalg.solve(matrix, right) if failed else found
    return solved

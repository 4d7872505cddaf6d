"""EASE: an item-to-item linear model in closed form, the yardstick among personal models.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. With X the users x movies matrix of zeros and
ones, G = X'X + l2 I and P = inv(G), the weights are B = -P / diag(P), of zero diagonal; a user's scores are x B.

With fewer users than movies there is a shorter way to the same scores (Woodbury): P = (I - F'F) / l2, where F is users
x movies and F'F = X' inv(X X' + l2 I) X. Then F is kept in place of B, and x B is two thin products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from models.history_weights import recency_weights
from models.interactions import Float32s, Histories
from models.ranking import UNRATED
from models.recommender import OnEpoch, Recommender, TrainingData
from streams.errors import ModelError
from streams.records import Int64s

__all__ = ["Ease"]


class Ease(Recommender):
    """EASE on what users rated, stars aside.

    l2: the ridge, in ratings. top_weights: keep so many of each movie's weights, the largest by magnitude, or all where
    it is 0; with 200 a model of 30,000 movies takes 48 MB, with all of them 3.6 GB.
    recency_half_life, in ratings, and recency_floor: see :func:`models.history_weights.recency_weights`; of histories
    that are scored, for what is learnt has no order.
    Fitting takes O(movies^3) time and O(movies^2) memory; with all weights and fewer users than movies,
    O(users^2 movies) and O(users movies).
    """

    name: ClassVar[str] = "ease"
    _weights: Float32s | _Factors | sparse.csr_matrix

    def __init__(
        self,
        *,
        l2: float = 300.0,
        top_weights: int = 0,
        recency_half_life: float = 0.0,
        recency_floor: float = 0.0,
        seed: int = 0,
    ) -> None:
        if l2 <= 0:
            raise ValueError(f"l2: expected more than 0, found {l2}")
        self.l2 = l2
        self.top_weights = top_weights
        self.recency_half_life = recency_half_life
        self.recency_floor = recency_floor
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        self._rated = np.unique(data.column)  # a movie that nobody rated has no weights
        ones, column = np.ones(len(data.row)), np.searchsorted(self._rated, data.column)
        x = sparse.csr_matrix((ones, (data.row, column)), (data.n_users, len(self._rated)))
        try:
            if data.n_users < len(self._rated) and not self.top_weights:
                self._weights = _factors(x, self.l2)
                return
            weights = _weights(x, self.l2)
        except linalg.LinAlgError as error:
            raise ModelError(f"{self.name}: the weights are not determined ({error}); raise l2") from error
        self._weights = _largest(weights, self.top_weights) if self.top_weights else weights

    def _inputs(self, histories: Histories) -> sparse.csr_matrix:
        """Histories as rows (n, rated movies)."""
        at = np.searchsorted(self._rated, histories.movie_id)
        at[at == len(self._rated)] = 0
        weights = recency_weights(histories, self.recency_half_life, self.recency_floor)
        weights[self._rated[at] != histories.movie_id] = 0.0
        return sparse.csr_matrix((weights, at, histories.start), (len(histories), len(self._rated)))

    def _score_at(self, histories: Histories, columns: Int64s) -> Float32s:
        at = np.searchsorted(self._rated, columns)
        if isinstance(self._weights, _Factors | np.ndarray) or not np.isin(columns, self._rated).all():
            return super()._score_at(histories, columns)
        scores: Float32s = (self._inputs(histories) @ self._weights[:, at]).toarray()
        return scores

    def _score(self, histories: Histories) -> Float32s:
        x = self._inputs(histories)
        if isinstance(self._weights, _Factors):
            product = self._weights.scores(x)
        elif isinstance(self._weights, np.ndarray):
            product = x @ self._weights
        else:
            product = _sums_of_rows(x, self._weights)
        if len(self._rated) == len(self.movie_ids):
            return product
        scores = np.full((len(histories), len(self.movie_ids)), UNRATED, np.float32)
        scores[:, self._rated] = product
        return scores

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        if isinstance(self._weights, np.ndarray):
            return {"rated": self._rated, "weights": self._weights}
        if isinstance(self._weights, _Factors):
            return {"rated": self._rated, "factor": self._weights.factor, "diagonal": self._weights.diagonal}
        kept = self._weights
        return {"rated": self._rated, "data": kept.data, "indices": kept.indices, "indptr": kept.indptr}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._rated = arrays["rated"]
        shape = (len(self._rated), len(self._rated))
        if "weights" in arrays:
            self._weights = arrays["weights"]
        elif "factor" in arrays:
            self._weights = _Factors(arrays["factor"], arrays["diagonal"])
        else:
            self._weights = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Factors:
    """P = (I - factor' factor) / l2. diagonal: 1 - its column sums of squares, so that of P times l2."""

    factor: Float32s
    diagonal: Float32s

    def scores(self, x: sparse.csr_matrix) -> Float32s:
        """x B, dense."""
        product: Float32s = (x @ self.factor.T) @ self.factor
        product /= self.diagonal
        row = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
        rated, at = x.data != 0, x.indices
        product[row[rated], at[rated]] += x.data[rated] * (1.0 - 1.0 / self.diagonal[at[rated]])
        return product


def _factors(x: sparse.csr_matrix, l2: float) -> _Factors:
    kernel = (x @ x.T).toarray()
    kernel[np.diag_indices_from(kernel)] += l2
    factor = linalg.solve_triangular(linalg.cholesky(kernel, lower=True), x.toarray(), lower=True)
    return _Factors(factor.astype(np.float32), (1.0 - (factor**2).sum(axis=0)).astype(np.float32))


def _weights(x: sparse.csr_matrix, l2: float) -> Float32s:
    gram = np.asfortranarray((x.T @ x).toarray())
    gram[np.diag_indices_from(gram)] += l2
    factor, failed = linalg.lapack.dpotrf(gram, lower=1, overwrite_a=1)
    if failed:
        raise linalg.LinAlgError(f"minor {failed} is not positive definite")
    inverse, _ = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    lower = np.tril(inverse, -1)
    weights: Float32s = (-(lower + lower.T) / np.diag(inverse)).astype(np.float32)
    return weights


def _sums_of_rows(x: sparse.csr_matrix, weights: sparse.csr_matrix) -> Float32s:
    """x @ weights, dense: most of it is not zero, so that a sparse product costs more."""
    sums = np.empty((x.shape[0], weights.shape[1]), np.float32)
    for row in range(len(sums)):
        entries = slice(x.indptr[row], x.indptr[row + 1])
        at, values = x.indices[entries], x.data[entries]
        sums[row] = weights[at[values != 0]].T @ values[values != 0]
    return sums


def _largest(weights: Float32s, keep: int) -> sparse.csr_matrix:
    """The ``keep`` largest magnitudes of each column."""
    if keep < len(weights):
        least = np.partition(np.abs(weights), -keep, axis=0)[-keep]
        weights[np.abs(weights) < least] = 0.0
    return sparse.csr_matrix(weights)

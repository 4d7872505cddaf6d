"""Matrix factorisation, twice: factors that rank (iALS) and factors that predict stars (variational Bayes).

What is best at the one is poor at the other: who rated what says what will be watched, the stars say how it was liked.
So lists and stars come from factors of their own, see :mod:`models.ranking_factors` and :mod:`models.rating_factors`
for the papers. Both serve users unseen in training in closed form.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.interactions import Float32s, Histories
from models.ranking import UNRATED
from models.ranking_factors import RankingTrainer, ranking_users, turned_to_axes
from models.rating_factors import RatingFactors, RatingTrainer, rating_users
from models.recommender import Epoch, OnEpoch, RatingPredictor, TrainingData
from models.torch_device import device_named
from streams.errors import ModelError
from streams.records import Int64s

__all__ = ["MatrixFactorization"]

_RATING_SWEEPS = 2
"""Sweeps of the factors that predict stars beside each sweep of those that rank: they take a sixth of its time."""


class MatrixFactorization(RatingPredictor):
    """Lists by iALS, stars by variational Bayes.

    factors, unrated_weight, l2: of the factors that rank. rating_factors: how many predict stars. epochs: so many,
    of one sweep of the factors that rank and two of the others. Both go towards the optimum of a penalised objective
    and do not overfit by going on, so that nothing is held out to stop early. device: cpu, cuda, auto.
    """

    name: ClassVar[str] = "mf"

    def __init__(
        self,
        *,
        factors: int = 128,
        unrated_weight: float = 0.3,
        l2: float = 0.008,
        rating_factors: int = 16,
        epochs: int = 12,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        for name, value in (("factors", factors), ("rating_factors", rating_factors), ("epochs", epochs)):
            if value < 1:
                raise ValueError(f"{name}: expected 1 or more, found {value}")
        if unrated_weight <= 0 or l2 <= 0:
            raise ValueError(f"unrated_weight, l2: expected more than 0, found {unrated_weight}, {l2}")
        self.factors = factors
        self.unrated_weight = unrated_weight
        self.l2 = l2
        self.rating_factors = rating_factors
        self.epochs = epochs
        self.device = device
        self.seed = seed

    def predict(self, user_ids: npt.ArrayLike, movie_ids: npt.ArrayLike) -> Float32s:
        """Stars in [0.5, 5]: float32 (n,). A user or movie unseen in training is an average one."""
        users, position = np.unique(np.asarray(user_ids, np.int64), return_inverse=True)
        vectors = rating_users(self._rating, self._learnt(self._seen.take(self._rows(users))))
        return self._stars(vectors[position], np.asarray(movie_ids, np.int64))

    def predict_for_history(self, histories: Histories, movie_ids: npt.ArrayLike) -> Float32s:
        """Stars in [0.5, 5]: float32 (n,)."""
        vectors = rating_users(self._rating, self._learnt(self._known(histories)))
        return self._stars(vectors, np.asarray(movie_ids, np.int64))

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        import torch

        device = device_named(self.device)
        ranking = RankingTrainer(
            data,
            factors=self.factors,
            unrated_weight=self.unrated_weight,
            l2=self.l2,
            seed=self.seed,
            device=device,
        )
        rating = RatingTrainer(data, factors=self.rating_factors, seed=self.seed, device=device)
        try:
            for number in range(1, self.epochs + 1):
                loss = ranking.sweep() + [rating.sweep() for _ in range(_RATING_SWEEPS)][-1]
                if on_epoch:
                    on_epoch(Epoch(number, loss, None))
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise ModelError(f"{self.name}: training diverged ({error}); raise l2, lower unrated_weight") from error
        movies, spectrum = turned_to_axes(ranking.movies)
        self._set(movies, spectrum, np.setdiff1d(np.arange(data.n_movies), data.column), rating.factors)

    def _set(self, movies: Float32s, spectrum: Float32s, unrated: Int64s, rating: RatingFactors) -> None:
        self._movies, self._spectrum, self._unrated, self._rating = movies, spectrum, unrated, rating
        self._by_factor = np.ascontiguousarray(movies.T)  # read once in this order, a list takes half the time

    def _users(self, histories: Histories) -> Float32s:
        return ranking_users(self._movies, self._spectrum, histories, unrated_weight=self.unrated_weight, l2=self.l2)

    def _score(self, histories: Histories) -> Float32s:
        scores: Float32s = self._users(histories) @ self._by_factor
        scores[:, self._unrated] = UNRATED
        return scores

    def _score_at(self, histories: Histories, columns: Int64s) -> Float32s:
        scores: Float32s = self._users(histories) @ self._movies[columns].T
        scores[:, np.isin(columns, self._unrated)] = UNRATED
        return scores

    def _vectors(self, histories: Histories) -> tuple[Float32s, Int64s, Float32s]:
        rated = np.setdiff1d(np.arange(len(self._movies)), self._unrated)
        return self._users(histories), rated, self._movies[rated]

    def _stars(self, users: Float32s, movie_ids: npt.NDArray[np.int64]) -> Float32s:
        at = np.searchsorted(self.movie_ids, movie_ids)
        at[at == len(self.movie_ids)] = 0
        column = np.where(self.movie_ids[at] == movie_ids, self._columns[at], -1)
        vectors = self._rating.movies[column]
        vectors[column < 0] = self._rating.movies.mean(axis=0)
        stars = self._rating.level[0] + (users[:, :-1] * vectors[:, :-1]).sum(1) + users[:, -1] + vectors[:, -1]
        clipped: Float32s = np.clip(stars, 0.5, 5.0).astype(np.float32)
        return clipped

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        rating = {f"rating.{name}": getattr(self._rating, name) for name in RatingFactors.__slots__}
        return {"movies": self._movies, "spectrum": self._spectrum, "unrated": self._unrated, **rating}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        rating = RatingFactors(*(arrays[f"rating.{name}"] for name in RatingFactors.__slots__))
        self._set(arrays["movies"], arrays["spectrum"], arrays["unrated"], rating)

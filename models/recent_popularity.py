"""Decayed popularity: what is popular lately. In a stream over years it beats all-time popularity by half."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.cold_start import HALF_LIFE_DAYS, decayed_popularity
from models.interactions import Float32s, Histories
from models.recommender import OnEpoch, Recommender, TrainingData

__all__ = ["DecayedPopularity"]


class DecayedPopularity(Recommender):
    """Movies by their ratings, each halved every ``half_life_days`` before the last one; the same for everybody."""

    name: ClassVar[str] = "decayed-popularity"

    def __init__(self, *, half_life_days: float = HALF_LIFE_DAYS, seed: int = 0) -> None:
        if half_life_days <= 0:
            raise ValueError(f"half_life_days: expected more than 0, found {half_life_days}")
        self.half_life_days = half_life_days
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        self._weights = decayed_popularity(
            data.timestamp,
            data.column,
            data.n_movies,
            as_of=int(data.timestamp.max()),
            half_life_days=self.half_life_days,
        )

    def _score(self, histories: Histories) -> Float32s:
        return np.tile(self._weights, (len(histories), 1))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"weights": self._weights}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._weights = arrays["weights"]

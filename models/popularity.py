"""All-time popularity: the yardstick that anything personal has to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from models.interactions import Float32s, Histories
from models.recommender import OnEpoch, Recommender, TrainingData

__all__ = ["Popularity"]


class Popularity(Recommender):
    """Movies by the number of users who rated them; the same for everybody."""

    name: ClassVar[str] = "popularity"

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        self._counts = np.bincount(data.column, minlength=data.n_movies).astype(np.float32)

    def _score(self, histories: Histories) -> Float32s:
        return np.tile(self._counts, (len(histories), 1))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"counts": self._counts}

    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._counts = arrays["counts"]

"""``rating-bias``: users rate harsher, by .25, .5 or 1 star on average."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.records import Int64s
from streams.synthetic.draws import Draws

__all__ = ["RatingBias", "calibrated_fall", "mean_fall"]

_STARS = {"low": 0.25, "middle": 0.5, "high": 1.0}
_MOST_HALF_STARS = 9.0


def mean_fall(histogram: Int64s, fall: float) -> float:
    """By how many half stars the mean falls if each rating falls by ``fall`` and stops at half a star.

    histogram: int64 (10,), ratings of 0.5, 1, ... 5 stars. A fall between two whole numbers is one of them by chance.

    >>> mean_fall(np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 1]), 1.5)
    0.75
    """
    room = np.arange(10)
    less = int(fall)
    falls = np.minimum(room, less) + (fall - less) * (np.minimum(room, less + 1) - np.minimum(room, less))
    return float(histogram @ falls / histogram.sum())


def calibrated_fall(histogram: Int64s, wanted: float) -> float:
    """The fall, in half stars, by which the mean of ``histogram`` falls by ``wanted`` in spite of the floor.

    Where not even half a star for all is that far down, it is what gives half a star to all.
    """
    low, high = 0.0, _MOST_HALF_STARS
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_fall(histogram, middle) < wanted else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class RatingBias:
    """Every rating from the beginning on falls, by a number of half stars that a draw rounds up or down.

    Its strength is by how much the mean rating of the affected part falls. Ratings stop at half a star, so each falls
    by a little more than that: ``fall`` half stars, fitted to the stars of the affected part.
    """

    amount: float
    fall: float
    mean_shift: float
    draws: Draws

    @staticmethod
    def learn(upstream: Upstream) -> RatingBias:
        histogram = np.zeros(10, np.int64)
        for rows in upstream.affected_part():
            histogram += np.bincount(np.rint(rows.rating * 2).astype(np.int64) - 1, minlength=10)
        amount = _STARS[upstream.spec.strength]
        fall = calibrated_fall(histogram, amount * 2) if histogram.any() else amount * 2
        shift = mean_fall(histogram, fall) / 2 if histogram.any() else 0.0
        return RatingBias(amount, fall, -shift, upstream.draws)

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        chance = self.draws.uniform("rounding", rows.key)
        rating = np.where(begun & rows.well_formed, lowered(rows.rating, self.fall, chance), rows.rating)
        return replace(rows, rating=rating), rating != rows.rating

    def parameters(self) -> dict[str, Any]:
        return {"amount": self.amount, "mean_shift": self.mean_shift, "half_stars_drawn": self.fall}


def lowered(rating: npt.NDArray[np.float64], fall: float, chance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Stars less ``fall`` half stars, rounded up where ``chance`` (uniform in (0, 1)) says so, not below 0.5."""
    less = int(fall)
    return np.maximum(rating - (less + (chance < fall - less)) / 2, 0.5)

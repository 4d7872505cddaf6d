"""Exponential decay that only ever adds: each rating is weighted once, against a fixed landmark.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay: A Practical Time Decay Model for Streaming
Systems", ICDE 2009): a rating at ``t`` weighs ``2 ** ((t - LANDMARK) / half_life)`` for ever, and whoever asks at T
scales the sum by ``2 ** ((LANDMARK - T) / half_life)``. So late ratings need no special case, partial sums of any
partitions merge by addition, and nothing stored has to be rewritten as time goes by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.events import DAY_S
from streams.records import Int64s

__all__ = ["LANDMARK", "MIN_HALF_LIFE_DAYS", "Float64s", "age_scale", "day_weights", "forward_weights"]

Float64s = npt.NDArray[np.float64]

LANDMARK = 1_735_689_600
"""2025-01-01T00:00:00Z, about the middle of the years 1990 to 2060, which a float64 must span in half-lives."""

MIN_HALF_LIFE_DAYS = 14.0
"""Below it the weights of 1990 or of 2060 would leave the range of a float64 (2 to the power of -1022 to 1023)."""


def forward_weights(timestamps: Int64s, half_life_days: float) -> Float64s:
    """The weight of a rating at each of ``timestamps`` (int64 (n,), seconds since the epoch), relative to LANDMARK.

    >>> forward_weights(np.array([LANDMARK, LANDMARK - 30 * DAY_S]), half_life_days=30.0)
    array([1. , 0.5])
    """
    weights: Float64s = np.exp2((timestamps - LANDMARK) / (half_life_days * DAY_S))
    return weights


def day_weights(days: Int64s, half_life_days: float) -> Float64s:
    """The weight of a rating on each of ``days`` (days since the epoch): that of the day's beginning."""
    return forward_weights(days * DAY_S, half_life_days)


def age_scale(end_day: int, half_life_days: float) -> float:
    """What a sum of :func:`day_weights` is multiplied by so that a rating on the last day before ``end_day`` counts 1.

    >>> round(float(day_weights(np.array([20_000]), 30.0)[0] * age_scale(20_031, 30.0)), 12)
    0.5
    """
    half_lives = (LANDMARK - (end_day - 1) * DAY_S) / (half_life_days * DAY_S)
    return float(np.exp2(min(half_lives, 1023.0)))  # before 1990 there are no ratings to scale, and no float so large

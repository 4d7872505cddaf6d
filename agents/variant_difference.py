"""Whether two variants differ in a ratio, such as clicks by movies shown: an interval that costs no resampling.

Users are what varies: what one user is shown and clicks hangs together, and users are independent. The variance of a
ratio of sums over users is that of its linear part (Cochran, "Sampling Techniques", 1977, 6.4; Deng, Knoblich and Lu,
"Applying the Delta Method in Metric Analytics", KDD 2018). Unpaired: no user is in two variants. An interval holds for
one look; who looks every day until one excludes zero will find one.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from agents.monitor_columns import PackedArray, pack, unpack
from models.bootstrap import Interval
from models.metrics import Floats
from streams.records import Int64s

__all__ = ["MIN_USERS", "UserSums", "UserSumsState", "ratio_difference", "ratio_of"]

MIN_USERS = 100
"""Of each variant: with fewer, a few heavy users make the interval too narrow."""

_Z = 1.959964
"""95 % of a normal distribution lie within so many standard deviations."""


class UserSumsState(msgspec.Struct, frozen=True):
    """``UserSums`` as JSON holds it."""

    user_id: PackedArray
    sums: PackedArray


class UserSums:
    """Two sums of each user, numerator and denominator, added to day by day.

    >>> sums = UserSums(); sums.add(np.array([7, 7]), np.array([1, 0]), np.array([10, 10]))
    >>> sums.user_id.tolist(), sums.sums.tolist()
    ([7], [[1, 20]])
    """

    def __init__(self) -> None:
        self.user_id: Int64s = np.zeros(0, np.int64)
        self.sums: Int64s = np.zeros((0, 2), np.int64)

    def add(self, user_id: Int64s, numerator: Int64s, denominator: Int64s) -> None:
        """user_id, numerator, denominator: (n,); a user may come several times."""
        if not len(user_id):
            return
        users = np.union1d(self.user_id, user_id)
        sums = np.zeros((len(users), 2), np.int64)
        sums[np.searchsorted(users, self.user_id)] = self.sums
        np.add.at(sums, np.searchsorted(users, user_id), np.stack([numerator, denominator], axis=1))
        self.user_id, self.sums = users, sums

    def state(self) -> UserSumsState:
        return UserSumsState(pack(self.user_id), pack(self.sums))

    @classmethod
    def of(cls, state: UserSumsState) -> UserSums:
        held = cls()
        held.user_id, held.sums = unpack(state.user_id), unpack(state.sums)
        return held


def ratio_of(sums: Int64s) -> Interval:
    """The ratio of the sums (n, 2) over users, with its 95 % interval; NaN where there is nothing to divide by."""
    value, variance, freedom = _ratio(sums)
    return _interval(value, variance, freedom)


def ratio_difference(ours: Int64s, theirs: Int64s) -> Interval | None:
    """Our ratio less theirs, each of sums (n, 2) over other users, with its 95 % interval.

    None below :data:`MIN_USERS` on either side.
    """
    if min(len(ours), len(theirs)) < MIN_USERS:
        return None
    (our_value, our_variance, our_freedom), (their_value, their_variance, their_freedom) = _ratio(ours), _ratio(theirs)
    return _interval(our_value - their_value, our_variance + their_variance, min(our_freedom, their_freedom))


def _ratio(sums: Int64s) -> tuple[float, float, float]:
    """Value, variance, and degrees of freedom: as many as users of equal weight would have, less one.

    Each residual is what it would be without its user (the jackknife's), for a heavy user draws the ratio to itself.
    """
    numerator, denominator = sums.astype(np.float64).T
    total = denominator.sum()
    weight: Floats = denominator / total if total else denominator
    if len(sums) < 2 or not total or weight.max() == 1:
        return math.nan, math.nan, math.nan
    value = numerator.sum() / total
    residual: Floats = (numerator - value * denominator) / (1 - weight)
    return float(value), float((residual**2).sum() / total**2), float(1 / (weight**2).sum() - 1)


def _interval(value: float, variance: float, freedom: float) -> Interval:
    student = _Z + (_Z**3 + _Z) / (4 * freedom)  # of Student's t, to the first order
    half = student * math.sqrt(variance) if variance >= 0 else math.nan
    return Interval(value, value - half, value + half)

"""Intervals by resampling users: what another draw of users like these would have shown.

Users are drawn, not ratings or lists, because what one user does hangs together. Efron and Tibshirani, "An Introduction
to the Bootstrap", 1993. Every measure here is a ratio of two sums over users (a mean is one over 1), so a draw is a
vector of weights and all draws are a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.metrics import Floats
from models.ranking import NO_MOVIE
from streams.records import Int64s

__all__ = ["DRAWS", "Interval", "coverage_interval", "paired_difference", "ratio_interval"]

DRAWS = 1_000
_WEIGHTS_AT_ONCE = 4 << 20


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value and the interval around it; all three are NaN where nothing could be measured."""

    value: float
    low: float
    high: float


def ratio_interval(
    numerator: Floats,
    denominator: Floats,
    *,
    seed: int = 0,
    level: float = 0.95,
    draws: int = DRAWS,
    transform: Callable[[Floats], Floats] = np.asarray,
) -> Interval:
    """Of ``transform(sum(numerator) / sum(denominator))`` over users: percentiles of ``draws`` resamples.

    numerator, denominator: (n,), one of each per user. transform: rising, as the root that makes an RMSE.

    >>> interval = ratio_interval(np.array([1.0, 0.0, 1.0, 1.0]), np.ones(4))
    >>> interval.value, interval.low < 0.75 < interval.high
    (0.75, True)
    """
    if not denominator.sum():
        return Interval(np.nan, np.nan, np.nan)
    value, drawn = (transform(ratio) for ratio in _ratios(numerator, denominator, seed, draws))
    return Interval(float(value[0]), *_percentiles(drawn, level))


def paired_difference(
    ours: tuple[Floats, Floats],
    theirs: tuple[Floats, Floats],
    *,
    seed: int = 0,
    level: float = 0.95,
    draws: int = DRAWS,
    transform: Callable[[Floats], Floats] = np.asarray,
) -> Interval:
    """Of our ratio less theirs, each as (numerator, denominator) over the same users, who are drawn for both at once.

    Users who are easy or hard are so for both, so this interval is narrower than the difference of two intervals.
    """
    if not (ours[1].sum() and theirs[1].sum()):
        return Interval(np.nan, np.nan, np.nan)
    (our_value, our_drawn), (their_value, their_drawn) = (_ratios(*sums, seed, draws) for sums in (ours, theirs))
    value = transform(our_value) - transform(their_value)
    return Interval(float(value[0]), *_percentiles(transform(our_drawn) - transform(their_drawn), level))


def coverage_interval(
    ranked: Int64s, owner: Int64s, n_movies: int, *, seed: int = 0, level: float = 0.95, draws: int = 200
) -> Interval:
    """Of the share of ``n_movies`` that the lists of some user show.

    ranked: (n, k) movie ids; owner: (n,), the user of each list, from 0. A draw repeats users, so it shows fewer movies
    than all users do: the interval is as wide as the draws spread, moved to lie around the value.
    """
    movies, column = np.unique(ranked, return_inverse=True)
    pairs = np.unique(np.stack([np.repeat(owner, ranked.shape[1]), column.ravel()]), axis=1)
    user, column = pairs[:, movies[pairs[1]] != NO_MOVIE]
    n_users = int(owner.max(initial=-1)) + 1
    if not n_users:
        return Interval(np.nan, np.nan, np.nan)
    value = len(np.unique(column)) / n_movies
    drawn = np.array(
        [
            (np.bincount(column, weights[user] > 0, minlength=len(movies)) > 0).sum() / n_movies
            for part in _weights(n_users, seed, draws)
            for weights in part
        ]
    )
    low, high = _percentiles(drawn - drawn.mean() + value, level)
    return Interval(value, max(low, 0.0), min(high, 1.0))


def _ratios(numerator: Floats, denominator: Floats, seed: int, draws: int) -> tuple[Floats, Floats]:
    """The ratio over all users (1,) and of each draw (draws,); NaN where the denominator is 0."""
    sums = np.stack([numerator, denominator], axis=1)
    drawn = np.concatenate([weights @ sums for weights in _weights(len(sums), seed, draws)])
    drawn[drawn[:, 1] == 0] = np.nan
    return numerator.sum(keepdims=True) / denominator.sum(), drawn[:, 0] / drawn[:, 1]


def _weights(n: int, seed: int, draws: int) -> Iterator[Floats]:
    """How often each of ``n`` users is in each draw, in parts of (some draws, n). The same for the same n and seed."""
    random = np.random.default_rng(seed)
    at_once = max(1, _WEIGHTS_AT_ONCE // n)
    for first in range(0, draws, at_once):
        m = min(at_once, draws - first)
        users = random.integers(0, n, (m, n)) + n * np.arange(m)[:, None]
        yield np.bincount(users.ravel(), minlength=m * n).reshape(m, n).astype(np.float64)


def _percentiles(drawn: Floats, level: float) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

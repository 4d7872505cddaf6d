"""Whether features are what a model expects: how many are missing, out of range, and how far they have shifted.

Pure functions over columns. Shift is the population stability index (PSI; Siddiqi: "Credit Risk Scorecards", 2006) of
a feature's values now against a baseline, over the tenths of the baseline. By convention 0.1 is a small shift and
``PSI_SHIFTED`` one to act on. Without any shift PSI is about (bins - 1) * (1 / n + 1 / m) for samples of n and m
(Yurdakul, Naranjo: "Statistical properties of the population stability index", 2020), so few values give none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from featurestore.decay import Float64s
from featurestore.features import ItemFeatures, UserFeatures

__all__ = [
    "MIN_VALUES",
    "PSI_SHIFTED",
    "VALID",
    "FeatureQuality",
    "Histogram",
    "ValidRange",
    "assess",
    "histogram",
    "item_columns",
    "psi",
    "user_columns",
]

PSI_SHIFTED = 0.2
"""From here on a feature has shifted."""

MIN_VALUES = 100
"""Fewer values, on either side, give no PSI: their noise alone would look like a shift."""

_BINS = 10


@dataclass(frozen=True, slots=True)
class ValidRange:
    """What a feature can be, both ends included."""

    low: float
    high: float = math.inf


VALID: dict[str, ValidRange] = {
    "user.n_ratings": ValidRange(1),
    "user.mean_rating": ValidRange(0.5, 5),
    "user.recency_s": ValidRange(0),
    "user.session_n": ValidRange(1),
    "user.taste_entropy": ValidRange(0, 1),
    "item.n_ratings": ValidRange(1),
    "item.mean_rating": ValidRange(0.5, 5),
    "item.mean_rating_28d": ValidRange(0.5, 5),
    "item.recency_s": ValidRange(0),
    "item.decayed_popularity": ValidRange(0),
}
"""The features that are watched."""


class Histogram(msgspec.Struct, frozen=True):
    """How often values fell into each bin. ``edges``: the inner ones, rising; a value at an edge is above it."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True, slots=True)
class FeatureQuality:
    """One feature in a sample of ``n`` users or movies.

    null_share: of n. out_of_range: the share of the others outside the valid range. low, high: the extremes among the
    finite ones, None where there are none. psi: None without a baseline, or with fewer than MIN_VALUES on either side.
    """

    feature: str
    n: int
    null_share: float
    out_of_range: float
    low: float | None
    high: float | None
    psi: float | None


def user_columns(features: UserFeatures) -> dict[str, Float64s]:
    """The watched features of the known users, float64 (n,), NaN for null.

    ``user.taste_entropy``: of the taste shares, as a part of the most there can be: 0 for one genre, 1 for all alike.
    """
    known = features.known
    return {
        "user.n_ratings": features.n_ratings[known].astype(np.float64),
        "user.mean_rating": features.mean_rating[known],
        "user.recency_s": features.recency_s[known],
        "user.session_n": features.session_n[known].astype(np.float64),
        "user.taste_entropy": _entropy(features.taste[known]),
    }


def item_columns(features: ItemFeatures) -> dict[str, Float64s]:
    """The watched features of the known movies, float64 (n,), NaN for null."""
    known = features.known
    return {
        "item.n_ratings": features.n_ratings[known].astype(np.float64),
        "item.mean_rating": features.mean_rating[known],
        "item.mean_rating_28d": features.window_mean["28d"][known],
        "item.recency_s": features.recency_s[known],
        "item.decayed_popularity": features.decayed_popularity[known],
    }


def _entropy(shares: Float64s) -> Float64s:
    """Of shares (n, genres) that add up to 1: (n,) from 0 to 1; NaN where there are none, or one genre in all."""
    n_genres = shares.shape[1]
    if n_genres < 2:
        return np.full(len(shares), np.nan)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: Float64s = -(shares * logs).sum(axis=1) / math.log(n_genres)
    return np.where(shares.any(axis=1), np.clip(entropy, 0.0, 1.0), np.nan)


def histogram(values: Float64s, edges: list[float] | None = None) -> Histogram:
    """Counts of the values (NaN left out) between ``edges``; by default those of the values' own tenths.

    >>> histogram(np.array([1.0, 1.0, 2.0, np.nan, 4.0]), edges=[2.0, 3.0])
    Histogram(edges=[2.0, 3.0], counts=[2, 1, 1])
    """
    finite = values[np.isfinite(values)]
    if edges is None:
        tenths = np.quantile(finite, np.linspace(0, 1, _BINS + 1)[1:-1]) if len(finite) else np.zeros(0)
        edges = np.unique(tenths[tenths > finite.min(initial=math.inf)]).tolist()  # equal values are one bin
    counts = np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)
    return Histogram(edges, counts.tolist())


def psi(baseline: list[int], counts: list[int]) -> float:
    """The population stability index of two histograms of the same bins: 0 for the same shares, symmetric.

    Half a value is added to each bin, so that an empty one is no infinite surprise.

    >>> round(psi([50, 50], [80, 20]), 3)
    0.406
    """
    expected, found = (np.array(side) + 0.5 for side in (baseline, counts))
    expected, found = expected / expected.sum(), found / found.sum()
    return float(((found - expected) * np.log(found / expected)).sum())


def assess(columns: Mapping[str, Float64s], baseline: Mapping[str, Histogram]) -> list[FeatureQuality]:
    """The quality of each column, by its name in VALID; one without rows has none."""
    return [_assess(name, values, baseline.get(name)) for name, values in columns.items() if len(values)]


def _assess(name: str, values: Float64s, baseline: Histogram | None) -> FeatureQuality:
    held = values[~np.isnan(values)]
    finite = held[np.isfinite(held)]
    valid = VALID[name]
    inside = np.isfinite(held) & (held >= valid.low) & (held <= valid.high)
    shift = None
    if baseline is not None and min(sum(baseline.counts), len(finite)) >= MIN_VALUES:
        shift = psi(baseline.counts, histogram(finite, baseline.edges).counts)
    return FeatureQuality(
        feature=name,
        n=len(values),
        null_share=1 - len(held) / len(values),
        out_of_range=float(1 - inside.mean()) if len(held) else 0.0,
        low=float(finite.min()) if len(finite) else None,
        high=float(finite.max()) if len(finite) else None,
        psi=shift,
    )

"""What a set of ratings looks like in a few numbers, real or synthetic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.dataset import Ratings
from streams.events import DAY_S
from streams.records import Int64s

__all__ = ["SESSION_GAP_S", "RatingsSummary", "concatenate", "gini", "session_lengths", "summarise"]

SESSION_GAP_S = 1_800
"""A session ends where a user rates nothing for so long."""


@dataclass(frozen=True, slots=True)
class RatingsSummary:
    """Shape of a set of ratings.

    popularity_gini: over the ratings per rated movie, 0 (all alike) to 1. rating_shares: of 0.5, 1, ... 5 stars.
    Session: one user's ratings with gaps under 30 minutes; its length counts ratings. An active day (UTC) has a rating.
    """

    ratings: int
    users: int
    movies: int
    popularity_gini: float
    rating_shares: tuple[float, ...]
    sessions: int
    mean_session: float
    median_session: float
    single_rating_sessions: float
    active_days: int
    ratings_per_active_day: float


def summarise(ratings: Ratings, *, session_gap_s: int = SESSION_GAP_S) -> RatingsSummary:
    """The summary of ``ratings``, in any order. Raises ValueError for none."""
    if len(ratings) == 0:
        raise ValueError("a summary needs at least one rating")
    _, per_movie = np.unique(ratings.movie_id, return_counts=True)
    lengths = session_lengths(ratings, session_gap_s)
    half_stars = np.rint(ratings.rating * 2).astype(np.int64)
    shares = np.bincount(half_stars, minlength=11)[1:] / len(ratings)
    active_days = len(np.unique(ratings.timestamp // DAY_S))
    return RatingsSummary(
        ratings=len(ratings),
        users=len(np.unique(ratings.user_id)),
        movies=len(per_movie),
        popularity_gini=gini(per_movie),
        rating_shares=tuple(shares.tolist()),
        sessions=len(lengths),
        mean_session=float(lengths.mean()),
        median_session=float(np.median(lengths)),
        single_rating_sessions=float((lengths == 1).mean()),
        active_days=active_days,
        ratings_per_active_day=len(ratings) / active_days,
    )


def gini(counts: npt.NDArray[np.integer]) -> float:
    """Gini coefficient of counts above zero, shape (n,).

    >>> gini(np.array([5, 5, 5])), round(gini(np.array([1, 1, 998])), 3)
    (0.0, 0.665)
    """
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    return float(2 * np.sum(np.arange(1, n + 1) * ordered) / (n * ordered.sum()) - (n + 1) / n)


def session_lengths(ratings: Ratings, session_gap_s: int = SESSION_GAP_S) -> Int64s:
    """Ratings in each session: one user's, in time order, with gaps under ``session_gap_s`` seconds."""
    order = np.lexsort((ratings.timestamp, ratings.user_id))
    user, time = ratings.user_id[order], ratings.timestamp[order]
    begins = np.flatnonzero((np.diff(user) != 0) | (np.diff(time) >= session_gap_s)) + 1
    return np.diff(np.concatenate([[0], begins, [len(order)]]))


def concatenate(chunks: Iterable[Ratings]) -> Ratings:
    """All chunks as one; for data that fits in memory."""
    parts = list(chunks)
    return Ratings(
        np.concatenate([p.user_id for p in parts]),
        np.concatenate([p.movie_id for p in parts]),
        np.concatenate([p.rating for p in parts]),
        np.concatenate([p.timestamp for p in parts]),
    )

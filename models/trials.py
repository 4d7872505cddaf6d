"""Two models on the same slates: the one that serves and the one that may take its place.

Both are judged by what :mod:`models.prequential` judges by, slate by slate, each as it serves, on a window of which
neither has learnt anything. The click rates are compared by the paired bootstrap over users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.bootstrap import DRAWS, Interval, paired_difference
from models.evaluation import Evaluation
from models.interactions import Interactions
from models.prequential import Stream, evaluate_fitted
from models.recommender import Recommender
from models.side_features import SideFeatures
from models.slates import find_sessions
from streams.records import Int64s

__all__ = ["Trial", "hold_trial", "shortest_window", "slate_times"]


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What came of it on [start, end), seconds since the epoch. difference: the newcomer's click rate less the other's.

    n_users: who were shown a slate.
    """

    start: int
    end: int
    n_slates: int
    n_users: int
    newcomer: Evaluation
    incumbent: Evaluation
    difference: Interval


def slate_times(ratings: Interactions, since: int) -> Int64s:
    """When slates are made from ``since`` on, rising: the moments of the ratings that trigger them.

    >>> slate_times(Interactions([1, 1, 2], [10, 20, 10], [4.0, 3.5, 5.0], [100, 200, 5_000]), 0).tolist()
    [100, 5000]
    """
    order = np.lexsort((ratings.movie_id, ratings.user_id, ratings.timestamp))
    user_id, timestamp = ratings.user_id[order], ratings.timestamp[order]
    times = timestamp[find_sessions(user_id, timestamp).triggers]
    return times[times >= since]


def shortest_window(ratings: Interactions, *, least_slates: int, not_before: int) -> tuple[int, int]:
    """Where the shortest window up to the last rating begins that holds so many slates, and how many it holds.

    It never begins before ``not_before``: then it holds fewer.
    """
    times = slate_times(ratings, not_before)
    if len(times) < least_slates:
        return not_before, len(times)
    start = int(times[-least_slates])
    return start, int((times >= start).sum())


def hold_trial(
    newcomer: Recommender,
    incumbent: Recommender,
    ratings: Interactions,
    features: SideFeatures,
    *,
    start: int,
    end: int,
    level: float = 0.95,
    draws: int = DRAWS,
) -> Trial:
    """Judge both on the slates of [start, end). ratings: all before ``end``, those before ``start`` are histories.

    Neither may have learnt from ratings at ``start`` or later. level, draws: of the interval. Raises DataError where no
    rating is before ``start``, or none after.
    """
    stream = Stream.of(ratings, features, cutoff=start)
    ours, theirs = evaluate_fitted(newcomer, stream), evaluate_fitted(incumbent, stream)
    difference = paired_difference(ours.sums["ctr"], theirs.sums["ctr"], level=level, draws=draws)
    n_users = len(np.unique(stream.ratings.user_id[stream.slate_at]))
    return Trial(start, end, len(stream.slate_at), n_users, ours, theirs, difference)

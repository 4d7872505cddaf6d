"""What a model is worth on ratings held out: each measure with its interval over users.

Lists rank all movies, those of the history left out, ties by rising movie id. A list of a user for whom nothing that is
held out is relevant is no part of the means, since no list could be right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from models import metrics
from models.bootstrap import Interval, coverage_interval, paired_difference, ratio_interval
from models.interactions import Float32s, Histories
from models.metrics import Floats
from models.rankers import ByHistory, ByUser, Ranker
from models.recommender import Recommender
from models.side_features import SideFeatures
from models.splits import Split
from streams.records import Int64s

__all__ = ["Evaluation", "Sums", "UserSums", "evaluate", "measured", "sums_of_lists", "sums_of_stars"]

Sums = tuple[Floats, Floats]
"""A measure's numerator and denominator for each user: the measure is the ratio of their totals."""
UserSums = dict[str, Sums]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """measures: by name ("ndcg@10", "rmse"), with their intervals. sums: what they come from, a row per ``user_ids``.

    settings: what the protocol was told, as days between refits.
    """

    model: str
    protocol: str
    measures: Mapping[str, Interval]
    user_ids: Int64s
    sums: Mapping[str, Sums]
    n_lists: int
    settings: Mapping[str, float | str] = field(default_factory=dict)

    def difference(self, other: Evaluation, measure: str) -> Interval:
        """Of this model's ``measure`` less the other's, on the same users. Raises ValueError where they are others."""
        if not np.array_equal(self.user_ids, other.user_ids):
            raise ValueError(f"{self.model} and {other.model}: expected to be judged by the same users, found others")
        return paired_difference(self.sums[measure], other.sums[measure], transform=_shape(measure))


def evaluate(model: Recommender | Ranker, split: Split, *, k: int = 10) -> Evaluation:
    """Judge a model that was fitted on ``split.train``, by lists of ``k``; or any other :class:`Ranker`."""
    user_ids, row = np.unique(split.test.user_id, return_inverse=True)
    histories = split.histories or Histories.of_users(split.train, user_ids)
    ranker = model if not isinstance(model, Recommender) else _asked(model, split)
    moments = (np.bincount(row, split.test.timestamp) / np.bincount(row)).astype(np.int64)
    sums: UserSums = {}
    ranked = None
    if split.ranks:
        ranked = ranker.rank(user_ids, histories, moments, k)
        liked = split.test.rating >= split.relevant_from
        pairs = np.stack([row[liked], split.test.movie_id[liked]])
        width = max(int(split.test.movie_id.max(initial=0)), int(histories.movie_id.max(initial=0))) + 1
        seen = histories.row * width + histories.movie_id
        pairs = np.unique(pairs[:, ~np.isin(pairs[0] * width + pairs[1], seen)], axis=1)
        sums |= sums_of_lists(ranked, np.arange(len(user_ids)), len(user_ids), pairs, split.features)
    if split.rates:
        stars = ranker.stars(split.test.user_id, histories.take(row), split.test.movie_id)
        if stars is not None:
            sums |= sums_of_stars(stars, split.test.rating, row, len(user_ids))
    n_movies = len(np.union1d(split.train.movie_id, split.features.movie_id))
    measures = measured(sums, ranked, np.arange(len(user_ids)), n_movies)
    return Evaluation(ranker.name, split.protocol, measures, user_ids, sums, 0 if ranked is None else len(ranked))


def sums_of_lists(ranked: Int64s, owner: Int64s, n_users: int, relevant: Int64s, features: SideFeatures) -> UserSums:
    """Sums over each user's lists. ranked: (n, k); owner: (n,), from 0; relevant: (2, r), distinct list and movie."""
    k = ranked.shape[1]
    hits = metrics.hits_of(ranked, relevant[0], relevant[1])
    n_relevant = np.bincount(relevant[0], minlength=len(ranked))
    per_list = {
        "precision": metrics.precision(hits),
        "recall": metrics.recall(hits, n_relevant),
        "ndcg": metrics.ndcg(hits, n_relevant),
        "map": metrics.average_precision(hits, n_relevant),
        "mrr": metrics.reciprocal_rank(hits),
        "hit_rate": metrics.hit_rate(hits),
    }
    judged = n_relevant > 0
    sums = {f"{name}@{k}": _summed(values, judged, owner, n_users) for name, values in per_list.items()}
    diversity = metrics.intra_list_diversity(ranked, features.movie_id, features.genres)
    sums[f"diversity@{k}"] = _summed(diversity, ~np.isnan(diversity), owner, n_users)
    return sums


def sums_of_stars(predicted: Float32s, given: Float32s, owner: Int64s, n_users: int) -> UserSums:
    """Sums of errors over each user's ratings: all (n,)."""
    error = predicted.astype(np.float64) - given
    every = np.ones(len(error), bool)
    return {
        "rmse": _summed(error**2, every, owner, n_users),
        "mae": _summed(np.abs(error), every, owner, n_users),
    }


def measured(sums: Mapping[str, Sums], ranked: Int64s | None, owner: Int64s, n_movies: int) -> dict[str, Interval]:
    """Each measure with its interval, and where there are lists, the share of ``n_movies`` that they show."""
    found = {name: ratio_interval(*of_users, transform=_shape(name)) for name, of_users in sums.items()}
    if ranked is not None:
        found[f"coverage@{ranked.shape[1]}"] = coverage_interval(ranked, owner, n_movies)
    return found


def _asked(model: Recommender, split: Split) -> Ranker:
    return ByUser(model) if split.histories is None else ByHistory(model, split.features.user_groups)


def _summed(values: Floats, counted: np.ndarray, owner: Int64s, n_users: int) -> Sums:
    kept = owner[counted]
    numerator = np.bincount(kept, values[counted], minlength=n_users).astype(np.float64)
    return numerator, np.bincount(kept, minlength=n_users).astype(np.float64)


def _shape(measure: str) -> Callable[[Floats], Floats]:
    return np.sqrt if measure == "rmse" else np.asarray

"""The stream slate by slate: recommend from what was known by then, then see what the user rated next.

Test-then-train, Gama, Sebastião and Rodrigues, "On Evaluating Stream Learning Algorithms", Machine Learning 2013;
for recommenders Vinagre, Jorge and Gama, "Evaluation of Recommender Systems in Streaming Environments", 2015. Here
a model is refitted every 90 event days on all ratings before; in between it folds in each user's history, which is
always up to date. What slates and clicks are: :mod:`models.slates`.

The users never saw these slates: a click rate here is the rate at which a list names what is rated anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from models.evaluation import Evaluation, UserSums, measured, sums_of_lists, sums_of_stars
from models.interactions import Float32s, Interactions
from models.rankers import ByHistory, OracleRanker, Ranker
from models.ranking import NO_MOVIE
from models.recommender import OnEpoch, Recommender
from models.side_features import SideFeatures
from models.slates import LIKED_STARS, OUTCOME_S, SLATE_SIZE, Sessions, clicked_slates, find_sessions
from models.splits import known_by
from models.timeline import Timeline
from streams.errors import DataError
from streams.events import DAY_S
from streams.records import Int64s

__all__ = ["REFIT_DAYS", "OnRefit", "Stream", "evaluate_fitted", "evaluate_oracle", "evaluate_prequential"]

REFIT_DAYS = 90
_RATINGS_AT_ONCE = 4 << 20
"""Of histories held together: 100 MB."""

OnRefit = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """A stream prepared once for all models. ratings: in their total order; those from ``cutoff`` on are live.

    slate_at: positions of the live ratings that trigger a slate, rising.
    """

    ratings: Interactions
    features: SideFeatures
    cutoff: int
    refit_days: int
    sessions: Sessions
    slate_at: Int64s
    timeline: Timeline

    @classmethod
    def of(cls, ratings: Interactions, features: SideFeatures, *, cutoff: int, refit_days: int = REFIT_DAYS) -> Stream:
        """cutoff: seconds since the epoch. Raises DataError where no rating is before it, or none after."""
        order = np.lexsort((ratings.movie_id, ratings.user_id, ratings.timestamp))
        ratings = ratings.take(order)
        first_live = int(np.searchsorted(ratings.timestamp, cutoff))
        if not 0 < first_live < len(ratings):
            raise DataError(
                f"prequential: expected ratings before and after the cutoff {cutoff}, found {first_live:,} before and "
                f"{len(ratings) - first_live:,} after"
            )
        sessions = find_sessions(ratings.user_id, ratings.timestamp)
        slate_at = sessions.triggers
        slate_at = slate_at[slate_at >= first_live]
        return cls(ratings, features, cutoff, refit_days, sessions, slate_at, Timeline(ratings))

    def refits(self) -> list[tuple[int, int, int]]:
        """(moment, first, last): a model fitted on all before ``moment`` serves the ratings ``first`` to ``last``."""
        span = self.refit_days * DAY_S
        moments = np.arange(self.cutoff, int(self.ratings.timestamp[-1]) + 1, span)
        ends = np.searchsorted(self.ratings.timestamp, np.append(moments, moments[-1] + span))
        parts = zip(moments.tolist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        return [(moment, first, last) for moment, first, last in parts if last > first]


def evaluate_prequential(
    make: Callable[[], Recommender],
    stream: Stream,
    *,
    k: int = SLATE_SIZE,
    on_epoch: OnEpoch | None = None,
    on_refit: OnRefit | None = None,
) -> Evaluation:
    """Judge what ``make`` gives, a new model for each refit. on_refit: told how many refits are done, of how many."""

    def fit(moment: int) -> Ranker:
        train = stream.ratings.before(moment)
        features = known_by(stream.features, train.movie_id, moment)
        return ByHistory(make().fit(train, features, on_epoch=on_epoch), stream.features.user_groups)

    return _evaluate(fit, stream, k, on_refit)


def evaluate_fitted(model: Recommender, stream: Stream, *, k: int = SLATE_SIZE) -> Evaluation:
    """Judge a model as it serves, never refitted; it must have learnt from nothing after the stream's cutoff."""
    ranker = ByHistory(model, stream.features.user_groups)
    return _evaluate(lambda moment: ranker, stream, k, None)


def evaluate_oracle(oracle: OracleRanker, stream: Stream, *, k: int = SLATE_SIZE) -> Evaluation:
    """Judge the oracle of a synthetic world, which there is nothing to fit for."""
    return _evaluate(lambda moment: oracle, stream, k, None)


def _evaluate(fit: Callable[[int], Ranker], stream: Stream, k: int, on_refit: OnRefit | None) -> Evaluation:
    ratings, name = stream.ratings, ""
    first_live = int(np.searchsorted(ratings.timestamp, stream.cutoff))
    slates = np.full((len(stream.slate_at), k), NO_MOVIE, np.int64)
    stars: Float32s | None = np.empty(len(ratings) - first_live, np.float32)
    refits = stream.refits()
    for n_done, (moment, first, last) in enumerate(refits, 1):
        ranker = fit(moment)
        name = ranker.name
        begin, end = np.searchsorted(stream.slate_at, [first, last])
        for part in _batches(stream, stream.slate_at[begin:end]):
            users, moments = ratings.user_id[part], ratings.timestamp[part]
            rows = np.searchsorted(stream.slate_at, part)
            slates[rows] = ranker.rank(users, stream.timeline.before(users, moments), moments, k)
        stars = _predicted(ranker, stream, np.arange(first, last), first_live, stars)
        if on_refit:
            on_refit(n_done, len(refits))
    return _judged(name, stream, slates, stars, ratings.take(np.arange(first_live, len(ratings))))


def _predicted(
    ranker: Ranker, stream: Stream, live: Int64s, first_live: int, stars: Float32s | None
) -> Float32s | None:
    """``stars`` with those of ``live`` filled in; None once the ranker predicts none."""
    for part in _batches(stream, live):
        if stars is None:
            return None
        users, moments = stream.ratings.user_id[part], stream.ratings.timestamp[part]
        found = ranker.stars(users, stream.timeline.before(users, moments), stream.ratings.movie_id[part])
        if found is None:
            return None
        stars[part - first_live] = found
    return stars


def _judged(name: str, stream: Stream, slates: Int64s, stars: Float32s | None, live: Interactions) -> Evaluation:
    ratings, at, k = stream.ratings, stream.slate_at, slates.shape[1]
    users, moments = ratings.user_id[at], ratings.timestamp[at]
    user_ids = np.unique(live.user_id)
    owner = np.searchsorted(user_ids, users)
    liked = stream.timeline.liked_within(users, moments, moments + OUTCOME_S, LIKED_STARS)
    sums: UserSums = {"ctr": _clicks(stream, slates, owner, len(user_ids))}
    sums |= sums_of_lists(slates, owner, len(user_ids), np.stack(liked), stream.features)
    if stars is not None:
        sums |= sums_of_stars(stars, live.rating, np.searchsorted(user_ids, live.user_id), len(user_ids))
    n_movies = len(np.union1d(ratings.movie_id, stream.features.movie_id))
    measures = measured(sums, slates, owner, n_movies)
    settings = {"refit_days": stream.refit_days, "cutoff": stream.cutoff, "refits": len(stream.refits()), "k": k}
    return Evaluation(name, "prequential", measures, user_ids, sums, len(slates), settings)


def _clicks(stream: Stream, slates: Int64s, owner: Int64s, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and movies shown of each user."""
    session = stream.sessions.session
    clicked = clicked_slates(session, stream.ratings.movie_id, session[stream.slate_at], stream.slate_at, slates)
    clicks = np.bincount(owner[clicked[clicked >= 0]], minlength=n_users).astype(np.float64)
    return clicks, np.bincount(owner, (slates != NO_MOVIE).sum(axis=1), minlength=n_users)


def _batches(stream: Stream, positions: Int64s) -> Iterator[Int64s]:
    """``positions`` in parts whose histories fit into memory."""
    if not len(positions):
        return
    sizes = stream.timeline.count_before(stream.ratings.user_id[positions], stream.ratings.timestamp[positions])
    part = np.cumsum(sizes) // _RATINGS_AT_ONCE
    yield from np.split(positions, np.flatnonzero(np.diff(part)) + 1)

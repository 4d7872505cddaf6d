"""Why a movie is listed: how much its score falls when one rating, or one of the movie's features, is taken away.

That is what "because you rated X" says here, by definition and for every model: a leave-one-out difference, not a
weight that only some models have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.interactions import Float32s, Histories
from models.recommender import Recommender
from models.side_features import SideFeatures
from streams.records import Int64s

__all__ = ["Reasons", "explain"]

_CELLS_AT_ONCE = 6 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Reasons:
    """Of one movie. rated: int64 (l,), the history; changes: float32 (l,), the score less the one without that rating;
    NaN where the model would know nothing of the user without it. features: names of the movie's genres, and its year;
    feature_changes: float32, likewise for each; none for a model that does not know features.
    """

    movie_id: int
    score: float
    rated: Int64s
    changes: Float32s
    features: tuple[str, ...]
    feature_changes: Float32s

    def strongest(self, n: int) -> list[tuple[int, float]]:
        """The ratings that raise the score most, with by how much; one that lowers it is none."""
        order = np.argsort(-np.nan_to_num(self.changes, nan=np.inf), kind="stable")[:n]
        return [(int(self.rated[i]), float(self.changes[i])) for i in order if not self.changes[i] <= 0]


def explain(
    model: Recommender, history: Histories, movie_ids: Int64s, features: SideFeatures | None = None
) -> list[Reasons]:
    """The reasons for each of ``movie_ids``, which the model must rank; history: of one user.

    All histories with one rating less are scored as one batch. features: of the movies. Raises ModelError for a movie
    that the model does not rank, ValueError for histories of more than one user.
    """
    if len(history) != 1:
        raise ValueError(f"history: expected one user's, found {len(history)}")
    wanted = np.asarray(movie_ids, np.int64)
    scores = model.score_of(history, wanted)[0]
    changes = scores - _scores_without_each(model, history, wanted)
    rated_one_by_one = Histories(
        np.arange(len(history.movie_id) + 1), history.movie_id, history.rating, history.timestamp
    )
    known = np.flatnonzero(model.knows(rated_one_by_one))
    if len(known) == 1:
        changes[known] = np.nan
    reasons = []
    for i, movie_id in enumerate(wanted.tolist()):
        names, of_features = _feature_changes(model, history, movie_id, features)
        reasons.append(Reasons(movie_id, float(scores[i]), history.movie_id, changes[:, i], names, of_features))
    return reasons


def _scores_without_each(model: Recommender, history: Histories, movie_ids: Int64s) -> Float32s:
    """(l, len(movie_ids)): row i without rating i."""
    length = len(history.movie_id)
    found = np.empty((length, len(movie_ids)), np.float32)
    at_once = max(1, _CELLS_AT_ONCE // max(1, length, len(model.movie_ids)))
    for first in range(0, length, at_once):
        left_out = np.arange(first, min(first + at_once, length))
        kept = np.arange(length) + (np.arange(length) >= left_out[:, None])  # row i skips left_out[i]
        at = kept[:, :-1].ravel()
        start = np.arange(len(left_out) + 1) * (length - 1)
        some = Histories(start, history.movie_id[at], history.rating[at], history.timestamp[at])
        found[left_out] = model.score_of(some, movie_ids)
    return found


def _feature_changes(
    model: Recommender, history: Histories, movie_id: int, features: SideFeatures | None
) -> tuple[tuple[str, ...], Float32s]:
    """What the score falls by without each genre, and without the year.

    A movie's vectors are its own part plus a projection of its features, so the difference is that between two new
    movies, one with all the features and one without this one: the model is asked about these.
    """
    none = np.zeros(0, np.float32)
    if features is None or not model.knows_features or not model.knows(history).all():
        return (), none
    own = features.with_genres(model.genre_names).of_movies(np.array([movie_id]))
    genres = np.flatnonzero(own.genres[0])
    names = tuple(own.genre_names[g] for g in genres) + (("year",) if own.year[0] else ())
    if not names:
        return (), none
    variants = np.repeat(own.genres, len(names) + 1, axis=0)
    variants[1 + np.arange(len(genres)), genres] = 0.0
    years = np.repeat(own.year, len(names) + 1)
    if own.year[0]:
        years[-1] = 0
    ids = np.arange(len(names) + 1)
    scores = model.score_by_features(history, SideFeatures(ids, variants, years, own.genre_names))[0]
    return names, scores[0] - scores[1:]

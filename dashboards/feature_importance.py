"""What a model lives on: how much worse it ranks when one of its inputs is shuffled.

Permutation importance, Breiman, "Random Forests", 2001, 10; Fisher, Rudin and Dominici, JMLR 2019: an input is shuffled
between rows and the fall of a measure is its importance. Here the measure is NDCG@10 of the movies that a user rated in
the version's validation window, listed from what they had rated before it. The served version has learnt from that
window too, so its NDCG is too good; what is told is the fall.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.features import History
from models.bootstrap import Interval, paired_difference
from models.interactions import Float32s, Histories
from models.metrics import Floats, hits_of, ndcg
from models.recommender import Recommender
from models.side_features import SideFeatures
from streams.records import Int64s

__all__ = ["Importance", "Window", "importances", "window_of"]

_K = 10
_REPEATS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What users had rated before the window, one history each, and what they rated in it: row and movie (m,)."""

    before: Histories
    row: Int64s
    movie_id: Int64s

    def __len__(self) -> int:
        return len(self.before)


def window_of(histories: Sequence[History], start: int, end: int) -> Window:
    """The users who had rated before ``start`` and rated from then until ``end``."""
    before: list[tuple[Int64s, Floats, Int64s]] = []
    rows: list[Int64s] = []
    movies: list[Int64s] = []
    for history in histories:
        first, last = np.searchsorted(history.timestamp, [start, end])
        if 0 < first < last:
            rows.append(np.full(last - first, len(before)))
            movies.append(history.movie_id[first:last])
            before.append((history.movie_id[:first], history.rating[:first], history.timestamp[:first]))
    none = [np.zeros(0, np.int64)]
    return Window(Histories.of(before), np.concatenate(rows or none), np.concatenate(movies or none))


@dataclass(frozen=True, slots=True)
class Importance:
    """Of one input: how far NDCG@10 falls when it is shuffled, with the 95 % interval over users."""

    name: str
    fall: Interval


def importances(
    model: Recommender, window: Window, features: SideFeatures, *, seed: int = 0
) -> tuple[float, list[Importance]]:
    """NDCG@10 with nothing shuffled, and each input's importance, the largest first.

    Inputs: which movies a user rated (shuffled between users), the stars, the order; of a model that knows features the
    genres and years of the movies that are listed. Each is shuffled three times and the mean taken.
    """
    random = np.random.default_rng(seed)
    histories = window.before
    whole = _ndcg(model.score(histories), model, window)
    inputs: dict[str, Callable[[], Float32s]] = {
        "movies rated": lambda: model.score(_other_movies(histories, random)),
        "stars given": lambda: model.score(_other_stars(histories, random)),
        "order of ratings": lambda: model.score(_other_order(histories, random)),
    }
    if model.knows_features and len(model.genre_names):
        own = _by_features(model, histories, features.with_genres(model.genre_names).of_movies(model.movie_ids))
        scores = model.score(histories)
        for name, shuffled in (("genres listed", "genres"), ("years listed", "year")):
            inputs[name] = lambda shuffled=shuffled: (  # type: ignore[misc]
                scores - own + _by_features(model, histories, _shuffled(model, features, shuffled, random))
            )
    found = []
    ones = np.ones(len(window))
    for name, scored in inputs.items():
        without = np.mean([_ndcg(scored(), model, window) for _ in range(_REPEATS)], axis=0)
        found.append(Importance(name, paired_difference((whole, ones), (without, ones), seed=seed)))
    return float(whole.mean()), sorted(found, key=lambda one: -one.fall.value)


def _ndcg(scores: Float32s, model: Recommender, window: Window) -> Floats:
    """Of each user; movies rated before are not listed."""
    scores = scores.copy()
    column = np.searchsorted(model.movie_ids, window.before.movie_id)
    column[column == len(model.movie_ids)] = 0
    known = model.movie_ids[column] == window.before.movie_id
    scores[window.before.row[known], column[known]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
    hits = hits_of(model.movie_ids[best], window.row, window.movie_id)
    return ndcg(hits, np.bincount(window.row, minlength=len(window)))


def _other_movies(histories: Histories, random: np.random.Generator) -> Histories:
    """Everybody has somebody else's movies, and keeps the number of their ratings as far as these go."""
    return histories.take(random.permutation(len(histories)))


def _other_stars(histories: Histories, random: np.random.Generator) -> Histories:
    return Histories(histories.start, histories.movie_id, random.permutation(histories.rating), histories.timestamp)


def _other_order(histories: Histories, random: np.random.Generator) -> Histories:
    """Each user's movies with their stars in another order, at the same times."""
    order = np.lexsort((random.random(len(histories.movie_id)), histories.row))
    return Histories(histories.start, histories.movie_id[order], histories.rating[order], histories.timestamp)


def _by_features(model: Recommender, histories: Histories, features: SideFeatures) -> Float32s:
    """Scores of new movies with these features, one for each movie of the model: what its features alone are worth."""
    ids = int(model.movie_ids[-1]) + 1 + np.arange(len(features.movie_id))
    wider = model.with_movies(SideFeatures(ids, features.genres, features.year, features.genre_names))
    scores: Float32s = wider.score(histories)[:, np.searchsorted(wider.movie_ids, ids)]
    return scores


def _shuffled(model: Recommender, features: SideFeatures, what: str, random: np.random.Generator) -> SideFeatures:
    own = features.with_genres(model.genre_names).of_movies(model.movie_ids)
    order = random.permutation(len(own.movie_id))
    genres = own.genres[order] if what == "genres" else own.genres
    year = own.year[order] if what == "year" else own.year
    return SideFeatures(own.movie_id, genres, year, own.genre_names)

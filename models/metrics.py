"""Measures of ranked lists and of predicted stars, as pure functions over arrays.

Each gives a value per list (n,), so that means, intervals and paired differences are taken over users by whoever asks
(:mod:`models.bootstrap`). Relevance is binary. Definitions as in Manning, Raghavan and Schütze, "Introduction to
Information Retrieval", chapter 8, cut at k; what differs between libraries is said where it is defined.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.interactions import Bools, Float32s
from models.ranking import NO_MOVIE
from streams.records import Int64s

__all__ = [
    "Floats",
    "average_precision",
    "catalogue_coverage",
    "hit_rate",
    "hits_of",
    "intra_list_diversity",
    "ndcg",
    "precision",
    "recall",
    "reciprocal_rank",
]

Floats = npt.NDArray[np.float64]


def hits_of(ranked: Int64s, relevant_row: Int64s, relevant_movie: Int64s) -> Bools:
    """Where a list shows a movie that is relevant to its user: bool (n, k).

    ranked: movie ids (n, k), ``NO_MOVIE`` where none is. relevant_row, relevant_movie: (r,), list and movie of each
    relevant pair, distinct, in any order.

    >>> hits_of(np.array([[7, 8], [8, -1]]), np.array([0, 1]), np.array([8, 7])).tolist()
    [[False, True], [False, False]]
    """
    width = max(int(ranked.max(initial=0)), int(relevant_movie.max(initial=0))) + 1
    shown = np.arange(len(ranked))[:, None] * width + ranked
    found: Bools = np.isin(shown, relevant_row * width + relevant_movie) & (ranked != NO_MOVIE)
    return found


def precision(hits: Bools) -> Floats:
    """Hits among the k places, those left empty included."""
    found: Floats = hits.sum(axis=1) / max(1, hits.shape[1])
    return found


def recall(hits: Bools, n_relevant: Int64s) -> Floats:
    """Hits among all that is relevant, however much more than k that is; NaN where nothing is."""
    return _ratio(hits.sum(axis=1), n_relevant)


def hit_rate(hits: Bools) -> Floats:
    """1 where the list has a hit."""
    return np.asarray(hits.any(axis=1), np.float64)


def reciprocal_rank(hits: Bools) -> Floats:
    """1 over the rank of the first hit, 0 without one."""
    if not hits.shape[1]:
        return np.zeros(len(hits))
    return np.where(hits.any(axis=1), 1.0 / (1.0 + hits.argmax(axis=1)), 0.0)


def average_precision(hits: Bools, n_relevant: Int64s) -> Floats:
    """Precision at each hit, summed, over the hits that a perfect list would have: min(k, relevant); NaN where none."""
    rank = np.arange(1, hits.shape[1] + 1)
    at_hits = np.where(hits, np.cumsum(hits, axis=1) / rank, 0.0).sum(axis=1)
    return _ratio(at_hits, np.minimum(n_relevant, hits.shape[1]))


def ndcg(hits: Bools, n_relevant: Int64s) -> Floats:
    """Discounted cumulative gain, 1 / log2(rank + 1) for each hit, over that of a perfect list; NaN where nothing is.

    Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", TOIS 2002, of gain 0 or 1.

    >>> ndcg(np.array([[True, False, True]]), np.array([2])).round(4).tolist()
    [0.9197]
    """
    discount = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discount)))
    return _ratio((hits * discount).sum(axis=1), ideal[np.minimum(n_relevant, hits.shape[1])])


def intra_list_diversity(ranked: Int64s, movie_ids: Int64s, genres: Float32s) -> Floats:
    """Mean of 1 - cosine of two movies' genres over all pairs of a list; NaN for lists of fewer than two movies.

    ranked: (n, k). movie_ids: (m,), rising; genres: (m, g), a row each. A movie without genres has none in common with
    any. Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005.
    """
    length = np.sqrt((genres**2).sum(axis=1, keepdims=True))
    unit = np.divide(genres, length, out=np.zeros_like(genres), where=length > 0)
    unit = np.concatenate([unit, np.zeros((1, genres.shape[1]), unit.dtype)])  # the last one: of no known genre
    at = np.searchsorted(movie_ids, ranked)
    known = np.append(movie_ids, NO_MOVIE)[at] == ranked
    vectors = unit[np.where(known & (ranked != NO_MOVIE), at, len(movie_ids))].astype(np.float64)
    n = (ranked != NO_MOVIE).sum(axis=1)
    similar = ((vectors.sum(axis=1) ** 2).sum(axis=1) - (vectors**2).sum(axis=(1, 2))) / 2
    pairs = n * (n - 1) / 2
    return _ratio(pairs - similar, pairs)


def catalogue_coverage(ranked: Int64s, n_movies: int) -> float:
    """The share of ``n_movies`` that at least one list shows."""
    return len(np.setdiff1d(ranked, [NO_MOVIE])) / n_movies


def _ratio(numerator: npt.NDArray[np.number], denominator: npt.NDArray[np.number]) -> Floats:
    """NaN where the denominator is 0."""
    out = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out

"""From scores to ranked lists: the top k, ties by rising movie id, so that equal scores give equal lists everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.interactions import Bools, Float32s
from streams.records import Int64s

__all__ = ["NO_MOVIE", "Recommendations", "top_k"]

NO_MOVIE = -1
"""Stands where fewer than k movies are left."""


@dataclass(frozen=True, slots=True, eq=False)
class Recommendations:
    """A ranked list per user. movie_ids: int64 (n, k), best first, ``NO_MOVIE`` where none is left; scores: float32
    (n, k), minus infinity there; cold: bool (n,), users without a history the model knows, who get what is popular.
    """

    movie_ids: Int64s
    scores: Float32s
    cold: Bools

    def __len__(self) -> int:
        return len(self.movie_ids)


def top_k(scores: Float32s, k: int) -> tuple[Int64s, Float32s]:
    """Columns and scores of each row's ``k`` highest, best first, ties by rising column: two arrays (n, k).

    scores: (n, m); minus infinity where a column is not to be listed: it comes as column -1. Raises ValueError for NaN.

    >>> columns, values = top_k(np.array([[1.0, 3.0, 3.0, -np.inf]], np.float32), 4)
    >>> columns.tolist(), values.tolist()
    ([[1, 2, 0, -1]], [[3.0, 3.0, 1.0, -inf]])
    """
    n, m = scores.shape
    columns = np.full((n, k), NO_MOVIE, np.int64)
    values = np.full((n, k), -np.inf, np.float32)
    kept = min(k, m)
    if kept == 0:
        return columns, values
    least = np.partition(scores, m - kept, axis=1)[:, m - kept]  # NaN sorts last: it would be there
    for row in range(n):
        line = scores[row]
        at_least = np.flatnonzero(line >= least[row])
        order = at_least[np.argsort(-line[at_least], kind="stable")[:kept]]
        columns[row, : len(order)], values[row, : len(order)] = order, line[order]
    if np.isnan(scores).any():
        raise ValueError("ranking: expected finite scores, found NaN; did training diverge?")
    columns[np.isneginf(values)] = NO_MOVIE
    return columns, values

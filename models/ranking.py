"""From scores to ranked lists: the top k, ties by rising movie id, so that equal scores give equal lists everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.interactions import Bools, Float32s
from streams.records import Int64s

__all__ = ["NO_MOVIE", "UNRATED", "Recommendations", "top_k"]

NO_MOVIE = -1
"""Stands where fewer than k movies are left."""
UNRATED = -1e6
"""The score of a movie that nobody rated, from a model that knows movies by ratings only: below those of all others,
above nothing at all."""

_LEAST_BLOCK, _MOST_BLOCK = 8, 64
"""Scores per block of which only the highest is looked at first; for less than the least, a partition is faster."""


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
    if kept == 0 or n == 0:
        return columns, values
    row, column = _candidates(scores, kept)
    value = scores[row, column]
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(n))[row]
    listed = (place < kept) & ~np.isneginf(value)
    columns[row[listed], place[listed]] = column[listed]
    values[row[listed], place[listed]] = value[listed]
    return columns, values


def _candidates(scores: Float32s, kept: int) -> tuple[Int64s, Int64s]:
    """Row and column of all that may be among the ``kept`` best of their row.

    Columns c, c + blocks, c + 2 blocks, ... form a block. The ``kept`` best blocks by their maxima hold at least as
    many scores that are not below the least of these maxima, so whatever is below it is not among the best: one pass
    for the maxima, which runs at the speed of memory, stands for a partition of every row.
    """
    n, m = scores.shape
    size = _block_size(m)
    blocks = m // size
    if size < _LEAST_BLOCK or blocks < 2 * kept:
        least = np.partition(scores, m - kept, axis=1)[:, m - kept]
        _refuse_nan(scores.max(axis=1))  # a maximum with NaN is NaN
        found = np.nonzero(scores >= least[:, None])
        return found[0], found[1]
    whole = blocks * size
    maxima = scores[:, :whole].reshape(n, size, blocks).max(axis=1)
    rest = slice(0, m - whole)
    np.maximum(maxima[:, rest], scores[:, whole:], out=maxima[:, rest])
    _refuse_nan(maxima)
    least = np.partition(maxima, blocks - kept, axis=1)[:, blocks - kept]
    row, block = np.nonzero((maxima >= least[:, None]) & (maxima > -np.inf))
    column = block[:, None] + blocks * np.arange(size + 1)
    inside = np.minimum(column, m - 1)
    candidate = (scores[row[:, None], inside] >= least[row][:, None]) & (column < m)
    return np.repeat(row, candidate.sum(axis=1)), column[candidate]


def _block_size(m: int) -> int:
    """Half the root of ``m``, as a power of two: measured, fastest from 500 columns to 60,000."""
    return min(_MOST_BLOCK, 1 << max(0, (m.bit_length() - 1) // 2 - 1))


def _refuse_nan(values: Float32s) -> None:
    if np.isnan(values).any():
        raise ValueError("ranking: expected finite scores, found NaN; did training diverge?")

"""How often each id occurs, counted portion by portion."""

from __future__ import annotations

import numpy as np

from streams.records import Int64s

__all__ = ["Tally", "mapped"]


class Tally:
    """Distinct ids, rising, and how often each occurred: int64 (k,) both. Memory follows the ids, not the rows.

    >>> tally = Tally()
    >>> tally.add(np.array([7, 3, 7])); tally.add(np.array([3, 9]))
    >>> tally.ids, tally.counts
    (array([3, 7, 9]), array([2, 2, 1]))
    """

    def __init__(self) -> None:
        self.ids: Int64s = np.empty(0, np.int64)
        self.counts: Int64s = np.empty(0, np.int64)

    def add(self, ids: Int64s) -> None:
        """Count a portion of ids, int64 (n,)."""
        portion, counts = np.unique(ids, return_counts=True)
        self.ids, group = np.unique(np.concatenate([self.ids, portion]), return_inverse=True)
        self.counts = np.bincount(group, np.concatenate([self.counts, counts]), len(self.ids)).astype(np.int64)

    @property
    def by_popularity(self) -> Int64s:
        """Positions of the ids, the most frequent first, equally frequent ones by id."""
        return np.argsort(-self.counts, kind="stable")


def mapped(ids: Int64s, sources: Int64s, targets: Int64s) -> Int64s:
    """``ids`` with each of ``sources`` (rising) replaced by the target at its position; others stay.

    >>> mapped(np.array([1, 5, 2]), np.array([2, 5]), np.array([20, 50]))
    array([ 1, 50, 20])
    """
    if len(sources) == 0:
        return ids
    at = np.minimum(np.searchsorted(sources, ids), len(sources) - 1)
    return np.where(sources[at] == ids, targets[at], ids)

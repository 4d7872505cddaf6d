"""Ratings by user and time: what each of many users had rated before a moment, and what within a span after it."""

from __future__ import annotations

import numpy as np

from models.interactions import Bools, Histories, Interactions
from streams.records import Int64s

__all__ = ["Timeline"]


class Timeline:
    """Ratings indexed by (user, time). Every look-up is of a batch of (user, moment) and takes O(log n) for each.

    >>> line = Timeline(Interactions([1, 1, 1], [10, 20, 30], [4.0, 3.0, 5.0], [100, 200, 300]))
    >>> line.before(np.array([1, 1, 9]), np.array([200, 301, 301])).lengths.tolist()
    [1, 3, 0]
    """

    def __init__(self, interactions: Interactions) -> None:
        order = np.lexsort((interactions.movie_id, interactions.timestamp, interactions.user_id))
        self._ratings = interactions.take(order)
        self._users, owner = np.unique(self._ratings.user_id, return_inverse=True)
        self._first = int(interactions.timestamp.min()) if len(interactions) else 0
        self._span = int(interactions.timestamp.max(initial=0)) - self._first + 2
        self._key = owner * self._span + self._ratings.timestamp - self._first
        self._repeats = len(interactions.latest()) < len(interactions)

    def before(self, user_ids: Int64s, timestamps: Int64s) -> Histories:
        """Each user's latest rating of each movie among those earlier than the timestamp beside it, in event time."""
        row, at = self._between(user_ids, np.full(len(timestamps), self._first), timestamps)
        movie = self._ratings.movie_id[at]
        if self._repeats:
            kept = _last_of_each(row, movie)
            row, at, movie = row[kept], at[kept], movie[kept]
        start = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=len(user_ids)), dtype=np.int64)))
        return Histories(start, movie, self._ratings.rating[at], self._ratings.timestamp[at])

    def liked_within(self, user_ids: Int64s, since: Int64s, until: Int64s, least_stars: float) -> tuple[Int64s, Int64s]:
        """The distinct (row, movie id) that each user rates ``least_stars`` or more from ``since`` to before ``until``.

        user_ids, since, until: (n,); row: the index into these.
        """
        row, at = self._between(user_ids, since, until)
        kept = self._ratings.rating[at] >= least_stars
        row, movie = row[kept], self._ratings.movie_id[at[kept]]
        if self._repeats:
            row, movie = np.unique(np.stack([row, movie]), axis=1)
        return row, movie

    def count_before(self, user_ids: Int64s, timestamps: Int64s) -> Int64s:
        """How many ratings :meth:`before` would look at, for those who batch by size: int64 (n,)."""
        low = self._position(user_ids, np.full(len(timestamps), self._first))
        return self._position(user_ids, timestamps) - low

    def _between(self, user_ids: Int64s, since: Int64s, until: Int64s) -> tuple[Int64s, Int64s]:
        low = self._position(user_ids, since)
        lengths = np.maximum(self._position(user_ids, until) - low, 0)
        row = np.repeat(np.arange(len(user_ids)), lengths)
        at = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(low, lengths)
        return row, at

    def _position(self, user_ids: Int64s, timestamps: Int64s) -> Int64s:
        """Of each user's first rating at or after the timestamp; the same for both ends of one without ratings."""
        owner = np.searchsorted(self._users, user_ids)
        known = np.append(self._users, -1)[owner] == user_ids
        since = np.clip(timestamps - self._first, 0, self._span - 1)
        return np.searchsorted(self._key, np.where(known, owner * self._span + since, 0))


def _last_of_each(row: Int64s, movie: Int64s) -> Bools:
    """The last of each (row, movie)."""
    order = np.lexsort((np.arange(len(row)), movie, row))
    last = np.ones(len(row), bool)
    last[:-1] = (np.diff(row[order]) != 0) | (np.diff(movie[order]) != 0)
    kept = np.zeros(len(row), bool)
    kept[order[last]] = True
    return kept

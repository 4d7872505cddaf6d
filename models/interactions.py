"""Ratings as models see them: columns over (user, movie, stars, time), checked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.features import History
from streams.dataset import Ratings
from streams.records import Int64s

__all__ = ["Bools", "Float32s", "Histories", "Interactions"]

Bools = npt.NDArray[np.bool_]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Ratings as columns of shape (n,): int64 ids, float32 stars, int64 seconds since the epoch, in any order.

    Raises ValueError for columns of other shapes, NaN or infinite stars, and negative ids.

    >>> ratings = Interactions([1, 1, 2], [10, 20, 10], [4.0, 3.5, 5.0], [100, 200, 300])
    >>> len(ratings.before(200))
    1
    """

    user_id: Int64s
    movie_id: Int64s
    rating: Float32s
    timestamp: Int64s

    def __init__(
        self,
        user_id: npt.ArrayLike,
        movie_id: npt.ArrayLike,
        rating: npt.ArrayLike,
        timestamp: npt.ArrayLike | None = None,
    ) -> None:
        """timestamp: all 0 unless given, for data without times."""
        stars = np.asarray(rating, np.float32)
        times = np.zeros(len(stars), np.int64) if timestamp is None else timestamp
        for name, column in (("user_id", user_id), ("movie_id", movie_id), ("timestamp", times)):
            object.__setattr__(self, name, _integers(name, column))
        object.__setattr__(self, "rating", stars)
        shapes = {name: getattr(self, name).shape for name in ("user_id", "movie_id", "rating", "timestamp")}
        if len(set(shapes.values())) != 1 or stars.ndim != 1:
            raise ValueError(f"interactions: expected four columns of one length, found {shapes}")
        if not np.isfinite(stars).all():
            raise ValueError("interactions: expected finite ratings, found NaN or infinity")
        if len(stars) and min(self.user_id.min(), self.movie_id.min()) < 0:
            raise ValueError("interactions: expected ids of 0 and above, found a negative one")

    def __len__(self) -> int:
        return len(self.rating)

    @classmethod
    def of_table(cls, table: pa.Table) -> Interactions:
        """Of the ``interactions`` of a :class:`featurestore.snapshot_reader.Snapshot`."""
        return cls(*(table[name].to_numpy() for name in ("user_id", "movie_id", "rating", "timestamp")))

    @classmethod
    def of_ratings(cls, ratings: Ratings) -> Interactions:
        """Of a chunk of a :class:`streams.dataset.Dataset`."""
        return cls(ratings.user_id, ratings.movie_id, ratings.rating, ratings.timestamp)

    @classmethod
    def concat(cls, parts: Iterable[Interactions]) -> Interactions:
        """All of them, one after the other."""
        columns = zip(*((p.user_id, p.movie_id, p.rating, p.timestamp) for p in parts), strict=True)
        joined = [np.concatenate(column) for column in columns]
        return cls(*joined) if joined else cls([], [], [])

    def take(self, index: npt.NDArray[np.integer] | Bools) -> Interactions:
        """Those at ``index``, or where a mask is true."""
        return Interactions(self.user_id[index], self.movie_id[index], self.rating[index], self.timestamp[index])

    def before(self, timestamp: int) -> Interactions:
        """Those earlier than ``timestamp``."""
        return self.take(self.timestamp < timestamp)

    def latest(self) -> Interactions:
        """The last rating of each (user, movie), by user and of one user in event time; of equal times the last given.

        >>> Interactions([1, 1], [7, 7], [2.0, 5.0], [100, 200]).latest().rating.tolist()
        [5.0]
        """
        order = np.lexsort((self.timestamp, self.movie_id, self.user_id))
        user, movie = self.user_id[order], self.movie_id[order]
        last = np.ones(len(order), bool)
        last[:-1] = (np.diff(user) != 0) | (np.diff(movie) != 0)
        kept = order[last]
        return self.take(kept[np.lexsort((self.movie_id[kept], self.timestamp[kept], self.user_id[kept]))])


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """What n users rated before: the ratings of user ``i`` are ``start[i]`` to ``start[i + 1]`` of the columns.

    start: int64 (n + 1,). movie_id, rating, timestamp as in :class:`Interactions`, of one user in event time.

    >>> two = Histories.of([([10, 20], [4.0, 5.0], [100, 200]), ([], [], [])])
    >>> len(two), two.lengths.tolist()
    (2, [2, 0])
    """

    start: Int64s
    movie_id: Int64s
    rating: Float32s
    timestamp: Int64s

    def __len__(self) -> int:
        return len(self.start) - 1

    @classmethod
    def of(cls, users: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]]) -> Histories:
        """Of (movie ids, stars, timestamps) for each user, in event time."""
        rows = [Interactions(np.zeros(len(np.asarray(m)), np.int64), m, r, t) for m, r, t in users]
        start = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))
        joined = Interactions.concat(rows) if rows else Interactions([], [], [])
        return cls(start, joined.movie_id, joined.rating, joined.timestamp)

    @classmethod
    def of_users(cls, interactions: Interactions, user_ids: Int64s) -> Histories:
        """The latest rating of each movie by each of ``user_ids``, in event time; empty for a user without any."""
        latest = interactions.latest()
        first, last = (np.searchsorted(latest.user_id, user_ids, side) for side in ("left", "right"))
        lengths = last - first
        start = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        at = np.arange(start[-1]) - np.repeat(start[:-1], lengths) + np.repeat(first, lengths)
        return cls(start, latest.movie_id[at], latest.rating[at], latest.timestamp[at])

    @classmethod
    def of_stored(cls, history: History) -> Histories:
        """Of one user, as :meth:`featurestore.reader.FeatureReader.history` gives it; of each movie the last rating."""
        rated = Interactions(np.zeros(len(history), np.int64), history.movie_id, history.rating, history.timestamp)
        order = np.lexsort((rated.movie_id, rated.timestamp))
        _, from_end = np.unique(rated.movie_id[order[::-1]], return_index=True)
        last = order[np.sort(len(order) - 1 - from_end)]
        return cls(np.array([0, len(last)]), rated.movie_id[last], rated.rating[last], rated.timestamp[last])

    @property
    def lengths(self) -> Int64s:
        """How many ratings each user has: int64 (n,)."""
        return np.diff(self.start)

    @property
    def row(self) -> Int64s:
        """The user each rating belongs to, from 0: int64, one per rating."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def kept(self, kept: Bools, movie_id: Int64s) -> Histories:
        """The ratings where ``kept`` is true, of the movies ``movie_id``, given for every rating."""
        if kept.all():
            return Histories(self.start, movie_id, self.rating, self.timestamp)
        lengths = np.bincount(self.row[kept], minlength=len(self))
        start = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        return Histories(start, movie_id[kept], self.rating[kept], self.timestamp[kept])

    def take(self, rows: Int64s) -> Histories:
        """Those of the users ``rows``, in this order; an empty one for -1."""
        lengths = np.where(rows >= 0, self.lengths[rows], 0)
        start = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        at = np.arange(start[-1]) + np.repeat(self.start[rows] - start[:-1], lengths)
        return Histories(start, self.movie_id[at], self.rating[at], self.timestamp[at])

    def slice(self, first: int, last: int) -> Histories:
        """Users ``first`` to ``last``."""
        start = self.start[first : last + 1]
        at = slice(start[0], start[-1]) if len(start) else slice(0, 0)
        return Histories(start - start[:1], self.movie_id[at], self.rating[at], self.timestamp[at])


def _integers(name: str, column: npt.ArrayLike) -> Int64s:
    values = np.asarray(column)
    if values.size and values.dtype.kind not in "iu":
        raise ValueError(f"interactions: expected integers in {name}, found {values.dtype}")
    return values.astype(np.int64, copy=False)

"""Ratings on their way through the drifts of a run, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.dataset import Ratings
from streams.records import Int64s

__all__ = ["Bools", "DriftColumns"]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class DriftColumns:
    """Ratings of shape (n,), with what drifts decide by and what they did.

    user_id, movie_id, rating, timestamp: as :class:`~streams.dataset.Ratings` has them. arrival: int64, event time at
    which the record reaches the log. malformed: uint8, the sort of defect, 0 for none. key: int64, what random
    decisions are drawn by: the position in the data, for a copy a hash of its own. dropped: taken out of the stream,
    kept here to be counted. affected: int64, bit k is set where drift k touched the record.
    """

    user_id: Int64s
    movie_id: Int64s
    rating: npt.NDArray[np.float64]
    timestamp: Int64s
    arrival: Int64s
    malformed: npt.NDArray[np.uint8]
    key: Int64s
    dropped: Bools
    affected: Int64s

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def well_formed(self) -> Bools:
        return np.equal(self.malformed, 0)

    @property
    def faultless(self) -> Bools:
        """Neither malformed nor late: a record gets at most one of the two, so that each is counted once."""
        return self.well_formed & np.equal(self.arrival, self.timestamp)

    @staticmethod
    def of(ratings: Ratings, position: int) -> DriftColumns:
        """Ratings of the data, of which the first stands at ``position``."""
        n = len(ratings)
        return DriftColumns(
            ratings.user_id,
            ratings.movie_id,
            ratings.rating,
            ratings.timestamp,
            arrival=ratings.timestamp,
            malformed=np.zeros(n, np.uint8),
            key=np.arange(position, position + n),
            dropped=np.zeros(n, bool),
            affected=np.zeros(n, np.int64),
        )

    def take(self, index: npt.NDArray[Any]) -> DriftColumns:
        """The rows at ``index`` (positions or a mask)."""
        return DriftColumns(*(getattr(self, column.name)[index] for column in fields(self)))

    @staticmethod
    def concat(parts: Sequence[DriftColumns]) -> DriftColumns:
        if len(parts) == 1:
            return parts[0]
        return DriftColumns(
            *(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(DriftColumns))
        )

    def in_order(self) -> DriftColumns:
        """Sorted as they are published: by (arrival, user, movie), and equal ones by key."""
        n = len(self)
        if n < 2:
            return self
        earlier, later = slice(None, -1), slice(1, None)
        sorted_already = np.ones(n - 1, bool)
        for column in (self.key, self.movie_id, self.user_id, self.arrival):
            sorted_already &= column[earlier] == column[later]
            sorted_already |= column[earlier] < column[later]
        if sorted_already.all():
            return self
        return self.take(np.lexsort((self.key, self.movie_id, self.user_id, self.arrival)))

"""What users without a history get: what is popular lately, within their demographic group where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.interactions import Float32s, Interactions
from streams.events import DAY_S
from streams.records import Int64s

__all__ = ["HALF_LIFE_DAYS", "ColdStart", "decayed_popularity"]

HALF_LIFE_DAYS = 365.0
_LEAST_RATINGS = 1_000
"""A group with fewer says less about its taste than everybody's ratings do."""


def decayed_popularity(
    timestamp: Int64s, column: Int64s, n_columns: int, *, as_of: int, half_life_days: float
) -> Float32s:
    """Ratings per movie, each halved every ``half_life_days`` before ``as_of``: float32 (n_columns,).

    timestamp, column: (n,), event time in seconds, and the movie's column. Raises ValueError for a half-life that is
    not positive.

    >>> decayed_popularity(np.array([0, 86_400]), np.array([1, 1]), 2, as_of=86_400, half_life_days=1.0).tolist()
    [0.0, 1.5]
    """
    if half_life_days <= 0:
        raise ValueError(f"half_life_days: expected more than 0, found {half_life_days}")
    weights = np.exp2((timestamp - as_of) / (half_life_days * DAY_S))
    return np.bincount(column, weights, minlength=n_columns).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ColdStart:
    """Decayed popularity of m movies: scores[0] of all users, scores[1 + i] of those in ``groups[i]``."""

    scores: Float32s
    groups: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, interactions: Interactions, column: Int64s, n_columns: int, user_groups: Mapping[int, str]
    ) -> ColdStart:
        """column: the movie of each interaction. As of the last of them."""
        as_of = int(interactions.timestamp.max(initial=0))

        def scores(at: np.ndarray) -> Float32s:
            return decayed_popularity(
                interactions.timestamp[at], column[at], n_columns, as_of=as_of, half_life_days=HALF_LIFE_DAYS
            )

        owners = np.array([user_groups.get(user, "") for user in interactions.user_id.tolist()] if user_groups else [])
        names, counts = np.unique(owners, return_counts=True)
        groups = tuple(str(name) for name, n in zip(names, counts, strict=True) if name and n >= _LEAST_RATINGS)
        everybody = scores(np.arange(len(interactions)))
        return cls(np.stack([everybody, *(scores(np.flatnonzero(owners == name)) for name in groups)]), groups)

    def of_groups(self, groups: Sequence[str | None]) -> Float32s:
        """The scores for users of these groups; everybody's for None and for a group without enough ratings."""
        row = {name: i + 1 for i, name in enumerate(self.groups)}
        return self.scores[[row.get(name or "", 0) for name in groups]]

    def with_columns(self, at: Int64s, n_columns: int) -> ColdStart:
        """The same for ``n_columns`` movies, of which column i is now column ``at[i]``; nobody has rated the others."""
        scores = np.zeros((len(self.scores), n_columns), np.float32)
        scores[:, at] = self.scores
        return ColdStart(scores, self.groups)

"""When training stops: on the last time slice of each user, which the model under trial does not learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from models.interactions import Float32s, Histories
from models.ranking import NO_MOVIE, top_k
from models.recommender import TrainingData

__all__ = ["LastSlice", "Patience"]

_USERS = 1_000
"""So many say how good a model is, at a small part of what an epoch costs."""
_K = 10


@dataclass(frozen=True, slots=True, eq=False)
class LastSlice:
    """The last ``share`` of each user's ratings, held out, and the ratings before it."""

    before: TrainingData
    held: TrainingData

    @classmethod
    def of(cls, data: TrainingData, share: float = 0.1) -> LastSlice:
        """A user of fewer than ``1 / share`` ratings has none held out."""
        counts = np.bincount(data.row, minlength=data.n_users)
        last = np.cumsum(counts)
        held = np.arange(len(data.row)) >= (last - (counts * share).astype(np.int64))[data.row]
        return cls(_those(data, ~held), _those(data, held))

    def ndcg(self, score: Callable[[Histories], Float32s]) -> float | None:
        """NDCG@10 of what comes next for users, at most 1,000 of them, evenly chosen; None where nothing is held out.

        score: scores (n, n_movies) for histories of columns, as ``Recommender._score`` takes them.
        """
        users = np.unique(self.held.row)
        if not len(users):
            return None
        users = users[np.linspace(0, len(users) - 1, min(_USERS, len(users))).astype(np.int64)]
        seen, coming = _histories(self.before, users), _histories(self.held, users)
        scores = score(seen)
        scores[seen.row, seen.movie_id] = -np.inf
        listed, _ = top_k(scores, _K)
        relevant = np.zeros((len(users), self.held.n_movies + 1), bool)  # NO_MOVIE, -1, is the last column: never
        relevant[coming.row, coming.movie_id] = True
        gain = 1.0 / np.log2(np.arange(2, _K + 2))
        ideal = np.cumsum(gain)[np.minimum(coming.lengths, _K) - 1]
        hits = np.take_along_axis(relevant, np.where(listed == NO_MOVIE, -1, listed), axis=1)
        return float(((hits * gain).sum(axis=1) / ideal).mean())


class Patience:
    """The best epoch so far, and whether ``epochs`` have gone by since without a better one.

    tolerance: a validation so little below the best, as a share of it, is chance: the later epoch counts as better.

    >>> patience = Patience(2)
    >>> for epoch, validation in enumerate([0.1, 0.3, 0.2, 0.2], start=1):
    ...     patience.tell(epoch, validation)
    >>> patience.best_epoch, patience.spent
    (2, True)
    """

    def __init__(self, epochs: int, tolerance: float = 0.0) -> None:
        self._epochs, self._tolerance = epochs, tolerance
        self._best = -np.inf
        self.best_epoch = 0
        self.spent = False

    def tell(self, epoch: int, validation: float | None) -> None:
        """validation: higher is better; None, and every epoch counts as better than the last."""
        if validation is None:
            self.best_epoch = epoch
        elif not self.best_epoch or validation > self._best - self._tolerance * abs(self._best):
            self.best_epoch = epoch
            self._best = max(self._best, validation)
        self.spent = epoch - self.best_epoch >= self._epochs


def _those(data: TrainingData, at: np.ndarray) -> TrainingData:
    return replace(data, row=data.row[at], column=data.column[at], rating=data.rating[at], timestamp=data.timestamp[at])


def _histories(data: TrainingData, users: np.ndarray) -> Histories:
    first, last = np.searchsorted(data.row, users), np.searchsorted(data.row, users, "right")
    at = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    start = np.concatenate(([0], np.cumsum(last - first, dtype=np.int64)))
    return Histories(start, data.column[at], data.rating[at], data.timestamp[at])

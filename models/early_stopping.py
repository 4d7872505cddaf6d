"""When training stops: on the last slice of time before T, from which the model under trial does not learn.

The slice is one for all: the model is judged as it will serve, by what comes after everything that it has learnt, for
users who were there before, from their histories. Where too few of them rate on both sides of the slice's start to
tell one epoch from the next (a few users are mostly noise; MovieLens users often come once), each user's own last
ratings are held out instead: these may lie before what was learnt from others, which is the lesser evil.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from models.interactions import Float32s, Histories
from models.ranking import NO_MOVIE, top_k
from models.recommender import Epoch, OnEpoch, TrainingData
from models.splits import moment_before_last
from streams.errors import ModelError
from streams.records import Int64s

__all__ = ["LastSlice", "Patience", "Trainer", "train_stopping_early"]

_SHARE = 0.1
"""Of the ratings, held out."""
_LEAST_USERS = 100
"""Judged by the slice of time, at least: each has an NDCG between 0 and 1, so the mean of a few is mostly chance."""
_USERS = 1_000
"""So many say how good a model is, at a small part of what an epoch costs."""
_K = 10

Arrays = dict[str, npt.NDArray[Any]]


class Trainer(Protocol):
    """A model in training."""

    def epoch(self) -> float:
        """Learn for one epoch; returns its loss."""
        ...

    @property
    def learnt(self) -> Arrays:
        """What the model is restored from."""
        ...


class _Trained(Protocol):
    name: ClassVar[str]
    epochs: int
    patience: int

    def _restore(self, arrays: Arrays) -> None: ...

    def _score(self, histories: Histories) -> Float32s: ...


def train_stopping_early(
    model: _Trained, data: TrainingData, start: Callable[[TrainingData], Trainer], on_epoch: OnEpoch | None
) -> Arrays:
    """What was learnt of all of ``data``, in as many epochs as were best for its last slice when that was held out.

    That may be none, for the start counts too. Where no user has enough ratings to hold some out, all epochs are used.
    Raises ModelError for a loss that is not finite.
    """
    last, patience = LastSlice.of(data), Patience(model.patience)

    def validation() -> float | None:
        model._restore(trial.learnt)
        return last.ndcg(model._score)

    trial = start(last.before)
    patience.tell(0, validation())
    for number in range(1, model.epochs + 1):
        loss = _learnt_epoch(model.name, trial, number)
        value = validation()
        patience.tell(number, value)
        if on_epoch:
            on_epoch(Epoch(number, loss, value))
        if patience.spent:
            break
    if not len(last.judged):
        return trial.learnt
    trainer = start(data)
    for number in range(1, patience.best_epoch + 1):
        _learnt_epoch(model.name, trainer, number)
    return trainer.learnt


def _learnt_epoch(name: str, trainer: Trainer, number: int) -> float:
    loss = trainer.epoch()
    if not np.isfinite(loss):
        raise ModelError(f"{name}: training diverged (loss {loss} in epoch {number}); lower its learning rate")
    return loss


@dataclass(frozen=True, slots=True, eq=False)
class LastSlice:
    """Ratings held out, and those before them, of the same users and movies; each user has some before."""

    before: TrainingData
    held: TrainingData

    @classmethod
    def of(cls, data: TrainingData) -> LastSlice:
        """The last slice of time, or of each user's ratings where that one has too few users to judge by."""
        last = cls.of_time(data)
        return last if len(last.judged) >= _LEAST_USERS else cls.of_each_user(data)

    @classmethod
    def of_time(cls, data: TrainingData, share: float = _SHARE) -> LastSlice:
        """The ratings from the moment on at which the last ``share`` of all begins; who comes only then is left out."""
        held = data.timestamp >= moment_before_last(data.timestamp, share)
        known, row = np.unique(data.row[~held], return_inverse=True)
        before = replace(_those(data, ~held), user_ids=data.user_ids[known], row=row)
        later = _those(data, held & np.isin(data.row, known))
        return cls(before, replace(later, user_ids=before.user_ids, row=np.searchsorted(known, later.row)))

    @classmethod
    def of_each_user(cls, data: TrainingData, share: float = _SHARE) -> LastSlice:
        """The last ``share`` of each user's ratings. A user of fewer than ``1 / share`` ratings has none held out."""
        counts = np.bincount(data.row, minlength=data.n_users)
        last = np.cumsum(counts)
        held = np.arange(len(data.row)) >= (last - (counts * share).astype(np.int64))[data.row]
        return cls(_those(data, ~held), _those(data, held))

    @property
    def judged(self) -> Int64s:
        """Users with a history and something that comes after it, rising."""
        return np.intersect1d(self.before.row, self.held.row)

    def ndcg(self, score: Callable[[Histories], Float32s]) -> float | None:
        """NDCG@10 of what comes next for users, at most 1,000 of them, evenly chosen; None where nothing is held out.

        score: scores (n, n_movies) for histories of columns, as ``Recommender._score`` takes them.
        """
        users = self.judged
        if not len(users):
            return None
        users = users[np.linspace(0, len(users) - 1, min(_USERS, len(users))).astype(np.int64)]
        seen, coming = self.before.histories.take(users), self.held.histories.take(users)
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

    >>> patience = Patience(2)
    >>> for epoch, validation in enumerate([0.1, 0.3, 0.2, 0.2], start=1):
    ...     patience.tell(epoch, validation)
    >>> patience.best_epoch, patience.spent
    (2, True)
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._best: float | None = None
        self.best_epoch = 0
        self.spent = False

    def tell(self, epoch: int, validation: float | None) -> None:
        """validation: higher is better; None, and every epoch counts as better than the last."""
        if validation is None or self._best is None or validation > self._best:
            self.best_epoch, self._best = epoch, validation
        self.spent = epoch - self.best_epoch >= self._epochs


def _those(data: TrainingData, at: np.ndarray) -> TrainingData:
    return replace(data, row=data.row[at], column=data.column[at], rating=data.rating[at], timestamp=data.timestamp[at])

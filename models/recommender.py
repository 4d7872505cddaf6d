"""The contract of every model: fit, recommend to users seen in training and to anybody with a history, save, load.

A model scores movies for histories, as arrays; this class does the rest, the same for all: which movies and users there
are, what users have seen, cold starts, ranking, files. Training may use torch; scoring is numpy, so that serving
needs no torch.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from models.cold_start import ColdStart
from models.interactions import Bools, Float32s, Histories, Interactions
from models.model_files import StoredModel, read_model, write_model
from models.ranking import NO_MOVIE, Recommendations, top_k
from models.side_features import SideFeatures
from streams.errors import ModelError
from streams.records import Int64s

__all__ = ["Epoch", "OnEpoch", "RatingPredictor", "Recommender", "TrainingData", "Vectors"]

_SCORES_AT_ONCE = 6 << 20
"""Scores held together: 24 MiB of float32, which mostly fit into the processor's cache, and for which malloc takes the
same memory again; more than 32 MiB it would map, and have the kernel clear, each time."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass of training, numbered from 1. validation: of the last time slice, higher is better; None if none is."""

    number: int
    loss: float
    validation: float | None


OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a model learns from: the latest rating of each (user, movie), by user, of one user in event time.

    user_ids, movie_ids: int64, rising; what rows and columns stand for. row, column: int64 (n,), indices into these.
    rating: float32 (n,), stars. timestamp: int64 (n,). features: of ``movie_ids``, a row each.
    """

    user_ids: Int64s
    movie_ids: Int64s
    row: Int64s
    column: Int64s
    rating: Float32s
    timestamp: Int64s
    features: SideFeatures

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_movies(self) -> int:
        return len(self.movie_ids)

    @property
    def histories(self) -> Histories:
        """All of it, a history of columns per row."""
        start = np.searchsorted(self.row, np.arange(self.n_users + 1))
        return Histories(start, self.column, self.rating, self.timestamp)


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Users and movies whose products ``users @ movies.T`` are a model's scores.

    user_ids: int64 (n,), rising. users: float32 (n, d). movie_ids: int64 (m,), rising. movies: float32 (m, d).
    """

    user_ids: Int64s
    users: Float32s
    movie_ids: Int64s
    movies: Float32s


class Recommender(ABC):
    """A model. Hyperparameters are the keyword arguments of its constructor, kept under the same names."""

    name: ClassVar[str]

    knows_features: ClassVar[bool] = False
    """Whether it scores movies that nobody rated by their genres and year."""

    movie_ids: Int64s
    """Every movie it ranks, rising: those rated in training and those of the features."""

    user_ids: Int64s
    """The users of training, rising."""

    genre_names: tuple[str, ...]
    """The genres of the features it was trained with."""

    _columns: Int64s
    """For each of ``movie_ids``, the column of ``_score`` that is its score; -1 for one that was added since."""

    seed: int

    # What a model is made of

    @abstractmethod
    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        """Learn; whatever is learnt goes into ``_arrays``."""

    @abstractmethod
    def _score(self, histories: Histories) -> Float32s:
        """Scores (n, len(movie_ids)) for histories that are not empty; their ``movie_id`` holds columns, not ids."""

    @abstractmethod
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was learnt, to be saved."""

    @abstractmethod
    def _restore(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """The inverse of ``_arrays``."""

    def _score_at(self, histories: Histories, columns: Int64s) -> Float32s:
        """Those columns (m,) of ``_score``: (n, m); a model that can do so for less does."""
        return self._score(histories)[:, columns]

    def _vectors(self, histories: Histories) -> tuple[Float32s, Int64s, Float32s] | None:
        """Vectors (n, d) of histories as ``_score`` takes them; columns (m,), rising; vectors (m, d) of these."""
        return None

    def _extend(self, at: Int64s, features: SideFeatures) -> None:
        """Rank more movies: column i is column ``at[i]`` of ``movie_ids`` now; features: of ``movie_ids``, a row each.

        A model that knows a movie by its features scores the new ones; by default they come below all others.
        """
        columns = np.full(len(self.movie_ids), -1)
        columns[at] = self._columns
        self._columns = columns

    # What users of a model call

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def fit(
        self, interactions: Interactions, features: SideFeatures | None = None, *, on_epoch: OnEpoch | None = None
    ) -> Self:
        """Learn from ``interactions``, of which the latest rating of a (user, movie) counts; returns itself.

        features: movies beside those that were rated are ranked too. on_epoch: told after each pass.
        Raises ModelError where there is nothing to learn from, nothing finite came out, or torch is not installed.
        """
        if not len(interactions):
            raise ModelError(f"{self.name}: expected ratings to learn from, found none")
        features = features or SideFeatures.none()
        latest = interactions.latest()
        self.user_ids = np.unique(latest.user_id)
        self.movie_ids = np.union1d(latest.movie_id, features.movie_id)
        self._seen = self._known(Histories.of_users(latest, self.user_ids))
        column = np.searchsorted(self.movie_ids, latest.movie_id)
        self._cold = ColdStart.of(latest, column, len(self.movie_ids), features.user_groups)
        self._groups = dict(features.user_groups)
        self._columns = np.arange(len(self.movie_ids))
        self.genre_names = features.genre_names
        data = TrainingData(
            self.user_ids,
            self.movie_ids,
            np.searchsorted(self.user_ids, latest.user_id),
            column,
            latest.rating,
            latest.timestamp,
            features.of_movies(self.movie_ids),
        )
        try:
            self._fit(data, on_epoch)
        except ModuleNotFoundError as error:
            hint = "pip install 'streamlens[train]'"
            raise ModelError(f"{self.name}: {error.name} is not installed, which training needs: {hint}") from error
        for array, values in self._arrays().items():
            if not np.isfinite(values).all():
                raise ModelError(f"{self.name}: training diverged ({array} is not finite); lower its learning rate")
        return self

    def with_movies(self, features: SideFeatures) -> Self:
        """A copy that ranks the movies of ``features`` too, be it by what is known of them; nothing is learnt.

        Models that learn what genres and years say score them; the others list them below all that were in training.
        """
        model = copy.copy(self)
        model.movie_ids = np.union1d(self.movie_ids, features.movie_id)
        at = np.searchsorted(model.movie_ids, self.movie_ids)
        seen = self._seen
        model._seen = Histories(seen.start, at[seen.movie_id], seen.rating, seen.timestamp)
        model._cold = self._cold.with_columns(at, len(model.movie_ids))
        model._extend(at, features.with_genres(self.genre_names).of_movies(model.movie_ids))
        return model

    def recommend(self, user_ids: npt.ArrayLike, k: int, exclude_seen: bool = True) -> Recommendations:
        """The ``k`` best movies for each user. One unseen in training gets what is popular, and is ``cold``."""
        wanted = np.asarray(user_ids, np.int64)
        rows = self._rows(wanted)
        seen = self._seen.take(rows)
        parts = []
        for first, last in self._chunks(len(wanted)):
            part = seen.slice(first, last)
            scores = self._scores(part, self._groups_of(wanted[first:last]))
            parts.append(self._ranked(scores, part, k, exclude_seen))
        return self._joined(parts, rows < 0, k)

    def recommend_for_history(
        self,
        histories: Histories,
        k: int,
        exclude_seen: bool = True,
        groups: Sequence[str | None] | None = None,
    ) -> Recommendations:
        """The ``k`` best movies for users known by their histories only; nothing is learnt from these.

        groups: the demographic group of each, which serves those without a history. Movies that the model does not know
        are left out of a history.
        """
        known = self._known(histories)
        parts = []
        for first, last in self._chunks(len(histories)):
            part = known.slice(first, last)
            scores = self._scores(part, groups[first:last] if groups else None)
            parts.append(self._ranked(scores, part, k, exclude_seen))
        return self._joined(parts, self._learnt(known).lengths == 0, k)

    def score(self, histories: Histories, groups: Sequence[str | None] | None = None) -> Float32s:
        """Scores of all ``movie_ids`` for each history: float32 (n, len(movie_ids)), higher is better."""
        return self._scores(self._known(histories), groups)

    def score_of(self, histories: Histories, movie_ids: npt.ArrayLike) -> Float32s:
        """What ``score`` says of a few movies, for less: float32 (n, m). Raises ModelError for one it does not rank."""
        wanted = np.asarray(movie_ids, np.int64)
        unknown = wanted[~np.isin(wanted, self.movie_ids)]
        if len(unknown):
            raise ModelError(f"{self.name}: expected movies that it ranks, found {unknown[0]}")
        at = np.searchsorted(self.movie_ids, wanted)
        learnt = self._learnt(self._known(histories))
        columns = self._columns[at]
        if learnt.lengths.all() and (columns >= 0).all():
            return self._score_at(learnt, columns)
        return self.score(histories)[:, at]

    def score_by_features(self, histories: Histories, features: SideFeatures) -> Float32s:
        """Scores (n, m) of movies that nobody rated, for histories of which it knows something, each.

        Raises ModelError for a model that knows movies by their ratings alone, see ``knows_features``.
        """
        raise ModelError(f"{self.name}: expected a model that knows features, found one that does not")

    def group_of(self, user_id: int) -> str | None:
        """The demographic group of a user, where the features of the training had one."""
        return self._groups.get(user_id)

    def knows(self, histories: Histories) -> Bools:
        """Whether it has learnt of any movie in each history: bool (n,); who it does not know gets what is popular."""
        return self._learnt(self._known(histories)).lengths > 0

    def embeddings(self) -> Vectors | None:
        """The users of training, and the movies it learnt something of; None for a model whose score is no product."""
        found = self._vectors(self._learnt(self._seen))
        if found is None:
            return None
        users, columns, movies = found
        return Vectors(self.user_ids, users, self.movie_ids[self._columns >= 0][columns], movies)

    def save(self, folder: Path) -> None:
        """Write the model to ``folder``, whole or not at all: ``model.safetensors`` and ``model.json``."""
        arrays = {f"model.{name}": values for name, values in self._arrays().items()}
        arrays |= {
            "movie_ids": self.movie_ids,
            "user_ids": self.user_ids,
            "cold": self._cold.scores,
            "columns": self._columns,
            **{f"seen.{name}": getattr(self._seen, name) for name in ("start", "movie_id", "rating", "timestamp")},
        }
        groups = {str(user): group for user, group in self._groups.items()}
        about = {"groups": list(self._cold.groups), "user_groups": groups, "genres": list(self.genre_names)}
        write_model(folder, self.name, self.hyperparameters, arrays, about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model that was saved to ``folder``. Raises ModelError for another model, or a damaged file, or where this
        code has other hyperparameters or arrays than the code that saved it.
        """
        stored = read_model(folder)
        if stored.name != cls.name:
            raise ModelError(f"{folder}: expected a model of the kind {cls.name}, found {stored.name}")
        try:
            return cls._of_stored(stored)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{folder}: saved by other code than this ({error!r}); train it again") from error

    @classmethod
    def _of_stored(cls, stored: StoredModel) -> Self:
        model = cls(**stored.hyperparameters)
        arrays = stored.arrays
        model.movie_ids, model.user_ids = arrays["movie_ids"], arrays["user_ids"]
        model._seen = Histories(*(arrays[f"seen.{name}"] for name in ("start", "movie_id", "rating", "timestamp")))
        model._cold = ColdStart(arrays["cold"], tuple(stored.about["groups"]))
        model._columns, model.genre_names = arrays["columns"], tuple(stored.about["genres"])
        model._groups = {int(user): group for user, group in stored.about["user_groups"].items()}
        prefix = "model."
        model._restore({n.removeprefix(prefix): values for n, values in arrays.items() if n.startswith(prefix)})
        return model

    # How

    def _rows(self, user_ids: Int64s) -> Int64s:
        """The row of each user, -1 for those unseen in training."""
        at = np.searchsorted(self.user_ids, user_ids)
        at[at == len(self.user_ids)] = 0
        return np.where(self.user_ids[at] == user_ids, at, -1)

    def _groups_of(self, user_ids: Int64s) -> list[str | None]:
        return [self._groups.get(user) for user in user_ids.tolist()]

    def _known(self, histories: Histories) -> Histories:
        """Without the movies that the model does not know, and with columns for ids."""
        at = np.searchsorted(self.movie_ids, histories.movie_id)
        at[at == len(self.movie_ids)] = 0
        return histories.kept(self.movie_ids[at] == histories.movie_id, at)

    def _learnt(self, known: Histories) -> Histories:
        """Without the movies that were added since training, and with the columns of ``_score``."""
        column = self._columns[known.movie_id]
        return known.kept(column >= 0, column)

    def _spread(self, scores: Float32s) -> Float32s:
        """From the columns of ``_score`` to ``movie_ids``; what was added since training comes below all others."""
        added = self._columns < 0
        if not added.any():
            return scores
        spread = scores[:, self._columns]  # column -1 stands for those without one
        lowest = scores.min(axis=1, keepdims=True)
        spread[:, added] = np.nextafter(lowest, np.float32(-np.inf))
        return spread

    def _scores(self, known: Histories, groups: Sequence[str | None] | None) -> Float32s:
        learnt = self._learnt(known)
        warm = np.flatnonzero(learnt.lengths)
        if len(warm) == len(learnt):
            return self._spread(self._score(learnt))
        scores = self._cold.of_groups(groups or [None] * len(known))
        if len(warm):
            start = np.concatenate(([0], learnt.start[warm + 1]))  # an empty history takes no place
            own = Histories(start, learnt.movie_id, learnt.rating, learnt.timestamp)
            scores[warm] = self._spread(self._score(own))
        return scores

    def _ranked(self, scores: Float32s, seen: Histories, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        if exclude_seen:
            scores[seen.row, seen.movie_id] = -np.inf
        columns, values = top_k(scores, k)
        return np.where(columns == NO_MOVIE, NO_MOVIE, self.movie_ids[columns]), values

    def _joined(self, parts: list[tuple[Int64s, Float32s]], cold: npt.NDArray[np.bool_], k: int) -> Recommendations:
        ids = [ids for ids, _ in parts] or [np.zeros((0, k), np.int64)]
        scores = [scores for _, scores in parts] or [np.zeros((0, k), np.float32)]
        return Recommendations(np.concatenate(ids), np.concatenate(scores), cold)

    def _chunks(self, n: int) -> Iterator[tuple[int, int]]:
        size = max(1, _SCORES_AT_ONCE // max(1, len(self.movie_ids)))
        return ((first, min(first + size, n)) for first in range(0, n, size))


class RatingPredictor(Recommender):
    """A model that predicts stars too."""

    @abstractmethod
    def predict(self, user_ids: npt.ArrayLike, movie_ids: npt.ArrayLike) -> Float32s:
        """The stars (n,) that each user would give the movie beside it, be they seen in training or not."""

    @abstractmethod
    def predict_for_history(self, histories: Histories, movie_ids: npt.ArrayLike) -> Float32s:
        """The stars (n,) that the user of each history would give the movie beside it."""

"""Slates whose users' next seven event days are still to come, and P@10 and NDCG@10 of those whose are over."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from agents.monitor_columns import PackedArray, RatingColumns, SlateColumns, pack, unpack
from models import metrics
from models.interactions import Float32s, Interactions
from models.slates import LIKED_STARS, OUTCOME_S
from models.timeline import Timeline
from streams.records import Int64s

__all__ = ["JudgedSlates", "OpenSlates", "OpenSlatesState"]


@dataclass(frozen=True, slots=True)
class JudgedSlates:
    """Sums over slates whose users liked something, the only ones that tell a good list from a bad one."""

    n: int
    precision: float
    ndcg: float


class OpenSlatesState(msgspec.Struct, frozen=True):
    """``OpenSlates`` as JSON holds it."""

    arrays: dict[str, PackedArray]


class OpenSlates:
    """Slates not yet judged, and what was liked since the oldest of them."""

    def __init__(self) -> None:
        self._user, self._at = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._movies: Int64s | None = None  # (s, k); k is known with the first slate
        self._liked = Interactions([], [], [])

    def close(self, end: int, ratings: RatingColumns, slates: SlateColumns) -> JudgedSlates:
        """Take in what came before event time ``end``; judge, and let go of, what is over by then."""
        stars: Float32s = (ratings.half_stars / 2).astype(np.float32)
        self._add(slates)
        self._liked = _joined(self._liked, ratings, stars >= LIKED_STARS)
        over = self._at + OUTCOME_S <= end
        if self._movies is None or not over.any():
            return JudgedSlates(0, 0.0, 0.0)
        user, at, movies = self._user[over], self._at[over], self._movies[over]
        row, movie = Timeline(self._liked).liked_within(user, at, at + OUTCOME_S, LIKED_STARS)
        self._user, self._at, self._movies = self._user[~over], self._at[~over], self._movies[~over]
        since = int(self._at.min()) if len(self._at) else end
        self._liked = _since(self._liked, since)
        hits, n_relevant = metrics.hits_of(movies, row, movie), np.bincount(row, minlength=len(movies))
        judged = n_relevant > 0
        ndcg = metrics.ndcg(hits[judged], n_relevant[judged])
        return JudgedSlates(int(judged.sum()), float(metrics.precision(hits[judged]).sum()), float(ndcg.sum()))

    def forget(self) -> None:
        """Let go of all slates: another model makes those that come."""
        liked = self._liked
        self.__init__()  # type: ignore[misc]
        self._liked = liked

    def state(self) -> OpenSlatesState:
        held = {"user": self._user, "at": self._at, "liked_user": self._liked.user_id}
        held |= {"liked_movie": self._liked.movie_id, "liked_at": self._liked.timestamp}
        if self._movies is not None:
            held["movies"] = self._movies
        return OpenSlatesState({name: pack(array) for name, array in held.items()})

    @classmethod
    def of(cls, state: OpenSlatesState) -> OpenSlates:
        held = {name: unpack(array) for name, array in state.arrays.items()}
        slates = cls()
        slates._user, slates._at, slates._movies = held["user"], held["at"], held.get("movies")
        stars = np.full(len(held["liked_user"]), LIKED_STARS, np.float32)  # how much they were liked is of no account
        slates._liked = Interactions(held["liked_user"], held["liked_movie"], stars, held["liked_at"])
        return slates

    def _add(self, slates: SlateColumns) -> None:
        if not len(slates):
            return
        self._user = np.concatenate([self._user, slates.user_id])
        self._at = np.concatenate([self._at, slates.timestamp])
        held = () if self._movies is None else (self._movies,)
        self._movies = np.concatenate([*held, slates.movie_ids])


def _joined(liked: Interactions, ratings: RatingColumns, kept: np.ndarray) -> Interactions:
    if not kept.any():
        return liked
    more = ratings.take(kept)
    return Interactions(
        np.concatenate([liked.user_id, more.user_id]),
        np.concatenate([liked.movie_id, more.movie_id]),
        np.full(len(liked) + len(more), LIKED_STARS, np.float32),
        np.concatenate([liked.timestamp, more.timestamp]),
    )


def _since(liked: Interactions, moment: int) -> Interactions:
    return liked.take(np.flatnonzero(liked.timestamp >= moment))

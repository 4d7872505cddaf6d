"""Making the lists of slates: histories as of each, read from the feature store in bulk, and the models' best movies.

A slate is made from what stands in the log before the rating that triggers it, and is earlier in event time: however
far the feature store is ahead by then, the list is the same.

A row of a matrix product may differ in its last bits with how many rows are computed together, and with it the order of
movies that are all but equal. So lists are always computed for the same number of users at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agents.sessions import ShownSlate
from featurestore.reader import LoggedHistories
from models.interactions import Bools, Histories
from models.ranking import NO_MOVIE
from models.recommender import Recommender
from models.slates import SLATE_SIZE
from streams.records import Int64s

__all__ = ["fill_slates", "histories_before", "lists_of"]

_AT_ONCE = 32
"""More would be faster where there are many, and slower where there are few, which is the usual case."""

_INT64_MAX = 2**63 - 1
_RATINGS_AT_ONCE = 1 << 20
"""Of histories held together: about 100 MB while they are put in order."""


def fill_slates(
    model: Recommender, logged: LoggedHistories, slates: Sequence[ShownSlate], movie_ids: Int64s, half_stars: Int64s
) -> None:
    """Fill in the lists of ``slates`` of one partition, by a model.

    logged: the histories of all their users. movie_ids, half_stars: (n,), of the ratings of the step, which each
    slate's ``at`` counts.
    """
    for part in _by_size(slates, logged):
        at = [slate.at for slate in part]
        histories = histories_before(logged, part, (movie_ids[at], half_stars[at]))
        for slate, listed in zip(part, lists_of(model, histories), strict=True):
            slate.movie_ids = listed


def _by_size(slates: Sequence[ShownSlate], logged: LoggedHistories) -> Iterator[Sequence[ShownSlate]]:
    """In parts whose histories fit into memory."""
    row = np.searchsorted(logged.user_id, [slate.session.user_id for slate in slates])
    part = np.cumsum(logged.start[row + 1] - logged.start[row]) // _RATINGS_AT_ONCE
    ends = [*(np.flatnonzero(np.diff(part)) + 1).tolist(), len(slates)]
    first = 0
    for end in ends:
        yield slates[first:end]
        first = end


def histories_before(
    logged: LoggedHistories, slates: Sequence[ShownSlate], triggers: tuple[Int64s, Int64s]
) -> Histories:
    """The history of each slate: of each movie the last rating, among those before the slate's trigger, in event time.

    triggers: movie ids and half stars (n,) of the ratings that triggered the slates. What stands in the log from the
    first equal record on does not count: an equal one is no news.
    """
    users = np.fromiter((slate.session.user_id for slate in slates), np.int64, len(slates))
    times = np.fromiter((slate.timestamp for slate in slates), np.int64, len(slates))
    row = np.searchsorted(logged.user_id, users)
    ratings = _Ratings.of(logged)
    ordered = ratings.in_order[row]
    if ordered.all():
        return _prefixes(ratings, row, times)
    first, second = np.flatnonzero(ordered), np.flatnonzero(~ordered)
    one = _prefixes(ratings, row[first], times[first])
    other = _selected(ratings, row[second], times[second], triggers[0][second], triggers[1][second])
    joined = Histories(
        np.concatenate((one.start, one.start[-1] + other.start[1:])),
        np.concatenate((one.movie_id, other.movie_id)),
        np.concatenate((one.rating, other.rating)),
        np.concatenate((one.timestamp, other.timestamp)),
    )
    return joined.take(np.argsort(np.concatenate((first, second))))


@dataclass(frozen=True, slots=True, eq=False)
class _Ratings:
    """Ratings as columns (n,), of user i from ``start[i]`` to ``start[i + 1]``, in the order of the log.

    in_order: bool (u,), whose log is in event time.
    """

    start: Int64s
    time: Int64s
    movie: Int64s
    half_stars: Int64s
    owner: Int64s
    in_order: Bools

    @classmethod
    def of(cls, logged: LoggedHistories) -> _Ratings:
        columns = (logged.ratings[name].astype(np.int64) for name in ("timestamp", "movie_id", "half_stars"))
        time, movie, half_stars = columns
        owner = np.repeat(np.arange(len(logged)), np.diff(logged.start))
        in_order = np.ones(len(logged), bool)
        in_order[owner[1:][_goes_back(owner, time, movie)]] = False
        return cls(logged.start, time, movie, half_stars, owner, in_order)

    def following(self) -> Int64s:
        """The position of each rating's user's next one of the same movie; n where there is none."""
        order = np.lexsort((self.movie, self.owner))
        owner, movie = self.owner[order], self.movie[order]
        same = np.flatnonzero((owner[1:] == owner[:-1]) & (movie[1:] == movie[:-1]))
        following = np.full(len(order), len(order))
        following[order[same]] = order[same + 1]
        return following


def _goes_back(owner: Int64s, time: Int64s, movie: Int64s) -> Bools:
    """Of all ratings but the first: where one comes before the one in front of it, of the same owner; bool (n - 1,)."""
    back: Bools = (time[1:] < time[:-1]) | ((time[1:] == time[:-1]) & (movie[1:] < movie[:-1]))
    back &= owner[1:] == owner[:-1]
    return back


def _expanded(first: Int64s, length: Int64s) -> tuple[Int64s, Int64s]:
    """Owner and position of ``length[i]`` positions from ``first[i]`` on, for each i."""
    owner = np.repeat(np.arange(len(first)), length)
    return owner, np.arange(len(owner)) + np.repeat(first - (np.cumsum(length) - length), length)


def _prefixes(ratings: _Ratings, row: Int64s, times: Int64s) -> Histories:
    """Of users whose log is in event time: all that is earlier stands before the trigger, and at the front."""
    least = int(min(ratings.time.min(initial=0), times.min(initial=0)))
    span = int(max(ratings.time.max(initial=0), times.max(initial=0))) - least + 1
    if span * (len(ratings.start) + 1) >= _INT64_MAX:  # never in practice: a few million users over all of time
        return _selected(ratings, row, times, np.full(len(row), -1), np.full(len(row), -1))
    end = np.searchsorted(ratings.owner * span + (ratings.time - least), row * span + (times - least))
    first = ratings.start[row]
    owner, at = _expanded(first, end - first)
    kept = ratings.following()[at] >= end[owner]
    return _histories(len(row), owner[kept], ratings, at[kept])


def _selected(ratings: _Ratings, row: Int64s, times: Int64s, movies: Int64s, half_stars: Int64s) -> Histories:
    """Of any users. movies, half_stars: of the ratings that triggered the slates, at ``times``."""
    first, length = ratings.start[row], ratings.start[row + 1] - ratings.start[row]
    owner, at = _expanded(first, length)
    same = (ratings.time[at] == times[owner]) & (ratings.movie[at] == movies[owner])
    trigger = np.flatnonzero(same & (ratings.half_stars[at] == half_stars[owner]))
    end = first + length
    np.minimum.at(end, owner[trigger], at[trigger])
    before = (at < end[owner]) & (ratings.time[at] < times[owner])
    owner, at = owner[before], at[before]
    order = np.lexsort((ratings.movie[at], ratings.time[at], owner))
    owner, at = owner[order], at[order]
    kept = _last_of_each(owner, ratings.movie[at])
    return _histories(len(row), owner[kept], ratings, at[kept])


def _last_of_each(owner: Int64s, movie: Int64s) -> Int64s:
    """Positions of the last rating of each (owner, movie), rising."""
    order = np.lexsort((np.arange(len(owner)), movie, owner))
    last = np.ones(len(owner), bool)
    last[:-1] = (np.diff(owner[order]) != 0) | (np.diff(movie[order]) != 0)
    return np.sort(order[last])


def _histories(n: int, owner: Int64s, ratings: _Ratings, at: Int64s) -> Histories:
    start = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=n), dtype=np.int64)))
    stars = (ratings.half_stars[at] / 2.0).astype(np.float32)
    return Histories(start, ratings.movie[at], stars, ratings.time[at])


def lists_of(model: Recommender, histories: Histories, k: int = SLATE_SIZE) -> list[list[int]]:
    """The ``k`` best movies, or fewer, for each history; the same whatever other histories there are."""
    lists: list[list[int]] = [[] for _ in range(len(histories))]
    empty = histories.lengths == 0
    for rows in (np.flatnonzero(~empty), np.flatnonzero(empty)):
        _fill_lists(model, histories, rows, k, lists)
    return lists


def _fill_lists(model: Recommender, histories: Histories, rows: Int64s, k: int, lists: list[list[int]]) -> None:
    for first in range(0, len(rows), _AT_ONCE):
        part = rows[first : first + _AT_ONCE]
        padded = np.append(part, np.repeat(part[-1:], _AT_ONCE - len(part)))
        found = model.recommend_for_history(histories.take(padded), k)
        if found.cold.any() and not found.cold.all():  # who is cold is not computed with the others: fewer are
            cold = found.cold[: len(part)]
            _fill_lists(model, histories, part[~cold], k, lists)
            _fill_lists(model, histories, part[cold], k, lists)
            continue
        for row, movie_ids in zip(part.tolist(), found.movie_ids[: len(part)].tolist(), strict=True):
            lists[row] = movie_ids if movie_ids[-1] != NO_MOVIE else [m for m in movie_ids if m != NO_MOVIE]

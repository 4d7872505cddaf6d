"""Making the lists of slates: histories as of each, read from the feature store in bulk, and the models' best movies.

A slate is made from what stands in the log before the rating that triggers it, and is earlier in event time: however
far the feature store is ahead by then, the list is the same.

A row of a matrix product may differ in its last bits with how many rows are computed together, and with it the order of
movies that are all but equal. So lists are always computed for the same number of users at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from agents.sessions import ShownSlate
from featurestore.reader import LoggedHistories
from models.interactions import Histories
from models.ranking import NO_MOVIE
from models.recommender import Recommender
from models.slates import SLATE_SIZE
from streams.records import Int64s

__all__ = ["fill_slates", "histories_before", "lists_of"]

_AT_ONCE = 32
"""More would be faster where there are many, and slower where there are few, which is the usual case."""

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
    movies, half_stars = triggers
    users = np.fromiter((s.session.user_id for s in slates), np.int64, len(slates))
    times = np.fromiter((s.timestamp for s in slates), np.int64, len(slates))
    row = np.searchsorted(logged.user_id, users)
    first, length = logged.start[row], logged.start[row + 1] - logged.start[row]
    owner = np.repeat(np.arange(len(slates)), length)
    begin = np.cumsum(length) - length
    place = np.arange(len(owner)) - begin[owner]
    rated = logged.ratings[first[owner] + place]
    time, movie = rated["timestamp"].astype(np.int64), rated["movie_id"].astype(np.int64)
    same = np.flatnonzero(
        (time == times[owner]) & (movie == movies[owner]) & (rated["half_stars"] == half_stars[owner])
    )
    end = length.copy()
    np.minimum.at(end, owner[same], place[same])
    before = np.flatnonzero((place < end[owner]) & (time < times[owner]))
    owner, time, movie, stars = owner[before], time[before], movie[before], rated["half_stars"][before]
    if _out_of_order(owner, time, movie):
        order = np.lexsort((movie, time, owner))
        owner, time, movie, stars = owner[order], time[order], movie[order], stars[order]
    kept = _last_of_each(owner, movie)
    if kept is not None:
        owner, time, movie, stars = owner[kept], time[kept], movie[kept], stars[kept]
    start = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(slates)), dtype=np.int64)))
    return Histories(start, movie, (stars / 2.0).astype(np.float32), time)


def _out_of_order(owner: Int64s, time: Int64s, movie: Int64s) -> bool:
    same = owner[1:] == owner[:-1]
    back = (time[1:] < time[:-1]) | ((time[1:] == time[:-1]) & (movie[1:] < movie[:-1]))
    return bool((same & back).any())


def _last_of_each(owner: Int64s, movie: Int64s) -> Int64s | None:
    """Positions of the last rating of each (owner, movie), rising; None where no movie comes twice."""
    distinct, code = np.unique(movie, return_inverse=True)
    key = owner * len(distinct) + code
    ordered = np.sort(key)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return np.sort(order[last])


def lists_of(model: Recommender, histories: Histories, k: int = SLATE_SIZE) -> list[list[int]]:
    """The ``k`` best movies, or fewer, for each history; the same whatever other histories there are."""
    lists: list[list[int]] = [[] for _ in range(len(histories))]
    known = model.knows(histories)
    for rows in (np.flatnonzero(known), np.flatnonzero(~known)):
        for first in range(0, len(rows), _AT_ONCE):
            part = rows[first : first + _AT_ONCE]
            padded = np.append(part, np.repeat(part[-1:], _AT_ONCE - len(part)))
            found = model.recommend_for_history(histories.take(padded), k).movie_ids[: len(part)]
            for row, movie_ids in zip(part.tolist(), found.tolist(), strict=True):
                lists[row] = movie_ids if movie_ids[-1] != NO_MOVIE else [m for m in movie_ids if m != NO_MOVIE]
    return lists

"""Features as columns, one row per user or movie asked for; what readers and snapshots give back.

A row is assembled from integer sums and forward-weighted ones, wherever these come from: the materialised rows of the
store, its buckets, or a pass over ratings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from featurestore.aggregate import Accepted, Bools, group_by_user, item_totals, taste_sums
from featurestore.catalogue import Catalogue
from featurestore.decay import Float64s, age_scale, day_weights
from featurestore.view_settings import ViewSettings
from streams.events import DAY_S, HOUR_S
from streams.records import Int64s

__all__ = [
    "WINDOWS_S",
    "History",
    "ItemFeatures",
    "ItemSums",
    "PopularItem",
    "UserFeatures",
    "UserSums",
    "item_features",
    "item_sums",
    "merge_item_sums",
    "user_features",
    "user_sums",
]

Column = TypeVar("Column", Int64s, Float64s, Bools)

WINDOWS_S = {"1h": HOUR_S, "1d": DAY_S, "7d": 7 * DAY_S, "28d": 28 * DAY_S}
"""The rolling windows, by name, in seconds of event time."""


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """Columns of shape (n,), one row per user asked for; users without ratings are not ``known`` and hold zeros.

    mean_rating: stars, NaN for unknown users. first_rated, last_rated, session_start: seconds since the epoch. The
    session is the last one in event time: ratings with gaps under the store's session gap (30 minutes by default).
    recency_s: from the last rating to ``as_of``, NaN for unknown users. taste: (n, genres), the share of each of
    ``genres`` in what the user rated, later ratings weighing more; zeros where no rated movie has a genre. taste_mean:
    (n, genres), weighted mean stars, NaN for genres never rated. as_of: the event time the features are about.
    """

    user_id: Int64s
    known: Bools
    n_ratings: Int64s
    mean_rating: Float64s
    first_rated: Int64s
    last_rated: Int64s
    recency_s: Float64s
    session_start: Int64s
    session_n: Int64s
    taste: Float64s
    taste_mean: Float64s
    genres: tuple[str, ...]
    as_of: int

    def __len__(self) -> int:
        return len(self.user_id)

    def of(self, user_ids: Sequence[int] | Int64s) -> UserFeatures:
        """The rows of these users; those without a row here are unknown. ``user_id`` must rise."""
        rows = _Rows(self.user_id, user_ids)
        return replace(
            self,
            user_id=rows.ids,
            known=rows.take(self.known, False),
            n_ratings=rows.take(self.n_ratings, 0),
            mean_rating=rows.take(self.mean_rating, math.nan),
            first_rated=rows.take(self.first_rated, 0),
            last_rated=rows.take(self.last_rated, 0),
            recency_s=rows.take(self.recency_s, math.nan),
            session_start=rows.take(self.session_start, 0),
            session_n=rows.take(self.session_n, 0),
            taste=rows.take(self.taste, 0.0),
            taste_mean=rows.take(self.taste_mean, math.nan),
        )


@dataclass(frozen=True, slots=True, eq=False)
class ItemFeatures:
    """Columns of shape (n,), one row per movie asked for; ``window_n`` and ``window_mean`` by window name.

    Means are in stars, NaN where nothing was rated. last_rated is exact now, and as of T the start of the last hour
    in which the movie was rated. recency_s: from it to ``as_of``, NaN for unknown movies. decayed_popularity: ratings,
    each halved by every half-life between its day and the last day that counts. ``as_of`` is the event time that the
    windows end at.
    """

    movie_id: Int64s
    known: Bools
    n_ratings: Int64s
    mean_rating: Float64s
    first_rated: Int64s
    last_rated: Int64s
    recency_s: Float64s
    decayed_popularity: Float64s
    window_n: dict[str, Int64s]
    window_mean: dict[str, Float64s]
    as_of: int

    def __len__(self) -> int:
        return len(self.movie_id)

    def of(self, movie_ids: Sequence[int] | Int64s) -> ItemFeatures:
        """The rows of these movies; those without a row here are unknown. ``movie_id`` must rise."""
        rows = _Rows(self.movie_id, movie_ids)
        return replace(
            self,
            movie_id=rows.ids,
            known=rows.take(self.known, False),
            n_ratings=rows.take(self.n_ratings, 0),
            mean_rating=rows.take(self.mean_rating, math.nan),
            first_rated=rows.take(self.first_rated, 0),
            last_rated=rows.take(self.last_rated, 0),
            recency_s=rows.take(self.recency_s, math.nan),
            decayed_popularity=rows.take(self.decayed_popularity, 0.0),
            window_n={name: rows.take(n, 0) for name, n in self.window_n.items()},
            window_mean={name: rows.take(mean, math.nan) for name, mean in self.window_mean.items()},
        )


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A user's ratings as columns of shape (n,), in event time; late: arrived beyond the lateness bound."""

    timestamp: Int64s
    movie_id: Int64s
    rating: Float64s
    late: Bools

    def __len__(self) -> int:
        return len(self.timestamp)


@dataclass(frozen=True, slots=True)
class PopularItem:
    """A movie and its ratings within a window; ``mean_rating`` in stars. ``score``: what the list is ordered by."""

    movie_id: int
    n_ratings: int
    mean_rating: float
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class UserSums:
    """Sums of m users, by rising ``user_id``: integers (m,), and taste (m, genres, 2) as ``users.taste`` holds it."""

    user_id: Int64s
    n: Int64s
    half_stars: Int64s
    first_rated: Int64s
    last_rated: Int64s
    session_start: Int64s
    session_n: Int64s
    taste: Float64s


def user_sums(ratings: Accepted, settings: ViewSettings, catalogue: Catalogue) -> UserSums:
    """The sums of every user in ``ratings`` (n >= 0), whatever partitions they came on."""
    if not len(ratings):
        none = np.zeros(0, np.int64)
        return UserSums(*(none,) * 7, taste=np.zeros((0, len(catalogue.genres), 2)))
    users, order, _ = group_by_user(ratings.on_one_partition(), settings.session_gap_s)
    return UserSums(
        user_id=users.user_id,
        n=users.n,
        half_stars=users.half_stars,
        first_rated=users.first_rated,
        last_rated=users.last_rated,
        session_start=users.session_start,
        session_n=users.session_n,
        taste=taste_sums(ratings, order, users.n, settings.taste_half_life_days, catalogue),
    )


def user_features(
    user_ids: Sequence[int] | Int64s, sums: UserSums, genres: tuple[str, ...], as_of: int
) -> UserFeatures:
    """The features of the users asked for; those without sums are unknown."""
    weight, half_stars = sums.taste[:, :, 0], sums.taste[:, :, 1]
    total = weight.sum(axis=1, keepdims=True)
    features = UserFeatures(
        user_id=sums.user_id,
        known=np.ones(len(sums.user_id), bool),
        n_ratings=sums.n,
        mean_rating=_ratio(sums.half_stars / 2.0, sums.n),
        first_rated=sums.first_rated,
        last_rated=sums.last_rated,
        recency_s=_recency(as_of, sums.last_rated),
        session_start=sums.session_start,
        session_n=sums.session_n,
        taste=np.divide(weight, total, out=np.zeros_like(weight), where=total > 0),
        taste_mean=_ratio(half_stars / 2.0, weight),
        genres=genres,
        as_of=as_of,
    )
    return features.of(user_ids)


@dataclass(frozen=True, slots=True, eq=False)
class ItemSums:
    """Sums of m movies, by rising ``movie_id``, (m,); decayed: of day weights; window_n and window_half_stars:
    (m, windows)."""

    movie_id: Int64s
    n: Int64s
    half_stars: Int64s
    first_rated: Int64s
    last_rated: Int64s
    decayed: Float64s
    window_n: Int64s
    window_half_stars: Int64s


def item_sums(ratings: Accepted, as_of: int, half_life_days: float) -> ItemSums:
    """The sums of every movie in ``ratings``, any order, over the whole buckets before ``as_of``'s own."""
    end = as_of // HOUR_S * HOUR_S
    before = ratings.where(ratings.timestamp < end)
    if not len(before):
        none, windows = np.zeros(0, np.int64), np.zeros((0, len(WINDOWS_S)), np.int64)
        return ItemSums(none, none, none, none, none, np.zeros(0), windows, windows)
    one = before.on_one_partition()
    totals = item_totals(one, half_life_days)
    place = np.searchsorted(totals.movie_id, one.movie_id)
    past = one.timestamp < as_of // DAY_S * DAY_S  # decay counts by the day: a day that has only begun is not in it
    weights = day_weights(one.timestamp[past] // DAY_S, half_life_days)
    window_n = np.zeros((len(totals.movie_id), len(WINDOWS_S)), np.int64)
    window_half_stars = np.zeros_like(window_n)
    for column, seconds in enumerate(WINDOWS_S.values()):
        inside = one.timestamp >= end - seconds
        window_n[:, column] = np.bincount(place[inside], minlength=len(window_n))
        np.add.at(window_half_stars[:, column], place[inside], one.half_stars[inside])
    return ItemSums(
        movie_id=totals.movie_id,
        n=totals.n,
        half_stars=totals.half_stars,
        first_rated=totals.first_rated,
        last_rated=totals.last_rated // HOUR_S * HOUR_S,
        decayed=np.bincount(place[past], weights, minlength=len(totals.movie_id)).astype(np.float64),
        window_n=window_n,
        window_half_stars=window_half_stars,
    )


def merge_item_sums(parts: Sequence[ItemSums]) -> ItemSums:
    """The sums of several passes over different ratings, as one."""
    movie_id, place = np.unique(np.concatenate([part.movie_id for part in parts]), return_inverse=True)

    def total(name: str) -> np.ndarray:
        column = np.concatenate([getattr(part, name) for part in parts])
        sums = np.zeros((len(movie_id), *column.shape[1:]), column.dtype)
        np.add.at(sums, place, column)
        return sums

    first_rated = np.full(len(movie_id), np.iinfo(np.int64).max)
    np.minimum.at(first_rated, place, np.concatenate([part.first_rated for part in parts]))
    last_rated = np.zeros(len(movie_id), np.int64)
    np.maximum.at(last_rated, place, np.concatenate([part.last_rated for part in parts]))
    return ItemSums(
        movie_id=movie_id,
        n=total("n"),
        half_stars=total("half_stars"),
        first_rated=first_rated,
        last_rated=last_rated,
        decayed=total("decayed"),
        window_n=total("window_n"),
        window_half_stars=total("window_half_stars"),
    )


def item_features(
    movie_ids: Sequence[int] | Int64s, sums: ItemSums, *, as_of: int, end_day: int, half_life_days: float
) -> ItemFeatures:
    """The features of the movies asked for; those without sums are unknown. ``end_day``: where decay ends."""
    features = ItemFeatures(
        movie_id=sums.movie_id,
        known=np.ones(len(sums.movie_id), bool),
        n_ratings=sums.n,
        mean_rating=_ratio(sums.half_stars / 2.0, sums.n),
        first_rated=sums.first_rated,
        last_rated=sums.last_rated,
        recency_s=_recency(as_of, sums.last_rated),
        decayed_popularity=sums.decayed * age_scale(end_day, half_life_days),
        window_n={name: sums.window_n[:, i] for i, name in enumerate(WINDOWS_S)},
        window_mean={
            name: _ratio(sums.window_half_stars[:, i] / 2.0, sums.window_n[:, i]) for i, name in enumerate(WINDOWS_S)
        },
        as_of=as_of,
    )
    return features.of(movie_ids)


class _Rows:
    """Where each wanted id stands among ``held`` ids, which rise; ``ids``: those wanted, as a column."""

    def __init__(self, held: Int64s, wanted: Sequence[int] | Int64s) -> None:
        self.ids: Int64s = np.asarray(wanted, np.int64)
        at = np.searchsorted(held, self.ids)
        inside = at < len(held)
        self._known = inside.copy()
        self._known[inside] = held[at[inside]] == self.ids[inside]
        self._at = at[self._known]

    def take(self, column: Column, unknown: float) -> Column:
        """The column's values for the wanted ids, ``unknown`` for ids that are not held."""
        taken: Column = np.full((len(self.ids), *column.shape[1:]), unknown, column.dtype)
        taken[self._known] = column[self._at]
        return taken


def _ratio(total: Float64s, n: Int64s | Float64s) -> Float64s:
    ratio: Float64s = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return ratio


def _recency(as_of: int, last_rated: Int64s) -> Float64s:
    """Ratings that came since the last tick are no older than it."""
    return np.maximum(as_of - last_rated, 0).astype(np.float64)

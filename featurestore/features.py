"""Features as columns, one row per user or movie asked for; what readers and snapshots give back.

A row is assembled from integer sums and forward-weighted ones, wherever these come from: the materialised rows of the
store, its buckets, or a pass over ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    "user_features",
    "user_sums",
]

Column = TypeVar("Column", Int64s, Float64s)

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
    ids = np.asarray(user_ids, np.int64)
    at, known = _places(sums.user_id, ids)
    n = np.where(known, _take(sums.n, at), 0)
    last_rated = np.where(known, _take(sums.last_rated, at), 0)
    taste = np.where(known[:, None, None], _take(sums.taste, at), 0.0)
    weight = taste[:, :, 0]
    total = weight.sum(axis=1, keepdims=True)
    return UserFeatures(
        user_id=ids,
        known=known,
        n_ratings=n,
        mean_rating=_ratio(np.where(known, _take(sums.half_stars, at), 0) / 2.0, n),
        first_rated=np.where(known, _take(sums.first_rated, at), 0),
        last_rated=last_rated,
        recency_s=_recency(as_of, last_rated, known),
        session_start=np.where(known, _take(sums.session_start, at), 0),
        session_n=np.where(known, _take(sums.session_n, at), 0),
        taste=np.divide(weight, total, out=np.zeros_like(weight), where=total > 0),
        taste_mean=_ratio(taste[:, :, 1] / 2.0, weight),
        genres=genres,
        as_of=as_of,
    )


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


def item_features(
    movie_ids: Sequence[int] | Int64s, sums: ItemSums, *, as_of: int, end_day: int, half_life_days: float
) -> ItemFeatures:
    """The features of the movies asked for; those without sums are unknown. ``end_day``: where decay ends."""
    ids = np.asarray(movie_ids, np.int64)
    at, known = _places(sums.movie_id, ids)
    n = np.where(known, _take(sums.n, at), 0)
    last_rated = np.where(known, _take(sums.last_rated, at), 0)
    window_n = np.where(known[:, None], _take(sums.window_n, at), 0)
    window_half_stars = np.where(known[:, None], _take(sums.window_half_stars, at), 0)
    return ItemFeatures(
        movie_id=ids,
        known=known,
        n_ratings=n,
        mean_rating=_ratio(np.where(known, _take(sums.half_stars, at), 0) / 2.0, n),
        first_rated=np.where(known, _take(sums.first_rated, at), 0),
        last_rated=last_rated,
        recency_s=_recency(as_of, last_rated, known),
        decayed_popularity=np.where(known, _take(sums.decayed, at), 0.0) * age_scale(end_day, half_life_days),
        window_n={name: window_n[:, i] for i, name in enumerate(WINDOWS_S)},
        window_mean={name: _ratio(window_half_stars[:, i] / 2.0, window_n[:, i]) for i, name in enumerate(WINDOWS_S)},
        as_of=as_of,
    )


def _places(held: Int64s, wanted: Int64s) -> tuple[Int64s, Bools]:
    """Where each wanted id stands in ``held``, which rises, and whether it does."""
    at = np.searchsorted(held, wanted)
    inside = at < len(held)
    at[~inside] = 0
    known = inside.copy()
    known[inside] = held[at[inside]] == wanted[inside]
    return at, known


def _take(column: Column, at: Int64s) -> Column:
    return column[at] if len(column) else np.zeros((len(at), *column.shape[1:]), column.dtype)


def _ratio(total: Float64s, n: Int64s | Float64s) -> Float64s:
    ratio: Float64s = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return ratio


def _recency(as_of: int, last_rated: Int64s, known: Bools) -> Float64s:
    """Ratings that came since the last tick are no older than it."""
    return np.where(known, np.maximum(as_of - last_rated, 0), np.nan)

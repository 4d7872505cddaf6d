"""Reading features, now and as of an event time, by any process while ingest runs.

"Now" is everything applied, the running hour included. As of T only whole buckets before T's own count: what is read
may be an hour old and never holds anything from T on. ``history`` is exact at any time. T is event time, not arrival: a
late rating counts in reads as of any time after its own, from when it came. Each call is one short read transaction.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from featurestore.aggregate import Accepted
from featurestore.catalogue import Catalogue
from featurestore.database import open_reader, read_catalogue
from featurestore.decay import age_scale, day_weights
from featurestore.features import (
    WINDOWS_S,
    History,
    ItemFeatures,
    ItemSums,
    PopularItem,
    UserFeatures,
    UserSums,
    item_features,
    user_features,
    user_sums,
)
from featurestore.schema import HISTORY_DTYPE, TASTE_DTYPE
from featurestore.view_settings import ViewSettings
from streams.dataset import Movie
from streams.events import DAY_S, HOUR_S
from streams.records import Int64s

__all__ = ["AppliedOffset", "FeatureReader", "LoggedHistories"]

_Ratings = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class AppliedOffset:
    """How far one partition is applied by one agent; the columns of the ``applied`` table."""

    agent: str
    topic: str
    partition: int
    log_id: str
    epoch: int
    next_offset: int
    clock: int
    closed: int
    end_of_run: bool
    ratings: int
    duplicates: int
    late: int
    invalid: int
    published_ms: int
    applied_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class LoggedHistories:
    """What u users rated, in log order. user_id: int64 (u,), rising; user ``i`` has ``ratings[start[i]:start[i + 1]]``,
    as HISTORY_DTYPE.
    """

    user_id: Int64s
    start: Int64s
    ratings: _Ratings

    def __len__(self) -> int:
        return len(self.user_id)


def _hours_of(day: int) -> range:
    return range(day * 24, day * 24 + 24)


_NO_TOTALS = (0, 0, 0, 0, 0.0)


class _ItemRow(NamedTuple):
    movie_id: int
    n: int
    half_stars: int
    first_rated: int
    last_rated: int
    decayed: float
    windows: list[tuple[int, int]]


def _item_columns(rows: Sequence[_ItemRow]) -> ItemSums:
    numbers = np.array([row[:5] for row in rows], np.int64).reshape(-1, 5)
    windows = np.array([row.windows for row in rows], np.int64).reshape(-1, len(WINDOWS_S), 2)
    decayed = np.array([row.decayed for row in rows], np.float64)
    movie_id, n, half_stars, first_rated, last_rated = numbers.T
    return ItemSums(movie_id, n, half_stars, first_rated, last_rated, decayed, windows[:, :, 0], windows[:, :, 1])


def _unpack(blocks: Sequence[tuple[int, bytes]], before: int | None) -> tuple[Int64s, _Ratings]:
    """Whose each rating below ``before`` is, (n,), and the ratings as HISTORY_DTYPE (n,)."""
    ratings = np.frombuffer(b"".join([block for _, block in blocks]), HISTORY_DTYPE)
    owners = np.fromiter((user_id for user_id, _ in blocks), np.int64, len(blocks))
    owner = np.repeat(owners, [len(block) // HISTORY_DTYPE.itemsize for _, block in blocks])
    if before is not None:
        wanted = ratings["timestamp"] < before
        owner, ratings = owner[wanted], ratings[wanted]
    return owner, ratings


def _in_event_time(owner: Int64s, ratings: _Ratings) -> Accepted:
    order = np.lexsort((ratings["half_stars"], ratings["movie_id"], ratings["timestamp"], owner))
    return Accepted.of_history(owner[order], ratings[order])


class FeatureReader:
    """A read-only view on a feature store. Not thread-safe: one per thread. Raises StoreError if there is no store."""

    def __init__(self, url: str) -> None:
        self.database = open_reader(url)
        meta: dict[str, str] = dict(self._rows("SELECT key, value FROM meta"))
        self.settings = ViewSettings.from_meta(meta)
        """What the store's views are computed with."""
        self.store_id = meta.get("store_id", "")
        """Which store this is: one that is built anew has another id. Empty for one from before there were ids."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """Several reads of one state of the store. Keep it short: while it lasts nothing old can be cleared away.

        Within a snapshot another one is the same.
        """
        return self.database.snapshot()

    def _rows(self, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
        return self.database.rows(sql, *arguments)

    # Progress

    def applied(self) -> list[AppliedOffset]:
        """How far each agent has applied each partition."""
        names = tuple(AppliedOffset.__dataclass_fields__)
        rows = self._rows(f"SELECT {', '.join(names)} FROM applied")
        return [msgspec.convert(dict(zip(names, row, strict=True)), AppliedOffset, strict=False) for row in rows]

    def clock(self) -> int:
        """Event time that every partition has reached, in seconds since the epoch; 0 before the first tick."""
        ((clock,),) = self._rows("SELECT coalesce(min(clock), 0) FROM applied")
        return int(clock)

    def ratings_on_days(self, first: int, end: int) -> int:
        """How many ratings are of the days from ``first`` to before ``end``, in days since the epoch."""
        return int(self._rows("SELECT coalesce(sum(n), 0) FROM item_days WHERE day >= ? AND day < ?", first, end)[0][0])

    def outbox_size(self) -> int:
        """Records that are written and not yet acknowledged by the bus."""
        ((size,),) = self._rows("SELECT count(*) FROM outbox")
        return int(size)

    # Movies

    @cached_property
    def catalogue(self) -> Catalogue:
        """The movies the store was built with; read once."""
        return read_catalogue(self.database)

    def movies(self, movie_ids: Sequence[int]) -> dict[int, Movie]:
        """Title, year and genres of those of the movies that the store was built with."""
        known = self.catalogue.movies
        return {movie_id: known[movie_id] for movie_id in movie_ids if movie_id in known}

    # Users

    def history(self, user_id: int, before: int | None = None) -> History:
        """The user's ratings with a timestamp below ``before`` (all of them by default), oldest first."""
        blocks = self._rows(
            "SELECT user_id, ratings FROM user_history WHERE user_id = ? ORDER BY partition, block", user_id
        )
        _, ratings = _unpack(blocks, before)
        ratings = ratings[np.lexsort((ratings["movie_id"], ratings["timestamp"]))]
        return History(
            timestamp=ratings["timestamp"].astype(np.int64),
            movie_id=ratings["movie_id"].astype(np.int64),
            rating=ratings["half_stars"] / 2.0,
            late=ratings["late"].astype(bool),
        )

    def logged_histories(self, user_ids: Sequence[int], partition: int) -> LoggedHistories:
        """All that each of ``user_ids``, which differ, has rated on one partition, in log order; a user may have none.

        A log only grows: of a partition that is applied further, each history begins with what it is now.
        """
        blocks = self._rows(
            "SELECT user_id, ratings FROM user_history WHERE user_id = ANY(?) AND partition = ?"
            " ORDER BY user_id, block",
            list(user_ids),
            partition,
        )
        _, ratings = _unpack(blocks, None)
        row = {user_id: i for i, user_id in enumerate(sorted(user_ids))}
        sizes = np.zeros(len(row) + 1, np.int64)
        for user_id, block in blocks:
            sizes[row[user_id] + 1] += len(block) // HISTORY_DTYPE.itemsize
        return LoggedHistories(np.array(sorted(row), np.int64), np.cumsum(sizes), ratings)

    def rated_before(self, user_ids: Sequence[int] | Int64s, before: int) -> Accepted:
        """All that these users rated with a timestamp below ``before``, in the order of the log."""
        return Accepted.of_history(*self._histories(np.asarray(user_ids, np.int64).tolist(), before))

    def _histories(self, user_ids: Iterable[int], before: int | None) -> tuple[Int64s, _Ratings]:
        """All ratings of the users below ``before``, in log order: whose each is (n,), and HISTORY_DTYPE (n,)."""
        blocks = self._rows(
            "SELECT user_id, ratings FROM user_history WHERE user_id = ANY(?) ORDER BY user_id, partition, block",
            list(set(user_ids)),
        )
        return _unpack(blocks, before)

    def history_pages(self, before: int, page_blocks: int = 2_000) -> Iterator[Accepted]:
        """All ratings below ``before``, by user, and of one user in event time; each page holds whole users.

        For a private copy of the store: on a live one the reading would keep old rows from being cleared away.
        """
        held: list[tuple[int, bytes]] = []
        for page in self.database.pages("SELECT user_id, ratings FROM user_history ORDER BY user_id", size=page_blocks):
            held += page
            whole = bisect_left(held, held[-1][0], key=itemgetter(0))
            if whole:
                yield _in_event_time(*_unpack(held[:whole], before))
                held = held[whole:]
        if held:
            yield _in_event_time(*_unpack(held, before))

    def get_user_features(self, user_ids: Sequence[int] | Int64s, as_of: int | None = None) -> UserFeatures:
        """Features of each user, now or as of an event time (exact: from the history before it)."""
        wanted = np.asarray(user_ids, np.int64)
        with self.snapshot():
            if as_of is None:
                sums, end = self._user_sums(wanted.tolist()), self.clock()
            else:
                sums, end = self._user_sums_from_history(wanted.tolist(), as_of), as_of
            return user_features(wanted, sums, self._genres, end)

    def _user_sums(self, user_ids: Iterable[int]) -> UserSums:
        rows = self._rows(
            "SELECT user_id, n, half_stars, first_rated, last_rated, session_start, session_n, taste FROM users"
            " WHERE user_id = ANY(?) ORDER BY user_id",
            list(user_ids),
        )
        numbers = np.array([row[:7] for row in rows], np.int64).reshape(-1, 7)
        if len(set(numbers[:, 0].tolist())) < len(rows):
            # Ratings on several partitions: every sum could be added up, but a session may span them.
            return self._user_sums_from_history(user_ids, None)
        taste = np.frombuffer(b"".join([row[7] for row in rows]), TASTE_DTYPE)
        user_id, n, half_stars, first_rated, last_rated, session_start, session_n = numbers.T
        taste = taste.reshape(len(rows), len(self._genres), 2)
        return UserSums(user_id, n, half_stars, first_rated, last_rated, session_start, session_n, taste)

    def _user_sums_from_history(self, user_ids: Iterable[int], before: int | None) -> UserSums:
        owner, ratings = self._histories(user_ids, before)
        return user_sums(Accepted.of_history(owner, ratings), self.settings, self.catalogue)

    @cached_property
    def _genres(self) -> tuple[str, ...]:
        found = self._rows("SELECT DISTINCT genres FROM movies")
        return tuple(sorted({genre for (genres,) in found for genre in json.loads(genres)}))

    def user_ids(self, limit: int) -> list[int]:
        """The lowest ``limit`` ids of users with ratings."""
        return [
            user_id for (user_id,) in self._rows("SELECT DISTINCT user_id FROM users ORDER BY user_id LIMIT ?", limit)
        ]

    def sample_users(self, n: int, before: int | None = None) -> list[int]:
        """``n`` users with ratings (before an event time) from all over the ids; always the same while none come."""
        return self._sample("users", "user_id", n, before)

    # Items

    def get_item_features(self, movie_ids: Sequence[int] | Int64s, as_of: int | None = None) -> ItemFeatures:
        """Features of each movie, now or as of an event time."""
        wanted = np.asarray(movie_ids, np.int64)
        with self.snapshot():
            end = self._now_hour() if as_of is None else as_of // HOUR_S
            rows = [self._item_sums(m, end, now=as_of is None) for m in np.unique(wanted).tolist()]
        return item_features(
            wanted,
            _item_columns([row for row in rows if row.n]),
            as_of=end * HOUR_S,
            end_day=-(-end // 24) if as_of is None else end // 24,
            half_life_days=self.settings.popularity_half_life_days,
        )

    def movie_ids(self, limit: int) -> list[int]:
        """The lowest ``limit`` ids of movies with ratings."""
        return [i for (i,) in self._rows("SELECT DISTINCT movie_id FROM items ORDER BY movie_id LIMIT ?", limit)]

    def sample_movies(self, n: int, before: int | None = None) -> list[int]:
        """``n`` movies with ratings (before an event time) from all over the ids; always the same while none come."""
        return self._sample("items", "movie_id", n, before)

    def _sample(self, table: str, key: str, n: int, before: int | None) -> list[int]:
        """Those of the lowest hashes (Knuth's multiplicative one), found without the GIL."""
        rows = self._rows(
            f"SELECT {key} FROM {table} WHERE first_rated < coalesce(?, first_rated + 1) GROUP BY {key}"
            f" ORDER BY (({key} & 2147483647) * 2654435761) & 4294967295, {key} LIMIT ?",
            *(before, n),
        )
        return sorted(key for (key,) in rows)

    def _now_hour(self) -> int:
        """The hour after the running one, so that windows which end at it hold the running bucket."""
        return self.clock() // HOUR_S + 1

    def _item_sums(self, movie_id: int, end_hour: int, *, now: bool) -> _ItemRow:
        totals = self._item_totals(movie_id) if now else self._item_totals_as_of(movie_id, end_hour)
        return _ItemRow(movie_id, *totals, self._item_windows(movie_id, end_hour))

    def _item_totals(self, movie_id: int) -> tuple[int, int, int, int, float]:
        (row,) = self._rows(
            "SELECT sum(n), sum(half_stars), min(first_rated), max(last_rated), sum(decayed) FROM items"
            " WHERE movie_id = ?",
            movie_id,
        )
        return row if row[0] else _NO_TOTALS

    def _item_totals_as_of(self, movie_id: int, end_hour: int) -> tuple[int, int, int, int, float]:
        """Whole days before the last one, then its hours: one look-up per bucket, since the bucket leads the key."""
        _, _, first_rated, last_rated, _ = self._item_totals(movie_id)
        end_day = end_hour // 24
        if not first_rated or first_rated // HOUR_S >= end_hour:
            return _NO_TOTALS
        last_day = min(end_day - 1, last_rated // DAY_S)
        days = self._buckets("item_days", "day", movie_id, range(first_rated // DAY_S, last_day + 1))
        hours = self._buckets("item_hours", "hour", movie_id, range(end_day * 24, end_hour))
        latest = hours or self._buckets("item_hours", "hour", movie_id, _hours_of(max(day for day, *_ in days)))
        n = sum(row[1] for row in (*days, *hours))
        half_stars = sum(row[2] for row in (*days, *hours))
        weights = day_weights(np.array([day for day, *_ in days], np.int64), self.settings.popularity_half_life_days)
        decayed = float(weights @ np.array([count for _, count, _ in days], np.float64))
        return (n, half_stars, first_rated, max(hour for hour, *_ in latest) * HOUR_S, decayed)

    def _item_windows(self, movie_id: int, end_hour: int) -> list[tuple[int, int]]:
        """(n, half stars) per window that ends where ``end_hour`` begins: whole days inside, hours at both edges."""
        starts = [end_hour - seconds // HOUR_S for seconds in WINDOWS_S.values()]
        end_day = end_hour // 24
        edges = {end_day, *(start // 24 for start in starts)}
        edge_hours = [hour for day in sorted(edges) for hour in _hours_of(day)]
        hours = self._buckets("item_hours", "hour", movie_id, edge_hours)
        days = self._buckets("item_days", "day", movie_id, range(min(edges) + 1, end_day))
        windows = []
        for start in starts:
            first_whole_day = start // 24 + 1
            n = half_stars = 0
            for hour, count, stars in hours:
                at_edge = hour < first_whole_day * 24 or hour >= end_day * 24
                if start <= hour < end_hour and at_edge:
                    n, half_stars = n + count, half_stars + stars
            for day, count, stars in days:
                if day >= first_whole_day:
                    n, half_stars = n + count, half_stars + stars
            windows.append((n, half_stars))
        return windows

    def _buckets(self, table: str, bucket: str, movie_id: int, wanted: Iterable[int]) -> list[tuple[int, ...]]:
        """(bucket, n, half stars) of one movie for the wanted buckets that have any."""
        return self._rows(
            f"SELECT {bucket}, sum(n), sum(half_stars) FROM {table}"
            f" WHERE {bucket} = ANY(?) AND movie_id = ? GROUP BY {bucket}",
            list(wanted),
            movie_id,
        )

    def popular(self, window_s: int = 28 * DAY_S, as_of: int | None = None, k: int = 10) -> list[PopularItem]:
        """The ``k`` most rated movies of the whole days before ``as_of`` (by default the clock's day included)."""
        with self.snapshot():
            end_day = self.clock() // DAY_S + 1 if as_of is None else as_of // DAY_S
            rows = self._rows(
                "SELECT movie_id, sum(n), sum(half_stars) FROM item_days WHERE day >= ? AND day < ?"
                " GROUP BY movie_id ORDER BY sum(n) DESC, sum(half_stars) DESC, movie_id LIMIT ?",
                *(end_day - window_s // DAY_S, end_day, k),
            )
        return [PopularItem(movie_id, n, half_stars / 2 / n, n) for movie_id, n, half_stars in rows]

    def popular_decayed(self, as_of: int | None = None, k: int = 10) -> list[PopularItem]:
        """The ``k`` movies of the highest decayed popularity, now or over the whole days before ``as_of``'s own."""
        half_life = self.settings.popularity_half_life_days

        with self.snapshot():
            if as_of is None:
                end_day = self.clock() // DAY_S + 1
                rows = self._rows(
                    "SELECT movie_id, sum(n), sum(half_stars), sum(decayed) AS score FROM items"
                    " GROUP BY movie_id ORDER BY score DESC, movie_id LIMIT ?",
                    k,
                )
            else:
                end_day = as_of // DAY_S
                weight = self.database.day_weight(half_life)
                rows = self._rows(
                    f"SELECT movie_id, sum(n), sum(half_stars), sum(n * {weight}) AS score FROM item_days"
                    " WHERE day < ? GROUP BY movie_id ORDER BY score DESC, movie_id LIMIT ?",
                    *(end_day, k),
                )
        scale = age_scale(end_day, half_life)
        return [PopularItem(movie_id, n, half / 2 / n, score * scale) for movie_id, n, half, score in rows]

"""Reading features, now and as of an event time, by any process while ingest runs.

"Now" is everything applied, the running hour included. As of T only whole buckets before T's own count: what is read
may be an hour old and never holds anything from T on. ``history`` is exact at any time. Each call is one short read
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from featurestore.aggregate import Bools, last_session
from featurestore.schema import HISTORY_DTYPE
from featurestore.sqlite import connect_reader, database_path, store_errors
from streams.events import DAY_S, HOUR_S
from streams.records import Int64s

__all__ = ["WINDOWS_S", "AppliedOffset", "FeatureReader", "History", "ItemFeatures", "PopularItem", "UserFeatures"]

Float64s = npt.NDArray[np.float64]

WINDOWS_S = {"1h": HOUR_S, "1d": DAY_S, "7d": 7 * DAY_S, "28d": 28 * DAY_S}
"""The rolling windows, by name, in seconds of event time."""


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """Columns of shape (n,), one row per user asked for; users without ratings are not ``known`` and hold zeros.

    mean_rating: stars, NaN for unknown users. first_rated, last_rated, session_start: seconds since the epoch. The
    session is the last one in event time: ratings with gaps under the store's session gap (30 minutes by default).
    """

    user_id: Int64s
    known: Bools
    n_ratings: Int64s
    mean_rating: Float64s
    first_rated: Int64s
    last_rated: Int64s
    session_start: Int64s
    session_n: Int64s


@dataclass(frozen=True, slots=True, eq=False)
class ItemFeatures:
    """Columns of shape (n,), one row per movie asked for; ``window_n`` and ``window_mean`` by window name.

    Means are in stars, NaN where nothing was rated. last_rated is exact now, and as of T the start of the last hour
    in which the movie was rated. ``as_of`` is the event time that the windows end at.
    """

    movie_id: Int64s
    known: Bools
    n_ratings: Int64s
    mean_rating: Float64s
    first_rated: Int64s
    last_rated: Int64s
    window_n: dict[str, Int64s]
    window_mean: dict[str, Float64s]
    as_of: int


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
    """A movie and its ratings within a window; ``mean_rating`` in stars."""

    movie_id: int
    n_ratings: int
    mean_rating: float


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


def _json(values: Iterable[int]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _hours_of(day: int) -> range:
    return range(day * 24, day * 24 + 24)


def _mean(half_stars: Int64s, n: Int64s) -> Float64s:
    mean: Float64s = np.divide(half_stars / 2.0, n, out=np.full(len(n), np.nan), where=n > 0)
    return mean


class FeatureReader:
    """A read-only view on a feature store. Not thread-safe: one per thread. Raises StoreError if there is no store."""

    def __init__(self, url: str) -> None:
        self.path = database_path(url)
        self._connection = connect_reader(self.path)
        with store_errors(self.path):
            rows = self._connection.execute("SELECT key, value FROM meta").fetchall()
        self.settings: dict[str, str] = dict(rows)
        """What the store was built with: schema_version, lateness_s, session_gap_s."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several reads of one state of the store. Keep it short: while it lasts the write-ahead log only grows.

        Within a snapshot another one is the same.
        """
        if self._connection.in_transaction:
            yield
            return
        with store_errors(self.path):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    def _rows(self, sql: str, *arguments: object) -> list[tuple[int, ...]]:
        with store_errors(self.path):
            return self._connection.execute(sql, arguments).fetchall()

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

    def outbox_size(self) -> int:
        """Records that are written and not yet acknowledged by the bus."""
        ((size,),) = self._rows("SELECT count(*) FROM outbox")
        return int(size)

    # Users

    def history(self, user_id: int, before: int | None = None) -> History:
        """The user's ratings with a timestamp below ``before`` (all of them by default), oldest first."""
        blocks = self._rows("SELECT ratings FROM user_history WHERE user_id = ? ORDER BY partition, block", user_id)
        ratings = np.frombuffer(b"".join(block for (block,) in blocks), HISTORY_DTYPE)  # type: ignore[misc]
        if before is not None:
            ratings = ratings[ratings["timestamp"] < before]
        ratings = ratings[np.lexsort((ratings["movie_id"], ratings["timestamp"]))]
        return History(
            timestamp=ratings["timestamp"].astype(np.int64),
            movie_id=ratings["movie_id"].astype(np.int64),
            rating=ratings["half_stars"] / 2.0,
            late=ratings["late"].astype(bool),
        )

    def get_user_features(self, user_ids: Sequence[int] | Int64s, as_of: int | None = None) -> UserFeatures:
        """Features of each user, now or as of an event time (exact: from the history before it)."""
        wanted = np.asarray(user_ids, np.int64)
        users = wanted.tolist()
        with self.snapshot():
            rows = self._user_rows(users) if as_of is None else self._user_rows_as_of(users, as_of)
        nothing = (0,) * 6
        values = np.array([rows.get(u, nothing) for u in users], np.int64).reshape(-1, 6)
        n = values[:, 0]
        return UserFeatures(
            user_id=wanted,
            known=n > 0,
            n_ratings=n,
            mean_rating=_mean(values[:, 1], n),
            first_rated=values[:, 2],
            last_rated=values[:, 3],
            session_start=values[:, 4],
            session_n=values[:, 5],
        )

    def _user_rows(self, user_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        rows: dict[int, tuple[int, ...]] = {}
        for user_id, *row in self._rows(
            "SELECT user_id, n, half_stars, first_rated, last_rated, session_start, session_n FROM users"
            " WHERE user_id IN (SELECT value FROM json_each(?))",
            _json(user_ids),
        ):
            rows[user_id] = tuple(row) if user_id not in rows else self._row_from_history(user_id, None)
        return rows

    def _user_rows_as_of(self, user_ids: Sequence[int], as_of: int) -> dict[int, tuple[int, ...]]:
        return {user_id: self._row_from_history(user_id, as_of) for user_id in set(user_ids)}

    def _row_from_history(self, user_id: int, before: int | None) -> tuple[int, ...]:
        """A user's row from their history: as of a time, or when their ratings came on several partitions."""
        history = self.history(user_id, before)
        if not len(history):
            return (0,) * 6
        session = last_session(history.timestamp, int(self.settings["session_gap_s"]))
        half_stars = int((history.rating * 2).sum())
        return (len(history), half_stars, int(history.timestamp[0]), int(history.timestamp[-1]), *session)

    def user_ids(self, limit: int) -> list[int]:
        """The lowest ``limit`` ids of users with ratings."""
        return [user_id for (user_id,) in self._rows("SELECT DISTINCT user_id FROM users LIMIT ?", limit)]

    # Items

    def get_item_features(self, movie_ids: Sequence[int] | Int64s, as_of: int | None = None) -> ItemFeatures:
        """Features of each movie, now or as of an event time."""
        wanted = np.asarray(movie_ids, np.int64)
        movies = wanted.tolist()
        with self.snapshot():
            end = self._now_hour() if as_of is None else as_of // HOUR_S
            totals = [self._item_totals(m) if as_of is None else self._item_totals_as_of(m, end) for m in movies]
            windows = [self._item_windows(m, end) for m in movies]
        total = np.array(totals, np.int64).reshape(-1, 4)
        window = np.array(windows, np.int64).reshape(-1, len(WINDOWS_S), 2)
        return ItemFeatures(
            movie_id=wanted,
            known=total[:, 0] > 0,
            n_ratings=total[:, 0],
            mean_rating=_mean(total[:, 1], total[:, 0]),
            first_rated=total[:, 2],
            last_rated=total[:, 3],
            window_n={name: window[:, i, 0] for i, name in enumerate(WINDOWS_S)},
            window_mean={name: _mean(window[:, i, 1], window[:, i, 0]) for i, name in enumerate(WINDOWS_S)},
            as_of=end * HOUR_S,
        )

    def movie_ids(self, limit: int) -> list[int]:
        """The lowest ``limit`` ids of movies with ratings."""
        return [movie_id for (movie_id,) in self._rows("SELECT DISTINCT movie_id FROM items LIMIT ?", limit)]

    def _now_hour(self) -> int:
        """The hour after the running one, so that windows which end at it hold the running bucket."""
        return self.clock() // HOUR_S + 1

    def _item_totals(self, movie_id: int) -> tuple[int, ...]:
        ((n, half_stars, first, last),) = self._rows(
            "SELECT sum(n), sum(half_stars), min(first_rated), max(last_rated) FROM items WHERE movie_id = ?", movie_id
        )
        return (n, half_stars, first, last) if n else (0, 0, 0, 0)

    def _item_totals_as_of(self, movie_id: int, end_hour: int) -> tuple[int, ...]:
        """Whole days before the last one, then its hours: one look-up per bucket, since the bucket leads the key."""
        _, _, first_rated, last_rated = self._item_totals(movie_id)
        end_day = end_hour // 24
        if not first_rated or first_rated // HOUR_S >= end_hour:
            return (0, 0, 0, 0)
        last_day = min(end_day - 1, last_rated // DAY_S)
        days = self._buckets("item_days", "day", movie_id, range(first_rated // DAY_S, last_day + 1))
        hours = self._buckets("item_hours", "hour", movie_id, range(end_day * 24, end_hour))
        latest = hours or self._buckets("item_hours", "hour", movie_id, _hours_of(max(day for day, *_ in days)))
        n = sum(row[1] for row in (*days, *hours))
        return (n, sum(row[2] for row in (*days, *hours)), first_rated, max(hour for hour, *_ in latest) * HOUR_S)

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
            f" WHERE {bucket} IN (SELECT value FROM json_each(?)) AND movie_id = ? GROUP BY {bucket}",
            _json(wanted),
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
        return [PopularItem(movie_id, n, half_stars / 2 / n) for movie_id, n, half_stars in rows]

"""What ratings add to every view, worked out before the write lock is taken, then written inside a transaction."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec
import numpy as np

from featurestore.aggregate import (
    Accepted,
    Bools,
    BucketSums,
    ItemTotals,
    UserTotals,
    bucket_sums,
    group_by_user,
    history_blocks,
    item_totals,
    last_session,
    merge_users,
    taste_sums,
)
from featurestore.catalogue import Catalogue
from featurestore.decay import Float64s
from featurestore.schema import HISTORY_DTYPE, TASTE_DTYPE
from featurestore.sqlite import insert_rows
from featurestore.view_settings import ViewSettings
from streams.records import Int64s

__all__ = ["Views"]

_ADD_SUMS = "ON CONFLICT DO UPDATE SET n = n + excluded.n, half_stars = half_stars + excluded.half_stars"
_ADD_TOTALS = (
    f"{_ADD_SUMS}, decayed = decayed + excluded.decayed, first_rated = min(first_rated, excluded.first_rated),"
    " last_rated = max(last_rated, excluded.last_rated)"
)
_USER_COLUMNS = ("n", "half_stars", "first_rated", "last_rated", "session_start", "session_n")
_REPLACE_USER = "ON CONFLICT DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in (*_USER_COLUMNS, "taste")
)
_APPEND_BLOCK = (
    "INSERT INTO user_history VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET ratings = CAST(ratings || excluded.ratings AS BLOB)"  # || alone gives text
)


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What accepted ratings add to every view, worked out before the write lock is taken."""

    ratings: Accepted
    hours: BucketSums
    days: BucketSums
    items: ItemTotals
    users: UserTotals
    taste: Float64s
    order: Int64s
    start: Int64s

    @classmethod
    def of(cls, ratings: Accepted, settings: ViewSettings, catalogue: Catalogue) -> Views:
        hours, days = bucket_sums(ratings)
        items = item_totals(ratings, settings.popularity_half_life_days)
        users, order, start = group_by_user(ratings, settings.session_gap_s)
        taste = taste_sums(ratings, order, users.n, settings.taste_half_life_days, catalogue)
        return cls(ratings, hours, days, items, users, taste, order, start)

    def write(self, connection: sqlite3.Connection, session_gap_s: int) -> None:
        for table, sums in (("item_hours", self.hours), ("item_days", self.days)):
            columns = [sums.bucket, sums.movie_id, sums.partition, sums.n, sums.half_stars]
            insert_rows(connection, table, columns, _ADD_SUMS)
        items = self.items
        totals = [items.movie_id, items.partition, items.n, items.half_stars, items.first_rated, items.last_rated]
        insert_rows(connection, "items", [*totals, items.decayed.tolist()], _ADD_TOTALS)
        self._write_users(connection, session_gap_s)

    def _write_users(self, connection: sqlite3.Connection, session_gap_s: int) -> None:
        stored, known, stored_taste = _read_users(connection, self.users, self.taste.shape)
        merged, unsettled = merge_users(stored, known, self.users, session_gap_s)
        n_before = merged.n - self.users.n
        self._append_history(connection, n_before)
        for row in unsettled.tolist():
            timestamps = _read_timestamps(connection, int(merged.user_id[row]), int(merged.partition[row]))
            merged.session_start[row], merged.session_n[row] = last_session(timestamps, session_gap_s)
        insert_rows(
            connection,
            "users",
            [
                *(merged.user_id, merged.partition, merged.n, merged.half_stars),
                *(merged.first_rated, merged.last_rated, merged.session_start, merged.session_n),
                [row.tobytes() for row in (stored_taste + self.taste).astype(TASTE_DTYPE)],
            ],
            _REPLACE_USER,
        )

    def _append_history(self, connection: sqlite3.Connection, n_before: Int64s) -> None:
        blocks = history_blocks(self.ratings, self.order, self.start, n_before)
        view = memoryview(blocks.data)
        cuts = blocks.start.tolist()
        rows = zip(
            self.users.user_id[blocks.group].tolist(),
            self.users.partition[blocks.group].tolist(),
            blocks.block.tolist(),
            (view[a:b] for a, b in pairwise(cuts)),
            strict=True,
        )
        connection.executemany(_APPEND_BLOCK, rows)


def _read_users(
    connection: sqlite3.Connection, wanted: UserTotals, taste_shape: tuple[int, ...]
) -> tuple[UserTotals, Bools, Float64s]:
    """The stored rows of the wanted (user, partition)s, aligned with them, which of them exist, and their taste."""
    distinct = msgspec.json.encode(np.unique(wanted.user_id).tolist()).decode()
    rows = connection.execute(
        f"SELECT user_id, partition, taste, {', '.join(_USER_COLUMNS)} FROM users"
        " WHERE user_id IN (SELECT value FROM json_each(?))",
        (distinct,),
    ).fetchall()
    found = {(row[0], row[1]): row[2:] for row in rows}
    nothing = (bytes(math.prod(taste_shape[1:]) * TASTE_DTYPE.itemsize), *(0,) * len(_USER_COLUMNS))
    keys = list(zip(wanted.user_id.tolist(), wanted.partition.tolist(), strict=True))
    known = np.fromiter((key in found for key in keys), bool, len(keys))
    stored = [found.get(key, nothing) for key in keys]
    values = np.array([row[1:] for row in stored], np.int64).reshape(len(keys), len(_USER_COLUMNS))
    columns = {name: values[:, i] for i, name in enumerate(_USER_COLUMNS)}
    taste = np.frombuffer(b"".join([row[0] for row in stored]), TASTE_DTYPE).reshape(taste_shape)
    return replace(wanted, **columns), known, taste


def _read_timestamps(connection: sqlite3.Connection, user_id: int, partition: int) -> Int64s:
    blocks = connection.execute(
        "SELECT ratings FROM user_history WHERE user_id = ? AND partition = ?", (user_id, partition)
    ).fetchall()
    return np.frombuffer(b"".join(block for (block,) in blocks), HISTORY_DTYPE)["timestamp"].astype(np.int64)

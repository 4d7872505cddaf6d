"""What ratings add to every view, worked out before the write lock is taken, then written inside a transaction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

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
from featurestore.database import Database
from featurestore.decay import Float64s
from featurestore.schema import HISTORY_DTYPE, TASTE_DTYPE, item_days, item_hours, items, user_history, users
from featurestore.view_settings import ViewSettings
from streams.records import Int64s

__all__ = ["Views"]

_USER_COLUMNS = ("n", "half_stars", "first_rated", "last_rated", "session_start", "session_n")


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

    def write(self, database: Database, session_gap_s: int) -> None:
        for table, sums in ((item_hours, self.hours), (item_days, self.days)):
            database.merge(table, [sums.bucket, sums.movie_id, sums.partition, sums.n, sums.half_stars])
        totals = self.items
        database.merge(
            items,
            [
                *(totals.movie_id, totals.partition, totals.n, totals.half_stars),
                *(totals.first_rated, totals.last_rated),
                totals.decayed,
            ],
        )
        self._write_users(database, session_gap_s)

    def _write_users(self, database: Database, session_gap_s: int) -> None:
        stored, known, stored_taste = _read_users(database, self.users, self.taste.shape)
        merged, unsettled = merge_users(stored, known, self.users, session_gap_s)
        n_before = merged.n - self.users.n
        self._append_history(database, n_before)
        for row in unsettled.tolist():
            timestamps = _read_timestamps(database, int(merged.user_id[row]), int(merged.partition[row]))
            merged.session_start[row], merged.session_n[row] = last_session(timestamps, session_gap_s)
        database.merge(
            users,
            [
                *(merged.user_id, merged.partition, merged.n, merged.half_stars),
                *(merged.first_rated, merged.last_rated, merged.session_start, merged.session_n),
                [row.tobytes() for row in (stored_taste + self.taste).astype(TASTE_DTYPE)],
            ],
        )

    def _append_history(self, database: Database, n_before: Int64s) -> None:
        blocks = history_blocks(self.ratings, self.order, self.start, n_before)
        view = memoryview(blocks.data)
        cuts = blocks.start.tolist()
        database.merge(
            user_history,
            [
                self.users.user_id[blocks.group],
                self.users.partition[blocks.group],
                blocks.block,
                [view[a:b] for a, b in pairwise(cuts)],
            ],
        )


def _read_users(
    database: Database, wanted: UserTotals, taste_shape: tuple[int, ...]
) -> tuple[UserTotals, Bools, Float64s]:
    """The stored rows of the wanted (user, partition)s, aligned with them, which of them exist, and their taste."""
    rows = database.rows(
        f"SELECT user_id, partition, taste, {', '.join(_USER_COLUMNS)} FROM users WHERE user_id = ANY(?)",
        np.unique(wanted.user_id).tolist(),
    )
    found = {(row[0], row[1]): row[2:] for row in rows}
    nothing = (bytes(math.prod(taste_shape[1:]) * TASTE_DTYPE.itemsize), *(0,) * len(_USER_COLUMNS))
    keys = list(zip(wanted.user_id.tolist(), wanted.partition.tolist(), strict=True))
    known = np.fromiter((key in found for key in keys), bool, len(keys))
    stored = [found.get(key, nothing) for key in keys]
    values = np.array([row[1:] for row in stored], np.int64).reshape(len(keys), len(_USER_COLUMNS))
    columns = {name: values[:, i] for i, name in enumerate(_USER_COLUMNS)}
    taste = np.frombuffer(b"".join([row[0] for row in stored]), TASTE_DTYPE).reshape(taste_shape)
    return replace(wanted, **columns), known, taste


def _read_timestamps(database: Database, user_id: int, partition: int) -> Int64s:
    blocks = database.rows("SELECT ratings FROM user_history WHERE user_id = ? AND partition = ?", user_id, partition)
    return np.frombuffer(b"".join(block for (block,) in blocks), HISTORY_DTYPE)["timestamp"].astype(np.int64)

"""What the store held at one moment, copied to a SQLite file so that ``verify`` can take its time over it."""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.database import copy_store, store_label
from featurestore.schema import (
    HISTORY_BLOCK_SIZE,
    HISTORY_DTYPE,
    TASTE_DTYPE,
    item_days,
    item_hours,
    items,
    user_history,
    users,
)
from streams.errors import StoreError, StoreUnavailable
from streams.records import Int64s
from streams.sqlite import sqlite_errors

__all__ = [
    "DECAY_COLUMNS",
    "HISTORY_COLUMNS",
    "SUM_VIEWS",
    "TASTE_COLUMNS",
    "Column",
    "DamagedBlock",
    "DamagedTaste",
    "StoreCopy",
    "open_copy",
]

Column = Int64s | npt.NDArray[np.float64]

SUM_VIEWS = {
    table.name: tuple(c.name for c in table.columns if c.name not in ("partition", "decayed", "taste"))
    for table in (item_hours, item_days, items, users)
}
"""The integer columns of each view that is a table of sums, its key first; one partition is looked at at a time."""

DECAY_COLUMNS = ("movie_id", "decayed")
TASTE_COLUMNS = ("user_id", "genre", "n", "half_stars")
"""``users.taste`` unpacked: ``genre`` counts in the catalogue's order; n and half_stars are weighted sums."""

HISTORY_COLUMNS = ("user_id", "position", "timestamp", "movie_id", "half_stars", "late")
"""A history block unpacked: ``position`` counts a user's ratings in log order from 0."""

_PAGE_ROWS = 50_000
_PAGE_BLOCKS = 2_000


@dataclass(frozen=True, slots=True)
class DamagedBlock:
    """A history block whose size no whole number of ratings, from 1 to a full block, can have."""

    user_id: int
    block: int
    size: int


@dataclass(frozen=True, slots=True)
class DamagedTaste:
    """A user whose taste is not two numbers for each genre."""

    user_id: int
    size: int


@dataclass(frozen=True, slots=True)
class StoreCopy:
    """A private copy of a feature store. Calls may come from any thread, one at a time."""

    label: str
    connection: sqlite3.Connection

    def close(self) -> None:
        self.connection.close()

    def errors(self) -> AbstractContextManager[None]:
        """Turns what the copy raises on reading into the store's errors."""
        return sqlite_errors(
            f"copy of feature store {self.label}",
            unavailable=StoreUnavailable,
            broken=StoreError,
            repair="`streamlens worker --rebuild` recomputes the store from the log",
        )

    def settings(self) -> dict[str, str]:
        """The ``meta`` table."""
        return dict(self._all("SELECT key, value FROM meta"))

    def applied(self, agent: str, topic: str) -> dict[int, dict[str, Any]]:
        """The ``applied`` row of each partition, by column."""
        cursor = self.connection.execute("SELECT * FROM applied WHERE agent = ? AND topic = ?", (agent, topic))
        names = [column[0] for column in cursor.description]
        rows = (dict(zip(names, row, strict=True)) for row in cursor)
        return {row["partition"]: row for row in rows}

    def partitions(self) -> set[int]:
        """Every partition that some row of some view belongs to."""
        tables = ("applied", "sources", *SUM_VIEWS, user_history.name)
        found = (self._all(f"SELECT DISTINCT partition FROM {table}") for table in tables)
        return {partition for rows in found for (partition,) in rows}

    def sources(self, agent: str, topic: str, partition: int) -> dict[str, int]:
        """Per source the highest id applied."""
        where = "agent = ? AND topic = ? AND partition = ?"
        rows = self._all(f"SELECT source, digest, event_id FROM sources WHERE {where}", agent, topic, partition)
        return {_source_name(source, digest): event_id for source, digest, event_id in rows}

    def outbox(self, agent: str, topic: str) -> Iterator[bytes]:
        """Values that are still to be published to ``topic``."""
        for (value,) in self.connection.execute(
            "SELECT value FROM outbox WHERE agent = ? AND topic = ?", (agent, topic)
        ):
            yield value

    def rows(self, view: str, partition: int) -> Iterator[Sequence[Int64s]]:
        """One partition of a view of SUM_VIEWS, page by page, as one array per column."""
        columns = SUM_VIEWS[view]
        cursor = self.connection.execute(f"SELECT {', '.join(columns)} FROM {view} WHERE partition = ?", (partition,))
        while page := cursor.fetchmany(_PAGE_ROWS):
            yield self._integers(view, page, len(columns))

    def movies(self) -> list[tuple[int, str, int | None, str]]:
        """The ``movies`` table, by rising id."""
        return self._all("SELECT movie_id, title, year, genres FROM movies ORDER BY movie_id")

    def decayed(self, partition: int) -> Iterator[Sequence[Column]]:
        """``items.decayed`` of one partition as DECAY_COLUMNS, page by page."""
        cursor = self.connection.execute("SELECT movie_id, decayed FROM items WHERE partition = ?", (partition,))
        while page := cursor.fetchmany(_PAGE_ROWS):
            movie_id, decayed = zip(*page, strict=True)
            yield [np.array(movie_id, np.int64), np.array(decayed, np.float64)]

    def taste(self, partition: int, n_genres: int) -> Iterator[tuple[Sequence[Column], list[DamagedTaste]]]:
        """``users.taste`` of one partition as TASTE_COLUMNS, page by page, genres of no weight left out; and the
        users whose taste has another size."""
        size = 2 * n_genres * TASTE_DTYPE.itemsize
        cursor = self.connection.execute("SELECT user_id, taste FROM users WHERE partition = ?", (partition,))
        while page := cursor.fetchmany(_PAGE_BLOCKS):
            whole: list[tuple[int, bytes]] = []
            damaged: list[DamagedTaste] = []
            for user_id, taste in page:
                if isinstance(taste, bytes) and len(taste) == size:
                    whole.append((user_id, taste))
                else:
                    damaged.append(DamagedTaste(user_id, len(taste) if isinstance(taste, bytes | str) else 0))
            sums = np.frombuffer(b"".join([taste for _, taste in whole]), TASTE_DTYPE).reshape(len(whole), n_genres, 2)
            user, genre = np.nonzero(sums.any(axis=2))
            ids = np.array([user_id for user_id, _ in whole], np.int64)
            yield [ids[user], genre.astype(np.int64), sums[user, genre, 0], sums[user, genre, 1]], damaged

    def history(self, partition: int) -> Iterator[tuple[list[Int64s], list[DamagedBlock]]]:
        """One partition of ``user_history``, unpacked to HISTORY_COLUMNS page by page, and what cannot be unpacked."""
        cursor = self.connection.execute(
            "SELECT user_id, block, ratings FROM user_history WHERE partition = ?", (partition,)
        )
        while page := cursor.fetchmany(_PAGE_BLOCKS):
            whole, damaged = [], []
            for user_id, block, ratings in page:
                count, rest = divmod(len(ratings), HISTORY_DTYPE.itemsize)
                if rest or not 1 <= count <= HISTORY_BLOCK_SIZE or not isinstance(ratings, bytes):
                    damaged.append(DamagedBlock(user_id, block, len(ratings)))
                else:
                    whole.append((user_id, block, count, ratings))
            yield _unpack(whole), damaged

    def _all(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, parameters).fetchall()

    def _integers(self, view: str, rows: Iterable[tuple[int, ...]], width: int) -> list[Int64s]:
        try:
            flat = array("q", chain.from_iterable(rows))  # unlike numpy it takes no float for an integer
        except (TypeError, OverflowError) as error:
            raise StoreError(
                f"feature store table {view}: expected 64-bit integers, found another value ({error}); "
                "`streamlens worker --rebuild` recomputes the store from the log"
            ) from error
        table = np.frombuffer(flat, np.int64).reshape(-1, width)
        return [np.ascontiguousarray(table[:, column]) for column in range(width)]


def _source_name(source: bytes, digest: bytes) -> str:
    name = bytes(source).decode(errors="replace")
    return name if hashlib.sha256(source).digest()[:16] == digest else f"{name} under the digest {digest!r}"


def _unpack(blocks: list[tuple[int, int, int, bytes]]) -> list[Int64s]:
    ratings = np.frombuffer(b"".join(block[3] for block in blocks), HISTORY_DTYPE)
    counts = np.array([block[2] for block in blocks], np.int64)
    first = np.array([block[1] for block in blocks], np.int64) * HISTORY_BLOCK_SIZE
    within = np.arange(len(ratings)) - np.repeat(np.cumsum(counts) - counts, counts)
    return [
        np.repeat(np.array([block[0] for block in blocks], np.int64), counts),
        np.repeat(first, counts) + within,
        *(np.ascontiguousarray(ratings[name], np.int64) for name in HISTORY_COLUMNS[2:]),
    ]


def open_copy(store_url: str, folder: Path) -> StoreCopy:
    """Copy the store into ``folder``. Raises as :func:`featurestore.database.copy_store`."""
    copy = copy_store(store_url, folder / "store.db")
    return StoreCopy(store_label(store_url), sqlite3.connect(copy, isolation_level=None, check_same_thread=False))

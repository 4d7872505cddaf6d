"""The tables of a feature store, with the meaning of every column.

Every feature is a partial sum per partition of the input topic, merged on read: no two workers ever write the same
row. Times are seconds since the epoch; hours and days are event time divided by 3,600 and 86,400, rounded down.
Counts and sums of half stars are integers, so any order of adding gives the same result.

The tables are the same on SQLite and PostgreSQL. How a row that is written merges with the one that is there, column by
column, stands in ``Column.info["merge"]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table, Text

__all__ = [
    "ADD",
    "APPEND",
    "HISTORY_BLOCK_SIZE",
    "HISTORY_DTYPE",
    "MAXIMUM",
    "MINIMUM",
    "REPLACE",
    "SCHEMA_VERSION",
    "TASTE_DTYPE",
    "ColumnValues",
    "applied",
    "item_days",
    "item_hours",
    "items",
    "meta",
    "metadata",
    "movies",
    "outbox",
    "sources",
    "user_history",
    "users",
]

SCHEMA_VERSION = 3

HISTORY_BLOCK_SIZE = 1024
"""Ratings in a full history block: an append rewrites at most one block of 18 KiB."""

HISTORY_DTYPE = np.dtype([("timestamp", "<i8"), ("movie_id", "<i8"), ("half_stars", "u1"), ("late", "u1")])
"""One rating within ``user_history.ratings``: packed, little-endian, 18 bytes."""

TASTE_DTYPE = np.dtype("<f8")
"""``users.taste``: sums of forward weights, genre by genre in the order of the catalogue's ``genres``."""

ADD, MINIMUM, MAXIMUM, REPLACE, APPEND = "add", "minimum", "maximum", "replace", "append"
"""How a column merges: what is there plus what comes, the lower, the higher, what comes, or what comes put behind."""

ColumnValues = npt.NDArray[np.int64] | npt.NDArray[np.float64] | Sequence[object]
"""The values of a column, of as many rows as there are to write."""

metadata = MetaData()


def _key(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _int(name: str, default: str | None = None, *, merge: str = "") -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=default, info={"merge": merge})


def _name(name: str) -> Column[str]:
    return Column(name, String, primary_key=True)


meta = Table(
    "meta",
    metadata,
    # schema_version, the ViewSettings by name, `catalogue`: the fingerprint of `movies`, `store_id`: random, so that a
    # store that was built anew is not taken for the one before it.
    _name("key"),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
)

applied = Table(
    "applied",
    metadata,
    _name("agent"),
    _name("topic"),
    _key("partition"),
    Column("log_id", String, nullable=False),  # which log the offsets count in
    _int("epoch"),  # raised by each new writer; a writer with an older one is refused
    _int("next_offset", "0"),  # all below is applied
    _int("clock", "0"),  # event time of the last tick, heartbeats included
    _int("closed", "0"),  # event time of the last boundary tick: lateness is judged by it
    Column("end_of_run", Boolean, nullable=False, server_default="0"),
    _int("ratings", "0"),  # valid, not duplicate; late ones included
    _int("duplicates", "0"),
    _int("late", "0"),
    _int("invalid", "0"),
    _int("emitted", "0"),  # records written to the outbox so far: their event_id
    _int("published_ms", "0"),  # publishing time of the last record applied
    _int("applied_ms", "0"),  # wall time of the last transaction
    sqlite_with_rowid=False,
)

# Movie metadata, written with the store: users' taste depends on the genres.
movies = Table(
    "movies",
    metadata,
    _key("movie_id"),
    Column("title", Text, nullable=False),
    Column("year", Integer),
    Column("genres", Text, nullable=False),  # a JSON list
    sqlite_with_rowid=False,
)

sources = Table(
    "sources",
    metadata,
    _name("agent"),
    _name("topic"),
    _key("partition"),
    Column("digest", LargeBinary, primary_key=True),  # of the source, SHA-256, 16 bytes: a key of bounded length
    Column("source", LargeBinary, nullable=False),  # in UTF-8; foreign producers may put anything there
    _int("event_id"),  # the highest applied
    sqlite_with_rowid=False,
)

# Bucket first: event time rises, so inserts land at the right-hand edge of the tree and stay in the page cache.
item_hours = Table(
    "item_hours",
    metadata,
    _key("hour"),
    _key("movie_id"),
    _key("partition"),
    _int("n", merge=ADD),
    _int("half_stars", merge=ADD),
    sqlite_with_rowid=False,
)

item_days = Table(
    "item_days",
    metadata,
    _key("day"),
    _key("movie_id"),
    _key("partition"),
    _int("n", merge=ADD),
    _int("half_stars", merge=ADD),
    sqlite_with_rowid=False,
)

items = Table(
    "items",
    metadata,
    _key("movie_id"),
    _key("partition"),
    _int("n", merge=ADD),
    _int("half_stars", merge=ADD),
    _int("first_rated", merge=MINIMUM),
    _int("last_rated", merge=MAXIMUM),
    # Sum of day_weights, relative to LANDMARK.
    Column("decayed", Double, nullable=False, info={"merge": ADD}),
    sqlite_with_rowid=False,
)

# A session: the user's ratings, in event time, with gaps under `session_gap_s`; the row keeps the one that ends last.
users = Table(
    "users",
    metadata,
    _key("user_id"),
    _key("partition"),
    _int("n", merge=REPLACE),
    _int("half_stars", merge=REPLACE),
    _int("first_rated", merge=REPLACE),
    _int("last_rated", merge=REPLACE),
    _int("session_start", merge=REPLACE),
    _int("session_n", merge=REPLACE),
    # TASTE_DTYPE, (genres, 2): weighted count and half-star sum of each.
    Column("taste", LargeBinary, nullable=False, info={"merge": REPLACE}),
    sqlite_with_rowid=False,
)

# Ratings in log order, HISTORY_BLOCK_SIZE to a block, so that blocks do not depend on how writes were batched.
user_history = Table(
    "user_history",
    metadata,
    _key("user_id"),
    _key("partition"),
    _key("block"),
    Column("ratings", LargeBinary, nullable=False, info={"merge": APPEND}),  # HISTORY_DTYPE
    sqlite_with_rowid=False,
)

# Records to publish, written with what caused them; a row leaves only after the bus has acknowledged it. Only who holds
# the partition publishes: of one partition, ids rise in the order of the records.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("agent", String, nullable=False),
    _int("partition"),  # of the input topic
    Column("topic", String, nullable=False),  # where it goes
    Column("record_key", LargeBinary),
    Column("value", LargeBinary, nullable=False),
    Index("outbox_by_agent", "agent", "id"),
    # An id is never given again: who still publishes rows that are gone must not forget the ones that came after.
    sqlite_autoincrement=True,
)

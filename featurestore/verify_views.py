"""Recomputing a partition's views from its ratings, and comparing them with the store's, in SQL (DuckDB).

The ratings of one partition at a time lie in a temporary database; what does not fit into the memory limit is spilled
to disk, so that a log of any length can be verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np

from featurestore.decay import LANDMARK
from featurestore.verify_copy import DECAY_COLUMNS, HISTORY_COLUMNS, SUM_VIEWS, TASTE_COLUMNS, Column
from featurestore.verify_log import FACT_COLUMNS, INVALID_COLUMNS
from featurestore.verify_report import MAX_EXAMPLES, Mismatch, ViewReport
from featurestore.view_settings import ViewSettings
from streams.events import DAY_S, HOUR_S
from streams.records import Int64s

__all__ = ["DEAD_LETTERS", "DECAY", "HISTORY", "TASTE", "Recomputation"]

HISTORY = "user_history"
DEAD_LETTERS = "dead_letters"
DECAY = "item_decay"
TASTE = "user_taste"

RELATIVE_ERROR = 1e-9
"""How far decayed sums may be apart: floating point adds up differently in another order."""

_SUMS = "count(*) AS n, sum(half_stars)::BIGINT AS half_stars"

_BUCKETS = """
SELECT "timestamp" // {width} AS {bucket}, movie_id, {sums}
FROM ratings GROUP BY ALL
"""

_ITEMS = """
SELECT movie_id, {sums}, min("timestamp") AS first_rated, max("timestamp") AS last_rated
FROM ratings GROUP BY ALL
"""

# A rating opens a session if it is the user's first or follows the one before it, in event time, by the gap or more;
# the session that ends last is everything from the last opening on.
_USERS = """
WITH paced AS (
    SELECT user_id, half_stars, "timestamp",
        "timestamp" - lag("timestamp") OVER (PARTITION BY user_id ORDER BY "timestamp") AS pause
    FROM ratings
), opened AS (
    SELECT user_id, max("timestamp") AS session_start
    FROM paced WHERE pause IS NULL OR pause >= {session_gap_s} GROUP BY user_id
)
SELECT user_id, {sums}, min("timestamp") AS first_rated, max("timestamp") AS last_rated,
    any_value(session_start) AS session_start,
    count(*) FILTER ("timestamp" >= session_start) AS session_n
FROM ratings JOIN opened USING (user_id) GROUP BY user_id
"""

_HISTORY = """
SELECT user_id, row_number() OVER (PARTITION BY user_id ORDER BY log_offset) - 1 AS "position",
    "timestamp", movie_id, half_stars, late
FROM ratings
"""

_DECAY = """
SELECT movie_id, sum(pow(2.0::DOUBLE, ("timestamp" // 86400 * 86400 - {landmark}) / {half_life_s}::DOUBLE)) AS decayed
FROM ratings GROUP BY movie_id
"""

_TASTE = """
WITH weighted AS (
    SELECT user_id, movie_id, half_stars,
        pow(2.0::DOUBLE, ("timestamp" - {landmark}) / {half_life_s}::DOUBLE) AS weight
    FROM ratings
)
SELECT user_id, genre, sum(weight) AS n, sum(weight * half_stars) AS half_stars
FROM weighted JOIN movie_genres USING (movie_id) GROUP BY user_id, genre
"""

_DEAD_LETTERS = f"SELECT {', '.join(INVALID_COLUMNS)} FROM invalid"

_KEYS = {
    "item_hours": 2,
    "item_days": 2,
    "items": 1,
    "users": 1,
    DECAY: 1,
    TASTE: 2,
    HISTORY: 2,
    DEAD_LETTERS: 1,
}
"""How many of a view's first columns are its key."""

_COLUMNS = {
    **SUM_VIEWS,
    DECAY: DECAY_COLUMNS,
    TASTE: TASTE_COLUMNS,
    HISTORY: HISTORY_COLUMNS,
    DEAD_LETTERS: INVALID_COLUMNS,
}

_INEXACT = {DECAY: ("decayed",), TASTE: ("n", "half_stars")}
"""The columns of a view that are floating-point sums."""

_EQUAL = 'expected."{name}" IS NOT DISTINCT FROM found."{name}"'
_CLOSE = (
    'coalesce(abs(expected."{name}" - found."{name}") <= '
    f'{RELATIVE_ERROR} * greatest(abs(expected."{{name}}"), abs(found."{{name}}")), false)'
)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


class Recomputation:
    """A temporary DuckDB database in ``folder``. Not thread-safe: one call at a time."""

    def __init__(self, folder: Path, settings: ViewSettings, *, memory_limit_mb: int, threads: int) -> None:
        self._connection = duckdb.connect(
            str(folder / "recomputed.duckdb"),
            config={
                "memory_limit": f"{memory_limit_mb}MB",
                "threads": threads,
                "temp_directory": str(folder / "spill"),
                "preserve_insertion_order": False,
            },
        )
        self._expected = {
            "item_hours": _BUCKETS.format(width=HOUR_S, bucket="hour", sums=_SUMS),
            "item_days": _BUCKETS.format(width=DAY_S, bucket="day", sums=_SUMS),
            "items": _ITEMS.format(sums=_SUMS),
            "users": _USERS.format(sums=_SUMS, session_gap_s=settings.session_gap_s),
            DECAY: _DECAY.format(landmark=LANDMARK, half_life_s=settings.popularity_half_life_days * DAY_S),
            TASTE: _TASTE.format(landmark=LANDMARK, half_life_s=settings.taste_half_life_days * DAY_S),
            HISTORY: _HISTORY,
            DEAD_LETTERS: _DEAD_LETTERS,
        }
        self._create("letters", ("partition", *INVALID_COLUMNS))
        self._create("movie_genres", ("movie_id", "genre"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """Make the query that runs in another thread stop with an error."""
        self._connection.interrupt()

    def start_partition(self) -> None:
        """Forget the partition before."""
        self._create("ratings", FACT_COLUMNS)
        self._create("invalid", INVALID_COLUMNS)

    def add_ratings(self, columns: list[Int64s]) -> None:
        self._insert("ratings", FACT_COLUMNS, columns)

    def add_invalid(self, columns: list[Int64s]) -> None:
        self._insert("invalid", INVALID_COLUMNS, columns)

    def add_movie_genres(self, pairs: list[tuple[int, int]]) -> None:
        """Which genres each movie has, by number; for every partition."""
        table = np.array(pairs, np.int64).reshape(-1, 2)
        self._insert("movie_genres", ("movie_id", "genre"), [table[:, 0].copy(), table[:, 1].copy()])

    def add_letters(self, columns: list[Int64s]) -> None:
        """Dead letters of any partition: its number, and INVALID_COLUMNS as they tell it."""
        self._insert("letters", ("partition", *INVALID_COLUMNS), columns)

    def compare(self, view: str, pages: Iterable[Sequence[Column]], partition: int, report: ViewReport) -> None:
        """Compare a view of the partition with the store's rows, given as pages of one array per column."""
        columns = _COLUMNS[view]
        self._create("stored", columns, _INEXACT.get(view, ()))
        for page in pages:
            self._insert("stored", columns, page)
        self._compare(view, "stored", partition, report)

    def compare_dead_letters(self, partition: int, next_offset: int, report: ViewReport) -> None:
        """Each invalid record below ``next_offset`` has a dead letter, and each of those an invalid record."""
        self._connection.execute(
            f"CREATE OR REPLACE TEMP VIEW about AS SELECT DISTINCT {_names(INVALID_COLUMNS)} FROM letters"
            f" WHERE partition = {partition:d} AND log_offset < {next_offset:d}"
        )
        self._compare(DEAD_LETTERS, "about", partition, report)

    def _compare(self, view: str, found: str, partition: int, report: ViewReport) -> None:
        columns, n_keys = _COLUMNS[view], _KEYS[view]
        keys, values = columns[:n_keys], columns[n_keys:]
        inexact = _INEXACT.get(view, ())
        same = " AND ".join((_CLOSE if name in inexact else _EQUAL).format(name=name) for name in values)
        pairs = ", ".join(f'expected."{name}", found."{name}"' for name in values)
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE mismatch AS"
            f" WITH expected AS (SELECT *, true AS there FROM ({self._expected[view]})),"
            f" found AS (SELECT *, true AS there FROM {found})"
            f" SELECT {_names(keys)}, expected.there AS is_expected, found.there AS is_found, {pairs}"
            f" FROM expected FULL OUTER JOIN found USING ({_names(keys)})"
            f" WHERE expected.there IS NULL OR found.there IS NULL OR NOT ({same})"
        )
        (stored,) = self._one(f"SELECT count(*) FROM {found}")
        count, missing = self._one("SELECT count(*), count(*) FILTER (is_found IS NULL) FROM mismatch")
        report.rows += stored + missing
        room = MAX_EXAMPLES - len(report.examples)
        rows = self._connection.execute(f"SELECT * FROM mismatch ORDER BY ALL LIMIT {room:d}").fetchall()
        for row in rows:
            key = {"partition": partition} | dict(zip(keys, row[:n_keys], strict=True))
            is_expected, is_found, *both = row[n_keys:]
            expected, stored_values = (dict(zip(values, both[side::2], strict=True)) for side in (0, 1))
            report.add(Mismatch(key, expected if is_expected else None, stored_values if is_found else None))
        report.mismatches += count - len(rows)

    def _one(self, sql: str) -> tuple[Any, ...]:
        row = self._connection.execute(sql).fetchone()
        assert row is not None
        return row

    def _create(self, table: str, columns: Iterable[str], inexact: Iterable[str] = ()) -> None:
        fields = ", ".join(f'"{name}" {"DOUBLE" if name in inexact else "BIGINT"}' for name in columns)
        self._connection.execute(f"CREATE OR REPLACE TABLE {table} ({fields})")

    def _insert(self, table: str, names: Iterable[str], columns: Sequence[Column]) -> None:
        if not len(columns[0]):
            return
        self._connection.register("page", dict(zip(names, columns, strict=True)))
        self._connection.execute(f"INSERT INTO {table} SELECT {_names(names)} FROM page")
        self._connection.unregister("page")

"""``monitors.db``: the monitors' state, what they asked for, and each closed day's figures, for whoever reads along.

Beside the feature store: a file of its own, on PostgreSQL a schema of its own. ``closed`` moves with each close, the
state more rarely: it is megabytes. Between the two nothing was emitted, so a successor that closes those days again
comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

from agents.retrain_decision import Metrics
from featurestore import schema
from featurestore.database import Database, drop_schema, open_tables, store_label, url_beside
from featurestore.sqlite import database_path, remove_store
from streams.errors import StoreMissing
from streams.events import RATINGS
from streams.postgres_url import is_postgres

__all__ = [
    "REBUILD",
    "ClosedFigures",
    "Decided",
    "Progress",
    "Request",
    "VariantFigures",
    "drop_monitors",
    "metadata",
    "monitors_url",
    "open_monitors",
    "read_decided",
    "read_figures",
    "read_requests",
    "read_state",
    "write_closed",
    "write_days",
    "write_requests",
    "write_state",
]

REBUILD = "`streamlens worker --role monitors --rebuild` monitors the log from its start"

metadata = MetaData()

for _table in (schema.applied, schema.sources, schema.outbox):
    _table.to_metadata(metadata)

monitor = Table(
    "monitor",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    Column("closed", BigInteger, nullable=False),  # event time up to which all days are closed and decided
    Column("saved", BigInteger, nullable=False),  # that of the state
    Column("state", LargeBinary),  # JSON; NULL before the first
    sqlite_with_rowid=False,
)

requests = Table(
    "requests",
    metadata,
    Column("id", String, primary_key=True),  # of the retrain event
    Column("event_time", BigInteger, nullable=False),  # the end of the day that decided
    Column("due", BigInteger, nullable=False),  # when its answer takes effect
    Column("model", String, nullable=False),
    sqlite_with_rowid=False,
)

days = Table(
    "monitor_days",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),  # since the epoch
    Column("figures", LargeBinary, nullable=False),  # ClosedFigures as JSON
    sqlite_with_rowid=False,
)


class Request(NamedTuple):
    """A retrain event that was decided on: the columns of ``requests``."""

    id: str
    event_time: int
    due: int
    model: str


@dataclass(frozen=True, slots=True)
class Progress:
    """closed: event time up to which all is decided, 0 for nothing. state: None before the first."""

    closed: int
    state: bytes | None


class Decided(NamedTuple):
    """closed: event time up to which all is decided. ended: that is the run's end. asked: ids of retrain events."""

    closed: int
    ended: bool
    asked: frozenset[str]


class VariantFigures(msgspec.Struct, frozen=True):
    """Of one variant: measures by name, its CTR since it began with low and high, and the difference from the champion.

    difference: of its CTR, with low and high; None of the champion itself, and where users are too few. simulated:
    made-up users clicked.
    """

    measures: dict[str, float]
    ctr: tuple[float, float, float]
    difference: tuple[float, float, float] | None
    users: int
    simulated: bool = False


class ClosedFigures(msgspec.Struct, frozen=True):
    """A live day as it was closed. version: the champion's. n_late: ratings of days before that counted with it."""

    metrics: Metrics
    alerts: list[str]
    severity: str
    retrain: bool
    version: str | None
    n_late: int
    variants: dict[str, VariantFigures] = {}


def monitors_url(store_url: str) -> str:
    """Where the monitors of the feature store at ``store_url`` keep what is theirs.

    >>> monitors_url("sqlite:///var/features.db"), monitors_url("postgresql://db/x?schema=run_1")
    ('sqlite:///var/monitors.db', 'postgresql://db/x?schema=run_1_monitors')
    """
    return url_beside(store_url, "monitors")


def open_monitors(store_url: str, *, create: bool = False) -> Database:
    """Read-only unless ``create``. Raises StoreMissing where no monitors have run yet."""
    url = monitors_url(store_url)
    missing = StoreMissing(f"monitors {store_label(url)}: not there yet; start `streamlens worker --role monitors`")
    database = open_tables(url, metadata, what="monitors' store", repair=REBUILD, missing=missing, create=create)
    database.hold_identity()
    return database


def drop_monitors(store_url: str) -> None:
    """Throw away what the monitors keep, so that they read the log from its start; requests go with it."""
    url = monitors_url(store_url)
    if is_postgres(url):
        drop_schema(url)
    else:
        remove_store(database_path(url))


def read_state(database: Database) -> Progress:
    rows = database.rows("SELECT closed, state FROM monitor WHERE id = 1")
    return Progress(int(rows[0][0]), rows[0][1] and bytes(rows[0][1])) if rows else Progress(0, None)


def write_state(database: Database, closed: int, state: bytes | None) -> None:
    """Within a transaction."""
    database.execute(
        "INSERT INTO monitor (id, closed, saved, state) VALUES (1, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " closed = excluded.closed, saved = excluded.saved, state = excluded.state",
        *(closed, closed, state),
    )


def write_closed(database: Database, closed: int) -> None:
    """Within a transaction: all days up to ``closed`` are decided; whoever waits for that may go on."""
    database.execute(
        "INSERT INTO monitor (id, closed, saved) VALUES (1, ?, 0)"
        " ON CONFLICT (id) DO UPDATE SET closed = excluded.closed",
        closed,
    )


def write_requests(database: Database, asked: Iterable[Request]) -> None:
    """Within a transaction. One that was written before stays as it was."""
    database.execute_many(
        "INSERT INTO requests (id, event_time, due, model) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", asked
    )


def write_days(database: Database, closed: Sequence[ClosedFigures]) -> None:
    """Within a transaction."""
    database.execute_many(
        "INSERT INTO monitor_days (day, figures) VALUES (?, ?)"
        " ON CONFLICT (day) DO UPDATE SET figures = excluded.figures",
        [(one.metrics.day, msgspec.json.encode(one)) for one in closed],
    )


def read_decided(store_url: str) -> Decided | None:
    """None where no monitors have run yet."""
    try:
        with closing(open_monitors(store_url)) as database, database.snapshot():
            rows = database.rows("SELECT closed FROM monitor WHERE id = 1")
            asked = database.rows("SELECT id FROM requests")
            ends = database.rows("SELECT end_of_run FROM applied WHERE topic = ?", RATINGS)
    except StoreMissing:
        return None
    closed = int(rows[0][0]) if rows else 0
    return Decided(closed, bool(ends) and all(end for (end,) in ends), frozenset(event_id for (event_id,) in asked))


def read_requests(store_url: str) -> list[Request]:
    """What was asked for, in event time. Raises StoreMissing."""
    with closing(open_monitors(store_url)) as database:
        rows = database.rows("SELECT id, event_time, due, model FROM requests ORDER BY event_time, id")
    return [Request(*row) for row in rows]


def read_figures(store_url: str, last: int = 1) -> list[ClosedFigures]:
    """The figures of the ``last`` days that were closed and saved, the oldest first. Raises StoreMissing."""
    with closing(open_monitors(store_url)) as database:
        rows = database.rows("SELECT figures FROM monitor_days ORDER BY day DESC LIMIT ?", last)
    return [msgspec.json.decode(bytes(figures), type=ClosedFigures) for (figures,) in reversed(rows)]

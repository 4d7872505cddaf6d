"""The loop's own store: open sessions, counts, boundaries passed, and records to publish, beside the applied offsets.

A file ``loop.db`` beside the features, or a schema beside theirs on PostgreSQL. Only what a step changed is written,
and records lie in batches as they are published, so that a step of many slates costs a few rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

import msgspec
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

from agents.sessions import Session, ShownSlate
from agents.slate_records import Lines, Tally
from featurestore.aggregate import Cursor
from featurestore.database import Database, drop_store, open_tables, store_label, url_beside
from featurestore.partition_writer import PartitionWriter
from featurestore.schema import applied, outbox, sources
from streams.errors import StoreMissing
from streams.events import RATINGS

__all__ = [
    "LOOP",
    "LoopChanges",
    "LoopWriter",
    "OutgoingRow",
    "PartitionState",
    "drop_loop_store",
    "loop_url",
    "open_loop_store",
]

LOOP = "loop"
"""The agent's name: its Faust app id and consumer group, and its rows in the store."""

_REBUILD = "`streamlens worker --role loop --rebuild` makes slates and feedback anew, under the same ids"

metadata = MetaData()

for table in (applied, sources, outbox):
    table.to_metadata(metadata)


def _key(name: str) -> Column[int]:
    return Column(name, BigInteger, primary_key=True, autoincrement=False)


def _int(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


sessions = Table(
    "sessions",
    metadata,
    _key("partition"),
    _key("user_id"),
    _int("start"),
    _int("last"),
    _int("n"),
    Column("slates", LargeBinary, nullable=False),  # MessagePack: a list of _StoredSlate
    sqlite_with_rowid=False,
)

tallies = Table(
    "tallies",
    metadata,
    _key("partition"),
    Column("variant", String, primary_key=True),
    _int("slates"),
    _int("shown"),  # of slates whose session is over, as clicks
    _int("clicks"),
    sqlite_with_rowid=False,
)

# Those that the gate of aligned mode may still ask for.
boundaries = Table("boundaries", metadata, _key("partition"), _key("event_time"), sqlite_with_rowid=False)

# Batches of records to publish to a partition; a row leaves only after the bus has acknowledged it.
outgoing = Table(
    "outgoing",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    _int("partition"),
    Column("topic", String, nullable=False),
    _int("records"),
    Column("record_keys", LargeBinary, nullable=False),
    Column("lines", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)


class _StoredSlate(msgspec.Struct, array_like=True, gc=False):
    n_before: int
    timestamp: int
    moment: int
    variant: str
    model_version: str
    movie_ids: list[int]
    clicked: list[int]


_decoder = msgspec.msgpack.Decoder(list[_StoredSlate])


class OutgoingRow(NamedTuple):
    """Records to publish; ``id`` orders the rows."""

    id: int
    partition: int
    topic: str
    records: int
    keys: bytes
    lines: bytes


@dataclass(slots=True)
class PartitionState:
    """What the store holds of a partition beside its cursor. boundaries: event times, rising."""

    sessions: list[Session] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    boundaries: list[int] = field(default_factory=list)


@dataclass(slots=True)
class LoopChanges:
    """What a step changes of a partition: sessions that are open, users whose session is gone, tallies as they are now,
    boundaries to be known from now on, and those no longer.
    """

    sessions: Sequence[Session]
    closed_users: Sequence[int]
    tallies: Mapping[str, Tally]
    boundaries: Sequence[int]
    forgotten: Sequence[int]
    records: Sequence[Lines]


def loop_url(store_url: str) -> str:
    """Where the loop of the feature store at ``store_url`` keeps its own."""
    return url_beside(store_url, LOOP)


def open_loop_store(url: str, *, create: bool = False) -> Database:
    """Raises StoreMissing where there is none, and none is to be made."""
    missing = StoreMissing(f"loop store {store_label(url)}: not there yet; start `streamlens worker --role loop`")
    return open_tables(url, metadata, what="loop store", repair=_REBUILD, missing=missing, create=create)


def drop_loop_store(url: str) -> None:
    """Throw it away, so that a worker makes everything anew, under the same ids."""
    drop_store(url, metadata)


class LoopWriter(PartitionWriter):
    """The one writer of the loop's state for the partitions of ``ratings`` that it holds. Not thread-safe."""

    def __init__(self, url: str, *, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        database = open_loop_store(url, create=True)
        super().__init__(database, agent=LOOP, topic=RATINGS, rebuild=_REBUILD, wall_ms=wall_ms)
        database.hold_identity()

    def load(self, partition: int) -> PartitionState:
        """What the last step of the partition left."""
        rows = self.database.rows(
            'SELECT user_id, start, "last", n, slates FROM sessions WHERE partition = ? ORDER BY user_id', partition
        )
        counted = self.database.rows(
            "SELECT variant, slates, shown, clicks FROM tallies WHERE partition = ?", partition
        )
        passed = self.database.rows(
            "SELECT event_time FROM boundaries WHERE partition = ? ORDER BY event_time", partition
        )
        return PartitionState(
            [_session(*row) for row in rows],
            {variant: Tally(*counts) for variant, *counts in counted},
            [event_time for (event_time,) in passed],
        )

    def commit_step(
        self, after: Mapping[int, Cursor], sources: Mapping[int, set[str]], changes: Mapping[int, LoopChanges]
    ) -> bool:
        """As :meth:`commit`, with the changes of each partition."""

        def write(database: Database) -> None:
            for partition in sorted(changes):
                _write(database, partition, changes[partition])

        return self.commit(after, sources, write)

    # Records to publish

    def outgoing(self, most_bytes: int = 8 << 20) -> list[OutgoingRow]:
        """The oldest batches of the held partitions that are still to be published: so many bytes, or a little more."""
        rows: list[OutgoingRow] = []
        n_bytes = 0
        sizes = self.database.rows(
            "SELECT id, length(lines) FROM outgoing WHERE partition = ANY(?) ORDER BY id LIMIT 500",
            sorted(self.cursors),
        )
        wanted = []
        for row_id, size in sizes:
            wanted.append(row_id)
            n_bytes += size
            if n_bytes >= most_bytes:
                break
        if wanted:
            rows = [
                OutgoingRow._make(row)
                for row in self.database.rows(
                    "SELECT id, partition, topic, records, record_keys, lines FROM outgoing WHERE id = ANY(?)", wanted
                )
            ]
        return sorted(rows, key=itemgetter(0))

    def sent(self, rows: Iterable[OutgoingRow]) -> None:
        """Forget batches that :meth:`outgoing` gave: the bus has acknowledged them."""
        with self.database.transaction():
            # Of a server that lost its last transactions, an id may be another batch's by now.
            self.database.execute_many(
                "DELETE FROM outgoing WHERE id = ? AND partition = ? AND topic = ? AND records = ?",
                [(row.id, row.partition, row.topic, row.records) for row in rows],
            )


def _session(user_id: int, start: int, last: int, n: int, slates: bytes) -> Session:
    session = Session(user_id, start, last, n)
    for s in _decoder.decode(slates):
        session.show(
            ShownSlate(
                session, s.n_before, s.timestamp, -1, s.moment, s.variant, s.model_version, s.movie_ids, s.clicked
            )
        )
    return session


def _packed(session: Session) -> bytes:
    return msgspec.msgpack.encode(
        [
            (s.n_before, s.timestamp, s.moment, s.variant, s.model_version, s.movie_ids, s.clicked)
            for s in session.slates
        ]
    )


def _write(database: Database, partition: int, changes: LoopChanges) -> None:
    database.execute_many(
        "DELETE FROM sessions WHERE partition = ? AND user_id = ?", [(partition, user) for user in changes.closed_users]
    )
    database.execute_many(
        'INSERT INTO sessions (partition, user_id, start, "last", n, slates) VALUES (?, ?, ?, ?, ?, ?)'
        " ON CONFLICT (partition, user_id) DO UPDATE SET start = excluded.start,"
        ' "last" = excluded."last", n = excluded.n, slates = excluded.slates',
        [(partition, s.user_id, s.start, s.last, s.n, _packed(s)) for s in changes.sessions],
    )
    database.execute_many(
        "INSERT INTO tallies (partition, variant, slates, shown, clicks) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (partition, variant) DO UPDATE SET slates = excluded.slates, shown = excluded.shown,"
        " clicks = excluded.clicks",
        [(partition, name, t.slates, t.shown, t.clicks) for name, t in sorted(changes.tallies.items())],
    )
    database.execute_many(
        "DELETE FROM boundaries WHERE partition = ? AND event_time = ?", [(partition, at) for at in changes.forgotten]
    )
    database.execute_many(
        "INSERT INTO boundaries (partition, event_time) VALUES (?, ?) ON CONFLICT (partition, event_time) DO NOTHING",
        [(partition, at) for at in changes.boundaries],
    )
    database.execute_many(
        "INSERT INTO outgoing (partition, topic, records, record_keys, lines) VALUES (?, ?, ?, ?, ?)",
        [(partition, *lines) for lines in changes.records],
    )

"""The loop's own store: open sessions, counts, boundaries passed, and records to publish, beside the applied offsets.

A file ``loop.db`` beside the features, or a schema beside theirs on PostgreSQL. Only what a step changed is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table

from agents.lines import Lines
from agents.lines_store import LinesWriter, add_lines_tables, write_lines
from agents.sessions import Session, ShownSlate
from agents.tally import Tally
from featurestore.aggregate import Cursor
from featurestore.database import Database, drop_store, open_tables, store_label, url_beside
from streams.errors import StoreMissing
from streams.events import RATINGS

__all__ = [
    "LOOP",
    "LoopChanges",
    "LoopWriter",
    "PartitionState",
    "drop_loop_store",
    "loop_url",
    "open_loop_store",
]

LOOP = "loop"
"""The agent's name: its Faust app id and consumer group, and its rows in the store."""

_REBUILD = "`streamlens worker --role loop --rebuild` makes slates and feedback anew, under the same ids"

metadata = MetaData()

add_lines_tables(metadata)


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

# Those that the gate of aligned mode may still ask for.
boundaries = Table("boundaries", metadata, _key("partition"), _key("event_time"), sqlite_with_rowid=False)


class _StoredSlate(msgspec.Struct, array_like=True, gc=False):
    n_before: int
    timestamp: int
    moment: int
    variant: str
    model_version: str
    movie_ids: list[int]
    clicked: list[int]


_decoder = msgspec.msgpack.Decoder(list[_StoredSlate])


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


class LoopWriter(LinesWriter):
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
        passed = self.database.rows(
            "SELECT event_time FROM boundaries WHERE partition = ? ORDER BY event_time", partition
        )
        return PartitionState(
            [_session(*row) for row in rows],
            self.tallies(partition),
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
        "DELETE FROM boundaries WHERE partition = ? AND event_time = ?", [(partition, at) for at in changes.forgotten]
    )
    database.execute_many(
        "INSERT INTO boundaries (partition, event_time) VALUES (?, ?) ON CONFLICT (partition, event_time) DO NOTHING",
        [(partition, at) for at in changes.boundaries],
    )
    write_lines(database, partition, changes.tallies, changes.records)

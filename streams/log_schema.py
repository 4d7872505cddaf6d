"""The embedded log's SQLite file: its tables, how a new one is made, and how anything else is refused."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from streams.errors import BusError, BusUnavailable
from streams.sqlite import transaction

__all__ = ["MAX_WAL_BYTES", "REPAIR", "connect", "prepare"]

MAX_WAL_BYTES = 64 << 20
"""About how large the write-ahead log may get."""

REPAIR = "restore it from a copy, or move it away and replay into a new run"

_APPLICATION_ID = 0x534C4F47  # "SLOG"
_FORMAT = 1

# Batches have a rowid, so that appends go to the end of the file; blobs inside an index tree would be moved about.
# They are indexed by end offset, so that the batch which holds an offset is the first row of one range scan.
# The next offset stands in its own table, so that offsets go on after retention has removed all batches.
_TABLES = """
CREATE TABLE topics (
    name TEXT PRIMARY KEY, partitions INTEGER NOT NULL, retention_ms INTEGER, log_id TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE partitions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, log_start INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
CREATE TABLE record_batches (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL, end_offset INTEGER NOT NULL,
    count INTEGER NOT NULL, published_ms INTEGER NOT NULL, checksum INTEGER NOT NULL, timestamps BLOB,
    "values" BLOB NOT NULL, lengths BLOB, keys BLOB, key_lengths BLOB
);
CREATE UNIQUE INDEX record_batches_by_offset ON record_batches (topic, partition, end_offset);
CREATE TABLE group_offsets (
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
) WITHOUT ROWID
"""


def connect(path: Path | None, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection for any thread, without implicit transactions."""
    target = ":memory:" if path is None else path
    return sqlite3.connect(target, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)


def prepare(connection: sqlite3.Connection, path: Path | None, busy_timeout_s: float) -> None:
    """Set the connection up for writing and make the tables. Raises BusError for a file that is something else."""
    # In this order: another process may be making the log, tables and id in one transaction.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if tables and application_id != _APPLICATION_ID:
        raise BusError(f"bus {path}: expected a StreamLens log, found another SQLite database; {REPAIR}")
    if path is not None:
        _enter_wal(connection, path, busy_timeout_s)
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the checkpointer's job, not that of an append
        connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
    connection.execute("PRAGMA synchronous = full")
    if _version(connection) == 0:
        with transaction(connection):
            if _version(connection) == 0:  # no other process was faster
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
    if (version := _version(connection)) != _FORMAT:
        raise BusError(f"bus {path}: expected log format {_FORMAT}, found {version}; {REPAIR}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _enter_wal(connection: sqlite3.Connection, path: Path, busy_timeout_s: float) -> None:
    """SQLite does not wait by itself when two processes switch a new file to WAL at once."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = wal").fetchone()
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise BusUnavailable(f"bus {path}: its file system has no write-ahead log; use a local disk")
        return

"""What SQLite's errors mean to whoever runs the program: which pass, which do not, and the next step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from streams.errors import StreamLensError

__all__ = ["sqlite_errors", "transaction"]


@contextmanager
def sqlite_errors(
    what: str, *, unavailable: type[StreamLensError], broken: type[StreamLensError], repair: str
) -> Iterator[None]:
    """Turn what SQLite raises into the errors of ``what`` ("feature store var/features.db").

    unavailable: it may work later (locked, full, unwritable). broken: it will not; ``repair`` says what to do then.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise unavailable(f"{what}: locked by another process; close what holds it") from error
        if name == "SQLITE_FULL":
            raise unavailable(f"{what}: disk full; free space, then start again") from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise broken(f"{what}: not a healthy SQLite database ({error}); {repair}") from error
        if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
            hint = "check that its folder exists, can be written and has space"
            raise unavailable(f"{what}: cannot be read or written ({error}); {hint}") from error
        raise broken(f"{what}: {error}; {repair}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """BEGIN IMMEDIATE, then COMMIT, or ROLLBACK when anything is raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # on a full disk SQLite rolls back by itself
            connection.execute("ROLLBACK")
        raise

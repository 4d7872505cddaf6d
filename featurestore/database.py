"""The database behind the feature store, chosen by its URL: SQLite, a file, or PostgreSQL, which many machines share.

SQL is written once, in what both read: ``?`` stands for a parameter, ``= ANY(?)`` takes a list of integers, and a sum
of integers is one. What differs, the two classes hide.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import MetaData, Table

from featurestore import sqlite
from featurestore.catalogue import Catalogue
from featurestore.schema import SCHEMA_VERSION, ColumnValues, metadata
from featurestore.sqlite import SQLiteDatabase, database_path
from featurestore.view_settings import ViewSettings
from streams.dataset import Movie
from streams.errors import ConfigError, StoreError, StoreMissing
from streams.postgres_url import PostgresAddress, is_postgres, with_schema_suffix

if TYPE_CHECKING:
    from featurestore.postgres import PostgresDatabase

__all__ = [
    "Database",
    "copy_store",
    "drop_schema",
    "drop_store",
    "open_reader",
    "open_tables",
    "open_writer",
    "read_catalogue",
    "scratch_folder",
    "store_label",
    "url_beside",
]

_FEATURES = "feature store"
_REBUILD = "`streamlens worker --rebuild` recomputes it from the log"
_COPY_ROWS = 10_000


class Database(Protocol):
    """A connection to a database. Not thread-safe: one thread at a time.

    Every call raises StoreUnavailable for what passes (locked, disk full, server away), StoreError for what does not,
    each with the next step. ``label`` names the database in messages, without a password.
    """

    label: str

    def close(self) -> None: ...

    def hold_identity(self) -> None:
        """From now on notice where the store is not the one that it is now."""

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """A transaction that writes: all of it or nothing. Raises StoreError where the store was removed or replaced.

        durable: once it is over not even a power cut undoes it; others may lose the last moments then.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Several reads of one state. Within a snapshot another one is the same."""

    def changes(self) -> int | None:
        """Another number than before where others have changed anything since; None where that cannot be told.

        Raises StoreError where the store is known not to be the one that :meth:`hold_identity` saw.
        """

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """All rows of the result."""

    def pages(self, sql: str, *parameters: object, size: int) -> Generator[list[tuple[Any, ...]]]:
        """The rows of a long result, ``size`` at a time; of one state."""

    def execute(self, sql: str, *parameters: object) -> int:
        """The number of rows that were changed."""

    def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None: ...

    def merge(self, table: Table, columns: Sequence[ColumnValues]) -> None:
        """Write rows, given as columns in the table's order, whose keys differ; each merges with the one that is there
        as the schema says."""

    def day_weight(self, half_life_days: float) -> str:
        """SQL for :func:`featurestore.decay.day_weights` of the column ``day``."""

    def table_names(self) -> set[str]: ...

    def create_tables(self, tables: MetaData) -> None:
        """Within a transaction: make those that are not there."""

    def read_note(self, name: str) -> bytes | None:
        """What :meth:`write_note` kept; None for nothing."""

    def write_note(self, name: str, content: bytes) -> None:
        """Keep something beside the views that is lost with them, all of it or nothing."""


def open_writer(url: str, views: ViewSettings, catalogue: Catalogue) -> Database:
    """A connection that writes features; a store is made where there is none.

    A store that is made keeps settings and movies, from its first moment on; one that is there has its own.
    Raises StoreError for one of another version.
    """
    database: Database = (
        _postgres(url) if is_postgres(url) else SQLiteDatabase.writer(database_path(url), repair=_REBUILD)
    )
    try:
        with database.transaction(durable=True):
            database.create_tables(metadata)
            if database.rows("SELECT count(*) FROM meta") == [(0,)]:
                _fill(database, views, catalogue)
        _accept(database)
    except BaseException:
        database.close()
        raise
    return database


def _fill(database: Database, views: ViewSettings, catalogue: Catalogue) -> None:
    kept = {
        "schema_version": str(SCHEMA_VERSION),
        "store_id": secrets.token_hex(16),
        **views.as_meta(),
        "catalogue": catalogue.fingerprint,
    }
    database.execute_many("INSERT INTO meta VALUES (?, ?)", kept.items())
    movies = [(m.movie_id, m.title, m.year, json.dumps(m.genres)) for m in catalogue.movies.values()]
    database.execute_many("INSERT INTO movies VALUES (?, ?, ?, ?)", movies)


def open_reader(url: str) -> Database:
    """A read-only connection. Raises StoreMissing where there is no store, StoreError for one of another version."""
    missing = StoreMissing(
        f"{_FEATURES} {store_label(url)}: not there yet; start `streamlens worker` to build it from the log"
    )
    database = open_tables(url, metadata, what=_FEATURES, repair=_REBUILD, missing=missing)
    try:
        _accept(database)
    except BaseException:
        database.close()
        raise
    return database


def open_tables(
    url: str, tables: MetaData, *, what: str, repair: str, missing: StoreMissing, create: bool = False
) -> Database:
    """A connection to other tables that lie where a store may lie; read-only unless they are to be made.

    what, repair: for messages. Raises ``missing`` where the tables are not there, and not to be made.
    """
    database: Database
    if is_postgres(url):
        database = _postgres(url, read_only=not create, what=what, repair=repair)
    elif create:
        database = SQLiteDatabase.writer(database_path(url), what=what, repair=repair)
    elif database_path(url).exists():
        database = SQLiteDatabase.reader(database_path(url), what=what, repair=repair)
    else:
        raise missing
    try:
        if create:
            with database.transaction():
                database.create_tables(tables)
        else:
            there = database.table_names()
            if there.isdisjoint(tables.tables) and (is_postgres(url) or not there):
                raise missing  # a file of other tables is no store that is about to be made
    except BaseException:
        database.close()
        raise
    return database


def _accept(database: Database) -> None:
    rows = []
    if "meta" in database.table_names():
        rows = database.rows("SELECT value FROM meta WHERE key = 'schema_version'")
    found = rows[0][0] if rows else "none"
    if found != str(SCHEMA_VERSION):
        raise StoreError(f"{database.label}: expected schema version {SCHEMA_VERSION}, found {found}; {_REBUILD}")
    database.hold_identity()


def read_catalogue(database: Database) -> Catalogue:
    """The movies the store was built with."""
    rows = database.rows("SELECT movie_id, title, year, genres FROM movies")
    return Catalogue(Movie(movie_id, title, year, tuple(json.loads(genres))) for movie_id, title, year, genres in rows)


def store_label(url: str) -> str:
    """The store as messages name it: its file, or its URL without the password."""
    return PostgresAddress.parse(url).shown if is_postgres(url) else str(database_path(url))


def url_beside(store_url: str, name: str) -> str:
    """Where another agent keeps what is its own: a file beside the store, on PostgreSQL a schema beside its schema.

    >>> url_beside("sqlite:///var/features.db", "loop"), url_beside("postgresql://db/x?schema=run_1", "loop")
    ('sqlite:///var/loop.db', 'postgresql://db/x?schema=run_1_loop')
    """
    if is_postgres(store_url):
        return with_schema_suffix(store_url, name)
    return f"sqlite:///{database_path(store_url).with_name(f'{name}.db')}"


def scratch_folder(url: str) -> Path | None:
    """Where copies of the store belong; None where it has no place of its own on this machine, or a full one."""
    return None if is_postgres(url) else sqlite.scratch_folder(database_path(url))


def copy_store(url: str, to: Path) -> Path:
    """Copy the store, as it is at one moment, to the SQLite file ``to``; returns it. Writers go on meanwhile.

    Raises StoreMissing, StoreError and StoreUnavailable as every reader does.
    """
    with closing(open_reader(url)) as source:
        if isinstance(source, SQLiteDatabase):
            source.copy_to(to)
        else:
            _copy_tables(source, to)
    return to


def _copy_tables(source: Database, to: Path) -> None:
    with closing(SQLiteDatabase.scratch(to)) as copy, copy.transaction(), source.snapshot():
        copy.create_tables(metadata)
        for table in metadata.sorted_tables:
            values = ", ".join("?" * len(table.columns))
            names = ", ".join(column.name for column in table.columns)
            with closing(source.pages(f"SELECT {names} FROM {table.name}", size=_COPY_ROWS)) as pages:
                for page in pages:
                    copy.execute_many(f"INSERT INTO {table.name} VALUES ({values})", page)


def drop_store(url: str, tables: MetaData = metadata) -> None:
    """Throw the features away, so that a worker builds them anew. Embeddings, which no log gives, stay.

    tables: of another agent's store at ``url``, to throw away in place of the features.
    """
    if is_postgres(url):
        with closing(_postgres(url)) as database:
            database.drop_tables(tables)
    else:
        sqlite.remove_store(database_path(url))


def _postgres(url: str, *, read_only: bool = False, what: str = _FEATURES, repair: str = _REBUILD) -> PostgresDatabase:
    try:
        from featurestore.postgres import PostgresDatabase
    except ImportError as error:
        raise ConfigError(
            f"store URL: PostgreSQL needs psycopg, found no {error.name}; `pip install 'streamlens[postgres]'`"
        ) from error
    return PostgresDatabase(PostgresAddress.parse(url), read_only=read_only, what=what, repair=repair)


def drop_schema(url: str) -> None:
    """Drop all of a PostgreSQL store, embeddings and what others put there included."""
    with closing(_postgres(url)) as database:
        database.drop_schema()

"""PostgreSQL behind the feature store, for workers and readers on many machines; each store is a schema of its own.

A lost connection is StoreUnavailable, and the next call connects anew. Concurrent writers never meet but on the
``applied`` row of a partition, which each transaction locks first, in order: so they cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import NumericBinaryLoader
from sqlalchemy import LargeBinary, MetaData, Table
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateIndex, CreateTable

from featurestore.decay import LANDMARK
from featurestore.postgres_arrays import pack, register_arrays
from featurestore.postgres_errors import GRANT, postgres_errors, refused_connection
from featurestore.schema import ADD, APPEND, MAXIMUM, MINIMUM, REPLACE, ColumnValues
from streams.errors import StoreError
from streams.events import DAY_S
from streams.postgres_url import DEFAULT_SCHEMA, PostgresAddress

__all__ = ["PostgresDatabase"]

_MERGE = {
    ADD: "{0} = t.{0} + excluded.{0}",
    MINIMUM: "{0} = least(t.{0}, excluded.{0})",
    MAXIMUM: "{0} = greatest(t.{0}, excluded.{0})",
    REPLACE: "{0} = excluded.{0}",
    APPEND: "{0} = t.{0} || excluded.{0}",
}

_CONNECTION: dict[str, Any] = {  # unless the URL says otherwise: a server that vanished is noticed within half a minute
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "streamlens",
}

_WRITE = "BEGIN READ WRITE; SET LOCAL idle_in_transaction_session_timeout = '5s'"
"""A process that is stopped (SIGSTOP, a frozen machine) within a transaction keeps its locks: without an end to that
nobody could take its partitions over."""

_SESSION = (
    # As synchronous=NORMAL on SQLite: a crash of the server may take the last transactions, never part of one.
    "SET synchronous_commit = off",
    "SET lock_timeout = '10s'",
    "SET jit = off",  # compiling takes longer than any of these statements
)


_DIALECT = PGDialect()  # type: ignore[no-untyped-call]


class _WholeNumber(NumericBinaryLoader):
    """The sum of bigints is numeric to PostgreSQL; nothing else here is."""

    def load(self, data: Buffer) -> int:  # type: ignore[override]
        return int(super().load(data))


_STORE_ID = "SELECT value FROM meta WHERE key = 'store_id'"
_TABLE_ID = "SELECT to_regclass('applied')::oid::text FROM (SELECT count(*) FROM (SELECT 1 FROM applied LIMIT 1) a) b"
"""Of another agent's store, which has no ``meta``; as the other, it keeps the table from being dropped meanwhile."""


class PostgresDatabase:
    """A :class:`featurestore.database.Database` in a schema of a PostgreSQL database."""

    def __init__(
        self, address: PostgresAddress, *, read_only: bool = False, what: str = "feature store", repair: str = ""
    ) -> None:
        self.label = f"{what} {address.shown}"
        self.schema = address.schema or DEFAULT_SCHEMA
        self._address = address
        self._read_only = read_only
        self._repair = repair
        self._store_id: str | None = None
        self._identity = _STORE_ID
        self._cursor_names = count()
        self._connection = self._connect()

    def _connect(self) -> psycopg.Connection:
        try:
            given = conninfo_to_dict(self._address.server)
            connection = psycopg.connect(autocommit=True, **{**_CONNECTION, **given})
        except psycopg.Error as error:
            raise refused_connection(self.label, self._address, error) from error
        with postgres_errors(self.label, self._address, self._repair):
            register_arrays(connection)
            connection.adapters.register_loader("numeric", _WholeNumber)
            path = sql.SQL("SET search_path = {}").format(sql.Identifier(self.schema))
            read_only = sql.SQL("SET default_transaction_read_only = {}").format(sql.Literal(self._read_only))
            connection.execute(sql.SQL("; ").join([*map(sql.SQL, _SESSION), path, read_only]))
        return connection

    def close(self) -> None:
        self._connection.close()

    def errors(self) -> AbstractContextManager[None]:
        """Turn what psycopg raises into the store's errors, each with the next step."""
        return postgres_errors(self.label, self._address, self._repair)

    @property
    def _in_transaction(self) -> bool:
        return self._connection.info.transaction_status != TransactionStatus.IDLE

    def _begin(self, kind: str) -> None:
        if self._connection.closed:
            self._connection.close()
            self._connection = self._connect()
        self._connection.execute(kind)
        self._check_identity()

    def _end(self) -> None:
        """Roll back; a connection that cannot is given up."""
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        with self.errors():
            try:
                self._begin(_WRITE)
                if durable:
                    self._connection.execute("SET LOCAL synchronous_commit = on")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._end()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        if not self._connection.closed and self._in_transaction:
            yield
            return
        with self.errors():
            try:
                self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield
            finally:
                self._end()

    def _check_identity(self) -> None:
        """The store may be dropped and made anew; from this look on, that waits until the end of this."""
        if self._store_id is None:
            return
        try:
            rows = self._run(self._identity).fetchall()
        except psycopg.errors.UndefinedTable:
            rows = []
        if rows != [(self._store_id,)]:
            raise StoreError(
                f"{self.label}: was removed or replaced while in use; "
                "start the process again: what is missing is built anew"
            )

    def hold_identity(self) -> None:
        self._identity = _STORE_ID if "meta" in self.table_names() else _TABLE_ID
        ((self._store_id,),) = self.rows(self._identity)

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        cursor = self._connection.cursor(binary=True)
        return cursor.execute(_dialect(statement), parameters or None)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        with self.errors():
            if self._connection.closed:
                self._connection.close()
                self._connection = self._connect()
            yield

    def changes(self) -> int | None:
        return None

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._connected():
            return self._run(sql, parameters).fetchall()

    def pages(self, sql: str, *parameters: object, size: int) -> Generator[list[tuple[Any, ...]]]:
        with self.snapshot(), self.errors():
            name = f"pages_{next(self._cursor_names)}"
            with self._connection.cursor(name, binary=True) as cursor:
                cursor.execute(_dialect(sql), parameters or None)
                while page := cursor.fetchmany(size):
                    yield page

    def execute(self, sql: str, *parameters: object) -> int:
        with self._connected():
            return self._run(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        with self._connected():
            self._connection.cursor().executemany(_dialect(sql), rows)

    def merge(self, table: Table, columns: Sequence[ColumnValues]) -> None:
        if not len(columns[0]):
            return
        packed = [pack(column, values) for column, values in zip(table.columns, columns, strict=True)]
        with self.errors():
            self._connection.execute(_merge_statement(table), packed)

    def day_weight(self, half_life_days: float) -> str:
        return f"power(2::float8, (day * {DAY_S} - {LANDMARK}) / {half_life_days * DAY_S!r}::float8)"

    def table_names(self) -> set[str]:
        usable = self.rows("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = ?", self.schema)
        if usable == [(False,)]:  # its tables would look as if they were not there
            raise StoreError(f"{self.label}: permission denied for schema {self.schema}; {GRANT}")
        rows = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = ?", self.schema)
        return {name for (name,) in rows}

    def create_tables(self, tables: MetaData) -> None:
        """One process at a time; what is there is left alone, so that who may only write needs no right to make it."""
        self.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", f"streamlens {self.schema}")
        if not self.rows("SELECT 1 FROM pg_namespace WHERE nspname = ?", self.schema):
            self._define(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        there = self.table_names()
        for table in tables.sorted_tables:
            if table.name not in there:
                self._define(str(CreateTable(table).compile(dialect=_DIALECT)))
                for index in table.indexes:
                    self._define(str(CreateIndex(index).compile(dialect=_DIALECT)))
                for column in table.columns:
                    if isinstance(column.type, LargeBinary):  # packed numbers: compressing them costs and saves nothing
                        self._define(f"ALTER TABLE {table.name} ALTER COLUMN {column.name} SET STORAGE EXTERNAL")

    def _define(self, statement: str | sql.Composed) -> None:
        with self.errors():
            self._connection.execute(statement)

    def drop_tables(self, tables: MetaData) -> None:
        """``meta`` first: whoever writes locks it before all else, until the end of its transaction."""
        there = self.table_names() & set(tables.tables)
        with self.transaction(durable=True):
            for name in sorted(there, key=lambda name: (name != "meta", name)):
                self._define(f"DROP TABLE {name}")

    def drop_schema(self) -> None:
        with self.transaction(durable=True):
            self._define(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.schema)))

    def read_note(self, name: str) -> bytes | None:
        rows = self.rows("SELECT value FROM meta WHERE key = ?", name)
        return rows[0][0].encode() if rows else None

    def write_note(self, name: str, content: bytes) -> None:
        """In ``meta``, also from a reader's connection."""
        with self.transaction():
            self.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                *(name, content.decode()),
            )


@lru_cache(maxsize=256)
def _dialect(statement: str) -> str:
    return statement.replace("= ANY(?)", "= ANY(%s::bigint[])").replace("?", "%s").replace(" AS BLOB)", " AS BYTEA)")


@lru_cache(maxsize=64)
def _merge_statement(table: Table) -> str:
    types = {c.name: str(c.type.compile(dialect=_DIALECT)) for c in table.columns}
    keys = ", ".join(c.name for c in table.primary_key)
    merged = ", ".join(_MERGE[c.info["merge"]].format(c.name) for c in table.columns if not c.primary_key)
    arrays = ", ".join(f"%s::{kind}[]" for kind in types.values())
    return (
        f"INSERT INTO {table.name} AS t ({', '.join(types)}) SELECT * FROM unnest({arrays})"
        f" ON CONFLICT ({keys}) DO UPDATE SET {merged}"
    )

"""Stores of either kind for tests: an empty one whenever it is asked for, and what is in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings

from featurestore.database import open_reader

__all__ = ["PostgresStores", "SQLiteStores", "Stores", "given_stores", "postgres_server", "postgres_stores", "rows"]

VARIABLE = "STREAMLENS_TEST_POSTGRES"


class SQLiteStores:
    """Each a file in a folder of its own."""

    examples = 1.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, name: str = "features") -> str:
        folder = self._folder / secrets.token_hex(4)
        folder.mkdir()
        return f"sqlite:///{folder / name}.db"


class PostgresStores:
    """Each a schema, which is emptied and used again: making the tables takes longer than most tests do with them."""

    examples = 0.2

    def __init__(self, server: str) -> None:
        self.server = server
        self._prefix = f"test_{secrets.token_hex(4)}"
        self._connection = psycopg.connect(server, autocommit=True)
        self._used: set[str] = set()

    def empty(self, name: str = "features") -> str:
        schema = f"{self._prefix}_{name}"
        there = self._connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,)).fetchall()
        if there:
            tables = ", ".join(f'"{schema}".{table}' for (table,) in there)
            self._connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")  # type: ignore[arg-type]
        self._used.add(schema)
        return f"{self.server}{'&' if '?' in self.server else '?'}schema={schema}"

    def drop(self) -> None:
        for schema in self._used:
            self._connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')  # type: ignore[arg-type]
        self._connection.close()


Stores = SQLiteStores | PostgresStores


def rows(url: str, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a reader of the store gets."""
    with closing(open_reader(url)) as database:
        return database.rows(sql, *parameters)


def postgres_server() -> str:
    """The URL of a server for tests, or a skip that says how to have one.

    With ``STREAMLENS_TEST_POSTGRES_REQUIRED`` set a missing server is an error: CI has one.
    """
    if server := os.environ.get(VARIABLE):
        return server
    reason = f"expected a PostgreSQL for tests, found none: set {VARIABLE}=postgresql://USER@HOST:PORT/DATABASE"
    if os.environ.get(f"{VARIABLE}_REQUIRED"):
        raise RuntimeError(reason)
    pytest.skip(reason)


@contextmanager
def postgres_stores() -> Iterator[PostgresStores]:
    """Schemas that are dropped at the end."""
    stores = PostgresStores(postgres_server())
    try:
        yield stores
    finally:
        stores.drop()


def given_stores(max_examples: int, **strategies: Any) -> Callable[[Callable[..., None]], Callable[[Stores], None]]:
    """As ``given``, for a test that takes ``stores``: with fewer examples where each takes longer."""

    def decorate(test: Callable[..., None]) -> Callable[[Stores], None]:
        def on_stores(stores: Stores) -> None:
            @settings(max_examples=max(round(max_examples * stores.examples), 1), deadline=None)
            @given(**strategies)
            def examples(**drawn: Any) -> None:
                test(stores, **drawn)

            examples()

        on_stores.__name__, on_stores.__doc__ = test.__name__, test.__doc__
        return on_stores

    return decorate

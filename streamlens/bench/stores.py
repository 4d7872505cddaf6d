"""The stores that benchmarks write to: one of their own each, gone afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.database import drop_schema
from streams.errors import ConfigError
from streams.postgres_url import PostgresAddress, is_postgres, store_url_of_run

__all__ = ["own_store"]


@contextmanager
def own_store(store: str | None, folder: Path) -> Iterator[str]:
    """The URL of a store that is not there yet: a file in ``folder``, or a schema in the PostgreSQL of ``store``."""
    name = f"bench_{secrets.token_hex(4)}"
    if store is None:
        yield f"sqlite:///{folder}/{name}.db"
        return
    if not is_postgres(store) or PostgresAddress.parse(store).schema:
        raise ConfigError("--store: expected postgresql://USER@HOST:PORT/DATABASE without a schema, or none for SQLite")
    url = store_url_of_run(store, name)
    try:
        yield url
    finally:
        drop_schema(url)

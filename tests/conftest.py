"""Settings of all tests: in CI hypothesis draws the same examples each time, elsewhere new ones. And servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from streams.testing import NoBroker, kafka_server, unique_prefix
from tests.stores import PostgresStores, SQLiteStores, Stores, postgres_stores

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[str]:
    """``host:port`` of a real broker that all tests share, or a skip that says how to have one.

    With ``STREAMLENS_TEST_KAFKA_REQUIRED`` set a missing broker is an error: CI has one.
    """
    try:
        with kafka_server() as address:
            yield address
    except NoBroker as reason:
        if os.environ.get("STREAMLENS_TEST_KAFKA_REQUIRED"):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def kafka_url(kafka_broker: str, request: pytest.FixtureRequest) -> str:
    """A bus of the test's own on that broker."""
    return f"kafka://{kafka_broker}/{unique_prefix(request.node.name)}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresStores]:
    """Stores on a real PostgreSQL, or a skip that says how to have one."""
    with postgres_stores() as stores:
        yield stores


@pytest.fixture
def postgres_url(postgres: PostgresStores) -> str:
    """An empty store there."""
    return postgres.empty()


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores of either kind."""
    return SQLiteStores(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres")

"""Settings of all tests: in CI hypothesis draws the same examples each time, elsewhere new ones. And stores.

The bus and the broker come from ``streamlens.pytest_plugin``, as they do for tests of other projects.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy is there: on a busy machine its threads wait for each other

from tests.stores import PostgresStores, SQLiteStores, Stores, postgres_stores  # noqa: E402

pytest_plugins = ["pytester"]

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command that ran in a test sets up the logs of the process; the next test has them as they were."""
    root = logging.getLogger()
    level, handlers, held = root.level, list(root.handlers), structlog.get_config()
    was_configured = structlog.is_configured()
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    if was_configured:
        structlog.configure(**held)
    else:
        structlog.reset_defaults()


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

"""Fixtures for tests of what uses the bus; pytest finds them wherever StreamLens is installed. See docs/testing.md.

pytest imports this module at each start, before anything is measured or asked for, so it imports nothing at the top
but pytest: the bus, numpy and the rest come with the first fixture.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # pytest then says of a test that asks for `streamlens_bus` that a plugin is missing
    async_fixture = pytest.fixture  # type: ignore[assignment]

if TYPE_CHECKING:
    from streams.bus import Bus
    from streams.clock import ManualClock
    from streams.recording import RecordedStream

__all__ = ["streamlens_broker", "streamlens_bus", "streamlens_bus_url", "streamlens_clock", "streamlens_stream"]

BUSES = ("memory", "sqlite", "kafka")
REQUIRED_VARIABLE = "STREAMLENS_TEST_KAFKA_REQUIRED"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("streamlens").addoption(
        "--streamlens-bus",
        choices=BUSES,
        default="memory",
        help="the bus of tests that use streamlens_bus or streamlens_bus_url and have no marker (default: memory)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"streamlens_bus(kind, ...): run the test once on each of these buses: {', '.join(BUSES)}"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("streamlens_bus")
    if marker is not None and "streamlens_bus_url" in metafunc.fixturenames:
        metafunc.parametrize("streamlens_bus_url", marker.args, indirect=True)


@pytest.fixture(scope="session")
def streamlens_broker() -> Iterator[str]:
    """``host:port`` of a real broker that all tests share, or a skip that says how to have one.

    ``STREAMLENS_TEST_KAFKA=HOST:PORT`` names one; else a Redpanda container is started, where a Docker engine runs.
    With ``STREAMLENS_TEST_KAFKA_REQUIRED`` set a missing broker is an error, so that none is skipped in CI.
    """
    from streams.testing import NoBroker, kafka_server

    try:
        with kafka_server() as address:
            yield address
    except NoBroker as reason:
        if os.environ.get(REQUIRED_VARIABLE):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def streamlens_bus_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty bus of the test's own: for a program that opens it itself.

    Which kind, ``@pytest.mark.streamlens_bus("memory", "sqlite", "kafka")`` says, else ``--streamlens-bus``. Child
    processes can open ``sqlite`` and ``kafka``; ``memory`` is shared within the process, while somebody has it open.
    On Kafka the test's topics have a prefix of their own, and are removed after it.
    """
    from streams.testing import unique_prefix

    kind = getattr(request, "param", None) or request.config.getoption("--streamlens-bus")
    name = unique_prefix(request.node.name)
    if kind == "memory":
        yield f"memory://{name}"
    elif kind == "sqlite":
        yield f"sqlite:///{tmp_path}/bus.db"
    elif kind == "kafka":
        url = f"kafka://{request.getfixturevalue('streamlens_broker')}/{name}"
        yield url
        asyncio.run(_remove_topics(url))
    else:
        raise pytest.UsageError(f"streamlens_bus: expected {', '.join(BUSES)}, found {kind!r}")


async def _remove_topics(url: str) -> None:
    from streams.kafka import KafkaBus

    async with KafkaBus(url) as bus:
        await bus.delete_topics(*await bus.topics())


@async_fixture
async def streamlens_bus(streamlens_bus_url: str) -> AsyncIterator[Bus]:
    """The bus behind ``streamlens_bus_url``, open, with the topics of a run (four partitions of ``ratings``).

    Needs pytest-asyncio. A program that opens the URL meanwhile is on the same bus.
    """
    from streams.bus import open_bus
    from streams.topics import run_topics

    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(4))
        yield bus


@pytest.fixture
def streamlens_clock() -> ManualClock:
    """A clock for whatever takes one: it stands until the test moves it with ``advance(seconds)``."""
    from streams.clock import ManualClock

    return ManualClock()


@pytest.fixture(scope="session")
def streamlens_stream() -> RecordedStream:
    """A recorded run over a small synthetic world: 300 ratings, ticks, and the metrics of its worker.

    ``await streamlens_stream.publish(bus)`` puts it on a bus; ``streamlens_stream.values("metrics")`` are its records.
    """
    from streams.recording import mini_stream

    return mini_stream()

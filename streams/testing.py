"""For tests of programs that use the bus: waiting on conditions, publishing, a real broker, names of one's own on it.

``streamlens.pytest_plugin`` makes fixtures of it; docs/testing.md shows them at work. A broker is found in this order:
``STREAMLENS_TEST_KAFKA=HOST:PORT``; a Redpanda container, where a Docker engine runs (needs ``testcontainers``); else
there is none, and :class:`NoBroker` says how to have one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import secrets
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from streams.bus import Bus
from streams.retrain import RetrainRequest, RetrainRequested, ask_for_retrain

__all__ = [
    "NoBroker",
    "collect",
    "eventually",
    "kafka_server",
    "publish",
    "publish_retrain",
    "unique_prefix",
]

BROKER_VARIABLE = "STREAMLENS_TEST_KAFKA"
REDPANDA_IMAGE = "docker.redpanda.com/redpandadata/redpanda:v25.3.1"
START_TIMEOUT_S = 120
"""The library's own 10 s do not suffice where the machine is busy with other tests."""


class NoBroker(Exception):
    """There is no broker to test against; the message says why, and how to have one."""


@contextmanager
def kafka_server() -> Iterator[str]:
    """A broker's ``host:port`` for the time of the block. Raises NoBroker."""
    if given := os.environ.get(BROKER_VARIABLE):
        yield given
        return
    container = _redpanda()
    try:
        yield container.get_bootstrap_server()
    finally:
        container.stop()


def _redpanda() -> Any:
    hint = f"start a Docker engine, or set {BROKER_VARIABLE}=HOST:PORT to a Kafka or Redpanda for tests"
    try:
        import docker
        from testcontainers.community.kafka import RedpandaContainer
    except ImportError as error:
        raise NoBroker(f"expected testcontainers, found no {error.name}; {hint}") from error
    if not _answers(docker):
        raise NoBroker(f"expected a Docker engine, found none; {hint}")
    container = RedpandaContainer(REDPANDA_IMAGE)
    container.start(timeout=START_TIMEOUT_S)
    return container


def _answers(docker: Any) -> bool:
    """Whether a Docker engine does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker leaves the socket of a failed attempt open
        try:
            docker.from_env().close()
        except Exception:  # whatever an engine that is not there raises
            return False
        else:
            return True
        finally:
            gc.collect()


def unique_prefix(name: str = "test") -> str:
    """What sets a test's topics and groups apart on a broker that others use too, as the path of a Kafka URL.

    >>> unique_prefix("test_replay[fast]")[:17]
    'test_replay-fast-'
    """
    return f"{re.sub('[^a-zA-Z0-9._-]+', '-', name).strip('-')[:80]}-{secrets.token_hex(4)}"


async def eventually(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 20.0) -> None:
    """Return once ``condition`` holds; it is asked every 5 ms. Raises TimeoutError where it does not by then.

    >>> asyncio.run(eventually(lambda: 1 + 1 == 2))
    """
    try:
        async with asyncio.timeout(within_s):
            while not (await met if isinstance(met := condition(), Awaitable) else met):  # noqa: ASYNC110 (any condition)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(f"expected {condition} to hold within {within_s:g} s, and it did not") from None


async def publish(bus: Bus, topic: str, *records: msgspec.Struct, key: str | None = None) -> None:
    """Put ``records`` on ``topic`` as JSON, in order, and wait until they are durable. Raises UnknownTopic."""
    async with bus.producer() as producer:
        for record in records:
            await producer.send(topic, msgspec.json.encode(record), key=None if key is None else key.encode())
        await producer.flush()


async def collect(bus: Bus, topic: str, count: int, within_s: float = 20.0) -> list[bytes]:
    """The values of ``topic`` from its start, once there are ``count``; in order within each partition.

    Returns more than ``count`` where the last fetch held more. Raises UnknownTopic, and TimeoutError where too few
    came.
    """
    values: list[bytes] = []
    try:
        async with asyncio.timeout(within_s), await bus.consumer(topic) as consumer:
            while len(values) < count:
                values += [value for batch in await consumer.fetch() for value in batch.values]
    except TimeoutError:
        raise TimeoutError(f"{topic}: expected {count} records within {within_s:g} s, found {len(values)}") from None
    return values


async def publish_retrain(
    bus: Bus,
    model: str = "mf",
    *,
    id: str | None = None,  # noqa: A002 (CloudEvents' name)
    source: str = "test/monitors",
    time: datetime = datetime(2010, 1, 1, tzinfo=UTC),
    request: RetrainRequest | None = None,
) -> RetrainRequested:
    """Ask for a training of ``model`` as the monitors of a run do; returns the event, which has its own id by default.

    The same ``id`` again is the same request, delivered twice.
    """
    why = request or RetrainRequest(
        reason="CTR -17 % for 7 days", severity="critical", asked_by="ctr", evidence={"ctr": 0.025, "baseline": 0.03}
    )
    event = RetrainRequested.of(model, why, id=id or secrets.token_hex(8), source=source, time=time)
    await ask_for_retrain(bus, event)
    return event

"""For integration tests: a real Kafka broker to run against, and names of one's own on it.

A broker is found in this order: ``STREAMLENS_TEST_KAFKA=HOST:PORT``; a Redpanda container, where a Docker engine runs
(needs ``testcontainers``); else there is none, and :class:`NoBroker` says how to have one. A pytest fixture:

    @pytest.fixture(scope="session")
    def kafka_broker():
        try:
            with kafka_server() as address:
                yield address
        except NoBroker as reason:
            pytest.skip(str(reason))
"""

from __future__ import annotations

import gc
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["NoBroker", "kafka_server", "unique_prefix"]

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

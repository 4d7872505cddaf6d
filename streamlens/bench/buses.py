"""The buses that benchmarks run on: one of their own each, gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.errors import ConfigError
from streams.testing import unique_prefix

__all__ = ["on_kafka", "own_bus"]


def on_kafka(bus: str | None) -> bool:
    """True for a Kafka URL; None is the embedded bus."""
    return bus is not None and bus.startswith("kafka://")


@contextmanager
def own_bus(bus: str | None, folder: Path) -> Iterator[str]:
    """The URL of an empty bus: a file in ``folder``, or topics of its own on the Kafka cluster of ``bus``."""
    if not on_kafka(bus):
        if bus is not None:
            raise ConfigError(f"--bus: expected kafka://HOST:PORT, or none for the embedded bus, found {bus!r}")
        yield f"sqlite:///{folder}/bus.db"
        return
    from streams.kafka_settings import KafkaAddress

    assert bus is not None
    url = f"{KafkaAddress.parse(bus).shown}/{unique_prefix('bench')}"
    try:
        yield url
    finally:
        asyncio.run(_remove(url))


async def _remove(url: str) -> None:
    from streams.kafka import KafkaBus

    async with KafkaBus(url) as bus:
        await bus.delete_topics(*await bus.topics())

"""From publishing a retrain event to a consumer in another process having it."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streamlens.bench.buses import own_bus
from streamlens.bench.processes import started
from streams.bus import Consumer, open_bus
from streams.events import RETRAIN
from streams.retrain import RetrainRequest, RetrainRequested, ask_for_retrain
from streams.topics import run_topics

__all__ = ["run"]

_WARM_UP = 5
_GAP_S = 0.05
"""Between two events: as rare as they are, none waits for another."""


def run(events: int = 1_000, bus: str | None = None) -> dict[str, Any]:
    """``events``: how many; each by a producer of its own, as the program publishes them."""
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder, own_bus(bus, Path(folder)) as bus_url:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        asyncio.run(_create_topics(bus_url))
        consumer = started(_consume, bus_url, _WARM_UP + events, theirs)
        ours.recv()  # it is there
        sent = asyncio.run(_publish(bus_url, _WARM_UP + events))
        received: list[float] = ours.recv()
        consumer.join()
    latencies = (np.array(received) - np.array(sent))[_WARM_UP:] * 1_000
    p50, p99 = np.percentile(latencies, [50, 99]).tolist()
    return {
        "events": len(latencies),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "max_ms": round(float(latencies.max()), 1),
    }


async def _create_topics(bus_url: str) -> None:
    async with open_bus(bus_url) as bus:
        await bus.create_topics(*run_topics(1))


async def _publish(bus_url: str, events: int) -> list[float]:
    """When each was handed over, wall time in seconds."""
    sent = []
    async with open_bus(bus_url) as bus:
        for number in range(events):
            event = _event(number)
            sent.append(time.time())
            await ask_for_retrain(bus, event)
            await asyncio.sleep(_GAP_S)
    return sent


def _event(number: int) -> RetrainRequested:
    why = RetrainRequest(reason="CTR -17 % for 7 days", severity="critical", asked_by="ctr")
    moment = datetime(2010, 1, 1, tzinfo=UTC)
    return RetrainRequested.of("mf", why, id=f"bench/{number}", source="bench", time=moment)


def _consume(bus_url: str, events: int, done: Connection) -> None:
    """As an outside program does it: a group of its own, each event decoded."""

    async def main() -> None:
        async with open_bus(bus_url) as bus, await bus.consumer(RETRAIN, group="outside") as consumer:
            done.send("ready")
            done.send(await _received(consumer, events))

    asyncio.run(main())


async def _received(consumer: Consumer, events: int) -> list[float]:
    received: list[float] = []
    while len(received) < events:
        for batch in await consumer.fetch():
            for value in batch.values:
                msgspec.json.decode(value, type=RetrainRequested)
                received.append(time.time())
    return received

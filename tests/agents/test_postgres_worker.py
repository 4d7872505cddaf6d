"""Replay, bus, Faust, PostgreSQL: the store goes away in the middle and comes back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from agents.worker import FeatureWorker, WorkerOptions
from featurestore.reader import FeatureReader
from featurestore.verify import verify
from streams.bus import open_bus
from streams.dataset import open_dataset
from streams.events import DEADLETTER
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer
from streams.topics import run_topics
from tests.local_postgres import LocalPostgres

RATINGS = 20_000


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    server = LocalPostgres()
    try:
        yield server
    finally:
        server.remove()


async def until(condition: Callable[[], bool], running: asyncio.Task[None]) -> None:
    async with asyncio.timeout(40):
        while not condition() and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    if running.done():
        await running


async def test_a_worker_waits_for_a_store_that_is_restarted(server: LocalPostgres) -> None:
    async with open_bus("memory://away") as bus:
        await bus.create_topics(*run_topics(4))
        worker = FeatureWorker(WorkerOptions(bus.url, server.url, run_id="run", flush_records=500, quality_every_s=0.2))
        writer, stats = worker.ingest.writer, worker.ingest.stats
        stopping = asyncio.Event()
        running = asyncio.create_task(worker.run(stopping))
        dataset = open_dataset(f"synthetic:ratings={RATINGS}")
        replaying = asyncio.create_task(Replayer(dataset, bus, ReplayOptions(speed=math.inf), run_id="run").replay())
        await until(lambda: stats.ratings > 500, running)
        assert stats.ratings < RATINGS
        await asyncio.to_thread(server.stop)
        await until(lambda: stats.store_errors >= 3, running)
        assert "is PostgreSQL up" in stats.waiting_for_store
        await asyncio.to_thread(server.start)
        await replaying
        await until(lambda: len(writer.cursors) == 4 and all(c.end_of_run for c in writer.cursors.values()), running)
        stopping.set()
        await running
        assert stats.ratings == RATINGS
        assert stats.waiting_for_store == ""
        with closing(FeatureReader(server.url)) as reader:
            assert sum(row.invalid for row in reader.applied()) == 0
        assert all(held.end == 0 for held in (await bus.offsets(DEADLETTER)).values())
        report = await verify(bus, server.url)
        assert report.ok, report
        assert sum(report.offsets.values()) == report.events > RATINGS

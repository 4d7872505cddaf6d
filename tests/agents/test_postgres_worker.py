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
from streams.events import RATINGS as TOPIC
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, plan_replay
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


async def ended(worker: FeatureWorker, running: asyncio.Task[None]) -> None:
    """Wait until all of the run is applied, as the worker believes."""
    writer = worker.ingest.writer
    await until(lambda: len(writer.cursors) == 4 and all(c.end_of_run for c in writer.cursors.values()), running)


async def test_a_worker_waits_for_a_store_that_is_restarted(server: LocalPostgres) -> None:
    async with open_bus("memory://away") as bus:
        await bus.create_topics(*run_topics(4))
        worker = FeatureWorker(WorkerOptions(bus.url, server.url, run_id="run", flush_records=500, quality_every_s=0.2))
        stats = worker.ingest.stats
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
        await ended(worker, running)
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


@pytest.mark.streamlens_bus("memory", pytest.param("kafka", marks=pytest.mark.broker))
@pytest.mark.parametrize("under_load", [True, False])
async def test_what_the_server_lost_in_a_crash_is_applied_again(streamlens_bus_url: str, under_load: bool) -> None:
    """Also where no record comes any more to show that something is missing."""
    server = LocalPostgres("wal_writer_delay=10s", "wal_writer_flush_after=1GB", "wal_buffers=64MB")  # loses much
    try:
        async with open_bus(streamlens_bus_url) as bus:
            await bus.create_topics(*run_topics(4))
            worker = FeatureWorker(WorkerOptions(bus.url, server.url, run_id="run", flush_records=500))
            stats, stopping = worker.ingest.stats, asyncio.Event()
            running = asyncio.create_task(worker.run(stopping))
            options = ReplayOptions(rate=2_000, arrival="poisson", limit=5_000)
            dataset = open_dataset(f"synthetic:ratings={RATINGS}")
            replaying = asyncio.create_task(Replayer(dataset, bus, options, run_id="run").replay())
            n_ratings = plan_replay(dataset, options).n_total
            if under_load:
                await until(lambda: stats.ratings > n_ratings - 4_000, running)
            else:
                await replaying
                await ended(worker, running)
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.to_thread(server.start)
            await replaying
            await until(lambda: stats.ratings > n_ratings, running)  # some of them for the second time
            await ended(worker, running)
            stopping.set()
            await running
            report = await verify(bus, server.url)
            assert report.ok, report
            assert sum(report.offsets.values()) == report.events > n_ratings
            assert await bus.committed("features") == {tp: r.end for tp, r in (await bus.offsets(TOPIC)).items()}
    finally:
        server.remove()

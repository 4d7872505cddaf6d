"""Replay, Kafka, Faust, store: one worker, and two that share the partitions while one of them is killed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener

import agents.worker
from agents.ingest import FeatureIngest
from agents.worker import FeatureWorker, WorkerOptions
from featurestore.reader import FeatureReader
from featurestore.verify import verify
from featurestore.writer import FeatureWriter
from streams.app import BatchedApp
from streams.bus import Bus, open_bus
from streams.dataset import open_dataset
from streams.errors import LogReplaced, StreamLensError
from streams.events import METRICS, RATINGS, Metric
from streams.records import TopicPartition
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer
from streams.topics import run_topics
from tests.agents.at_work import at_work

pytestmark = [pytest.mark.broker, pytest.mark.streamlens_bus("kafka")]

LIVE = 3_000
TRAINING = 60_501
PARTITIONS = 4

WORKER = """
import asyncio, signal, sys
from agents.worker import FeatureWorker, WorkerOptions

async def main():
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    bus, store, name = sys.argv[1:]
    worker = FeatureWorker(WorkerOptions(bus, store, run_id="run", flush_records=500, instance_id=name))
    asyncio.create_task(tell(worker))
    await worker.run(stopping)

async def tell(worker):
    while True:
        print(*sorted(worker.ingest.writer.cursors), flush=True)
        await asyncio.sleep(0.05)

asyncio.run(main())
"""


def store_url(folder: Path) -> str:
    return f"sqlite:///{folder}/features.db"


async def replay(bus: Bus, *, rate: float | None = None) -> None:
    options = ReplayOptions(speed=None if rate else math.inf, rate=rate, limit=LIVE)
    await Replayer(open_dataset("ml-latest-small"), bus, options, run_id="run").replay()


def working(bus: Bus, folder: Path, instance_id: str | None = None) -> AbstractAsyncContextManager[FeatureWorker]:
    return at_work(FeatureWorker(WorkerOptions(bus.url, store_url(folder), run_id="run", instance_id=instance_id)))


async def until(condition: Callable[[], bool], limit_s: float = 40) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def ended(worker: FeatureWorker) -> bool:
    cursors = worker.ingest.writer.cursors
    return len(cursors) == PARTITIONS and all(cursor.end_of_run for cursor in cursors.values())


def applied(folder: Path) -> int:
    with contextlib.suppress(StreamLensError), FeatureReader(store_url(folder)) as reader:
        return sum(row.ratings for row in reader.applied())
    return 0


async def test_replayed_over_kafka_the_store_holds_what_the_log_says(streamlens_bus_url: str, tmp_path: Path) -> None:
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(PARTITIONS))
        async with working(bus, tmp_path) as worker:
            await replay(bus)
            await until(lambda: ended(worker))
        report = await verify(bus, store_url(tmp_path))
        assert report.ok, report.as_dict()
        assert await bus.committed("features") == {tp: r.end for tp, r in (await bus.offsets(RATINGS)).items()}
    assert applied(tmp_path) == TRAINING + LIVE


async def test_a_foreign_client_publishes_ratings_and_reads_metrics(
    streamlens_broker: str, streamlens_bus_url: str, tmp_path: Path
) -> None:
    """librdkafka on both ends; its records have no identity, and are taken as they come."""
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(PARTITIONS))
        prefix = streamlens_bus_url.rpartition("/")[2]
        async with working(bus, tmp_path):
            writer = confluent_kafka.Producer({"bootstrap.servers": streamlens_broker, "partitioner": "murmur2_random"})
            for user in range(1, 101):
                rating = {"user_id": user, "movie_id": 7, "rating": 4.5, "timestamp": 1_500_000_000 + user}
                writer.produce(f"{prefix}.{RATINGS}", msgspec.json.encode(rating), key=str(user).encode())
            assert await asyncio.to_thread(writer.flush, 20) == 0
            reader = confluent_kafka.Consumer({"bootstrap.servers": streamlens_broker, "group.id": prefix})
            reader.assign([confluent_kafka.TopicPartition(f"{prefix}.{METRICS}", 0, 0)])
            try:
                assert await asyncio.to_thread(_ratings_total, reader) == 100
            finally:
                reader.close()
        assert (await verify(bus, store_url(tmp_path))).ok
    assert applied(tmp_path) == 100


def _ratings_total(reader: confluent_kafka.Consumer) -> float:
    """What the metric of that name rises to; at most 40 s are waited for it."""
    value = 0.0
    for _ in range(400):
        message = reader.poll(0.1)
        if message is None or message.error():
            continue
        metric = msgspec.json.decode(message.value(), type=Metric)
        if metric.name == "features.ratings":
            value = metric.value
        if value >= 100:
            break
    return value


async def test_a_log_that_was_replaced_is_refused(streamlens_bus_url: str, tmp_path: Path) -> None:
    async with open_bus(streamlens_bus_url) as bus, open_bus(f"{streamlens_bus_url}-anew") as anew:
        for each in (bus, anew):
            await each.create_topics(*run_topics(PARTITIONS))
        async with working(bus, tmp_path) as worker:
            await until(lambda: len(worker.ingest.writer.cursors) == PARTITIONS)
        with pytest.raises(LogReplaced):
            async with asyncio.timeout(20):
                await FeatureWorker(WorkerOptions(anew.url, store_url(tmp_path))).run(asyncio.Event())


async def test_a_restarted_worker_with_its_instance_id_has_its_partitions_back_at_once(
    streamlens_bus_url: str, tmp_path: Path
) -> None:
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(PARTITIONS))
        for _ in range(2):
            async with working(bus, tmp_path, "one") as worker:
                await until(lambda w=worker: len(w.ingest.writer.cursors) == PARTITIONS, limit_s=6)  # type: ignore[misc]


@pytest.mark.parametrize("instance_id", [None, "one"])
async def test_a_worker_whose_write_was_refused_joins_again_for_its_share(
    streamlens_bus_url: str, tmp_path: Path, instance_id: str | None
) -> None:
    """As one that was frozen and does not know that others took over: here they have left again."""
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(PARTITIONS))
        async with working(bus, tmp_path, instance_id) as worker:
            await until(lambda: len(worker.ingest.writer.cursors) == PARTITIONS)
            with FeatureWriter(store_url(tmp_path), agent="features", topic=RATINGS) as other:
                other.assign((await bus.topics())[RATINGS], dict(sorted((await bus.offsets(RATINGS)).items())[:2]))
            await replay(bus)
            await until(lambda: ended(worker))
        report = await verify(bus, store_url(tmp_path))
        assert report.ok, report.as_dict()
    assert applied(tmp_path) == TRAINING + LIVE


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_rebalance_while_a_worker_finds_out_where_to_start_begins_that_anew(
    streamlens_bus_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken_over: bool
) -> None:
    """What it would still have done is about partitions that others may have by then."""
    apps: list[BatchedApp] = []
    create, assign, calls = agents.worker.create_features_app, FeatureIngest.assign, count()

    def create_app(*arguments: Any, **options: Any) -> BatchedApp:
        apps.append(create(*arguments, **options))
        return apps[0]

    async def rebalance_meanwhile(ingest: FeatureIngest, *given: Any) -> dict[TopicPartition, int]:
        if next(calls) > 0:
            return await assign(ingest, *given)
        found = await assign(ingest, *given) if taken_over else {}
        apps[0].reassign()
        async with asyncio.timeout(20):
            while apps[0].consumer.assignment():  # noqa: ASYNC110
                await asyncio.sleep(0)
        return found or await assign(ingest, *given)

    monkeypatch.setattr(agents.worker, "create_features_app", create_app)
    monkeypatch.setattr(FeatureIngest, "assign", rebalance_meanwhile)
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(PARTITIONS))
        async with working(bus, tmp_path) as worker:
            await until(lambda: len(worker.ingest.writer.cursors) == PARTITIONS)
            await replay(bus)
            await until(lambda: ended(worker))
        report = await verify(bus, store_url(tmp_path))
        assert report.ok, report.as_dict()
    assert applied(tmp_path) == TRAINING + LIVE


class _Busy(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of a group that does not let go of its partitions."""

    def __init__(self) -> None:
        self.assigned, self.asked, self.done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def on_partitions_revoked(self, revoked: object) -> None:
        if self.assigned.is_set():
            self.asked.set()
            await self.done.wait()

    async def on_partitions_assigned(self, assigned: object) -> None:
        self.assigned.set()


async def test_a_worker_that_waits_for_its_partitions_stops_when_asked_to(
    streamlens_broker: str, streamlens_bus_url: str, tmp_path: Path
) -> None:
    async with open_bus(streamlens_bus_url) as bus, asyncio.timeout(60):
        await bus.create_topics(*run_topics(PARTITIONS))
        prefix = streamlens_bus_url.rpartition("/")[2]
        busy, stopping = _Busy(), asyncio.Event()
        other = AIOKafkaConsumer(
            bootstrap_servers=streamlens_broker, group_id=f"{prefix}.features", max_poll_interval_ms=300_000
        )
        await other.start()
        try:
            other.subscribe([f"{prefix}.{RATINGS}"], listener=busy)
            await busy.assigned.wait()
            worker = FeatureWorker(WorkerOptions(bus.url, store_url(tmp_path), run_id="run"))
            running = asyncio.create_task(worker.run(stopping))
            await busy.asked.wait()
            stopping.set()
            await asyncio.wait_for(running, 8)
            assert not worker.ingest.writer.cursors
        finally:
            busy.done.set()
            await other.stop()


class Child:
    """A worker process that tells which partitions it holds."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.held: set[int] = set()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.held = set(map(int, line.split()))

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()
        await self._reading


@asynccontextmanager
async def child(bus: Bus, folder: Path, name: str) -> AsyncIterator[Child]:
    arguments = (bus.url, store_url(folder), name)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, *arguments, stdout=PIPE, stderr=DEVNULL
    )
    started = Child(process)
    try:
        yield started
    finally:
        await started.end()


@pytest.mark.slow
async def test_two_workers_share_the_partitions_and_survive_a_kill(streamlens_bus_url: str, tmp_path: Path) -> None:
    """On a rebalance the one stops writing what the other goes on with, from the applied offset; nothing twice."""
    async with open_bus(streamlens_bus_url) as bus, AsyncExitStack() as workers:
        await bus.create_topics(*run_topics(PARTITIONS))
        replaying = asyncio.create_task(replay(bus, rate=250))
        first = await workers.enter_async_context(child(bus, tmp_path, "first"))
        await until(lambda: len(first.held) == PARTITIONS and applied(tmp_path) > 0)
        second = await workers.enter_async_context(child(bus, tmp_path, "second"))
        await until(lambda: len(first.held) == len(second.held) == 2)
        assert first.held.isdisjoint(second.held)
        second.process.kill()
        await until(lambda: len(first.held) == PARTITIONS)
        third = await workers.enter_async_context(child(bus, tmp_path, "third"))
        await until(lambda: len(first.held) == len(third.held) == 2)
        await first.end()  # asked to, it leaves the group: nobody waits for the ten seconds after which it is missed
        await until(lambda: len(third.held) == PARTITIONS, limit_s=7)
        await replaying
        await until(lambda: applied(tmp_path) == TRAINING + LIVE)
        assert third.process.returncode is None
        report = await verify(bus, store_url(tmp_path))
        assert report.ok, report.as_dict()

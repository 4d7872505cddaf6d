"""Replay, features and loop side by side on a bus, with monitors and a trainer that are slow, or not there."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from agents.alignment import Gate
from agents.loop_worker import LoopOptions, LoopWorker
from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from models.interactions import Interactions
from models.kinds import make_model
from models.registry import Registry
from models.versions import Manifest, write_manifest
from streamlens.loop_status import loop_status
from streams.bus import open_bus
from streams.dataset import open_dataset, open_movies
from streams.events import DAY_S, FEEDBACK, IMPRESSIONS, METRICS, RATINGS, Metric
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, plan_replay
from streams.testing import eventually
from tests.agents.loop_world import EXPERIMENT

WORLD = "synthetic:ratings=4000,users=100,movies=400,seed=1"
OPTIONS = ReplayOptions(speed=math.inf, partitions=2)


def live_from() -> int:
    return plan_replay(open_dataset(WORLD), OPTIONS).split.cutoff


def urls(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db"


async def replay(folder: Path) -> None:
    async with open_bus(urls(folder)[0]) as bus:
        await Replayer(open_dataset(WORLD), bus, OPTIONS, run_id="run").replay()


@asynccontextmanager
async def working(worker: FeatureWorker | LoopWorker) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await running


def features(folder: Path) -> FeatureWorker:
    catalogue = Catalogue(open_movies(WORLD).values())
    return FeatureWorker(WorkerOptions(*urls(folder), run_id="run", partitions=2, catalogue=catalogue))


def loop(folder: Path, *, records_at_once: int = 10_000) -> LoopWorker:
    gate = Gate(live_from())
    options = LoopOptions(
        *urls(folder),
        folder / "models",
        run_id="run",
        partitions=2,
        experiment=EXPERIMENT,
        gate=gate,
        records_at_once=records_at_once,
    )
    return LoopWorker(options)


def train(folder: Path) -> None:
    """What the trainer's first job leaves."""
    ratings = Interactions.concat(Interactions.of_ratings(chunk) for chunk in open_dataset(WORLD).chunks())
    registry = Registry(folder / "models")
    with registry.draft() as draft:
        model = make_model("popularity").fit(ratings.before(live_from()))
        model.save(draft / "version")
        write_manifest(
            draft / "version",
            Manifest(
                version_id="popularity-0",
                kind="popularity",
                created_at="2026-01-01T00:00:00+00:00",
                as_of=live_from(),
                seed=0,
                hyperparameters=model.hyperparameters,
                n_ratings=1,
                n_users=1,
                n_movies=1,
            ),
        )
        registry.promote(registry.add(draft / "version"), by="test", why="first", effective=live_from())
    with closing(sqlite3.connect(folder / "trainer.db")) as database:
        database.execute("CREATE TABLE jobs (id TEXT, kind TEXT, due INTEGER, state TEXT, reason TEXT)")
        database.execute("INSERT INTO jobs VALUES ('i', 'initial', ?, 'done', '')", (live_from(),))
        database.commit()


def close_days(folder: Path, closed: int) -> None:
    """What the monitors leave."""
    with closing(sqlite3.connect(folder / "monitors.db")) as database:
        database.execute("CREATE TABLE IF NOT EXISTS monitor (id INTEGER PRIMARY KEY, closed INTEGER, state BLOB)")
        database.execute("CREATE TABLE IF NOT EXISTS requests (id TEXT, event_time INTEGER, due INTEGER, model TEXT)")
        database.execute("INSERT OR REPLACE INTO monitor VALUES (1, ?, NULL)", (closed,))
        database.commit()


async def topics_of(folder: Path) -> dict[tuple[str, int], list[bytes]]:
    """What was published, each record once: at least once is what is promised, with ids."""
    found: dict[tuple[str, int], dict[int, bytes]] = {}
    async with open_bus(urls(folder)[0]) as bus, await bus.consumer(IMPRESSIONS, FEEDBACK) as consumer:
        while batches := await consumer.fetch(timeout_s=0.1):
            for batch in batches:
                for value in batch.values:
                    event_id = msgspec.json.decode(value)["event_id"]
                    first = found.setdefault((batch.topic, batch.partition), {}).setdefault(event_id, value)
                    assert first == value
    return {key: [records[i] for i in sorted(records)] for key, records in sorted(found.items())}


def ended(worker: LoopWorker) -> Callable[[], bool]:
    def check() -> bool:
        cursors = worker.ingest.steps.writer.cursors
        return len(cursors) == 2 and all(cursor.end_of_run for cursor in cursors.values())

    return check


async def test_two_runs_at_different_speeds_publish_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        train(folder)

    async def all_is_ready() -> None:
        close_days(first, 1 << 40)
        worker = loop(first)
        async with working(features(first)), working(worker):
            await replay(first)
            await eventually(ended(worker), 60)

    async def others_come_bit_by_bit() -> None:
        """The loop first; features go away and come again, monitors close a week at a time, the loop is restarted."""
        at_work = loop(second, records_at_once=50)
        async with working(at_work):
            await replay(second)
            async with working(features(second)):
                await eventually(lambda: at_work.ingest.steps.stats.records > 100)
        async with working(features(second)):
            for closed in range(live_from() - 2 * DAY_S, live_from() + 40 * DAY_S, 20 * DAY_S):
                close_days(second, closed)
                worker = loop(second, records_at_once=200)
                async with working(worker):
                    await eventually(lambda: sum("monitors" in why for why in worker.ingest.steps.waits.values()) == 2)  # noqa: B023
            close_days(second, 1 << 40)
            worker = loop(second)
            async with working(worker):
                await eventually(ended(worker), 60)

    await all_is_ready()
    await others_come_bit_by_bit()
    published = await topics_of(first)
    assert published.keys() == {(topic, p) for topic in (FEEDBACK, IMPRESSIONS) for p in (0, 1)}
    assert sum(map(len, published.values())) > 300
    assert await topics_of(second) == published


async def test_a_dead_monitor_shows_as_waiting_and_nothing_is_lost(tmp_path: Path) -> None:
    train(tmp_path)
    worker = loop(tmp_path)
    async with working(features(tmp_path)), working(worker):
        await replay(tmp_path)
        await eventually(lambda: len([why for why in worker.ingest.steps.waits.values() if "monitors" in why]) == 2)
        async with open_bus(urls(tmp_path)[0]) as bus:
            found = loop_status(urls(tmp_path)[1], tmp_path / "models", await bus.offsets(RATINGS), Gate(live_from()))
        assert found is not None
        assert any("the monitors to close" in why for why in found["waits"])
        assert found["lag"] > 0
        close_days(tmp_path, 1 << 40)
        await eventually(ended(worker), 60)
    async with open_bus(urls(tmp_path)[0]) as bus:
        found = loop_status(urls(tmp_path)[1], tmp_path / "models", await bus.offsets(RATINGS), Gate(live_from()))
    assert found is not None
    assert (found["lag"], found["waits"]) == (0, [])
    assert found["variants"].keys() == {"a", "b", "c"}
    assert sum(one["slates"] for one in found["variants"].values()) > 50
    assert all(0 <= one["ctr"] <= 1 for one in found["variants"].values())


async def test_metrics_tell_of_slates_and_latency(tmp_path: Path) -> None:
    train(tmp_path)
    close_days(tmp_path, 1 << 40)
    worker = loop(tmp_path)
    async with working(features(tmp_path)), working(worker):
        await replay(tmp_path)
        await eventually(ended(worker), 60)
        seen: set[tuple[str, str]] = set()
        wanted = {("loop.ctr", "a"), ("loop.slates", "b"), ("loop.clicks", "c"), ("loop.latency_ms", "p95")}
        async with asyncio.timeout(30), open_bus(urls(tmp_path)[0]) as bus, await bus.consumer(METRICS) as consumer:
            while not wanted <= seen:
                for batch in await consumer.fetch():
                    for value in batch.values:
                        metric = msgspec.json.decode(value, type=Metric)
                        seen |= {(metric.name, label) for label in metric.labels.values()}


def test_a_worker_that_holds_nothing_has_nothing_to_tell(tmp_path: Path) -> None:
    worker = loop(tmp_path)
    assert worker.metrics.take({0: 5}) == []
    worker.ingest.steps.close()


@pytest.mark.parametrize("aligned", [True, False])
def test_status_without_a_loop_is_none(tmp_path: Path, aligned: bool) -> None:
    assert loop_status(urls(tmp_path)[1], tmp_path / "models", {}, Gate(0, aligned)) is None

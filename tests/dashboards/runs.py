"""A run for the pages to show, made in a second: movies, ratings with drift in them, a store, two trained models."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from agents.worker import FeatureWorker, WorkerOptions
from dashboards.run_target import Pointer
from featurestore.catalogue import Catalogue
from models.interactions import Interactions
from models.kinds import make_model
from models.registry import Registry, Version
from models.side_features import SideFeatures
from models.versions import Manifest, Validation, new_version_id, write_manifest
from streams.bus import open_bus
from streams.dataset import open_dataset, open_movies
from streams.events import DAY_S, RATINGS, Rating, Tick
from streams.replay_options import ReplayOptions
from streams.replayer import plan_replay
from streams.run import RunFolder, WeekSplitInfo, start_run
from streams.topics import run_topics

__all__ = [
    "ROOT",
    "WORLD",
    "add_version",
    "finished",
    "make_run",
    "pointer_to",
    "publish",
    "ratings_of",
    "replay",
    "values",
    "work_until",
]

T = TypeVar("T")

ROOT = Path(__file__).parent.parent.parent
WORLD = "synthetic:ratings=6000,users=150,movies=400,seed=3"


def finished(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns, in a thread of its own: Playwright keeps an event loop in the tests' thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def make_run(var: Path, data: str = WORLD, **options: Any) -> RunFolder:
    """A run without a log yet, the current one of ``var``; options: of the replay, by default from week 10 on."""
    dataset = open_dataset(data)
    chosen = ReplayOptions(**({"week": 10} | options))
    plan = plan_replay(dataset, chosen)
    return start_run(
        var,
        data=data,
        data_fingerprint=dataset.fingerprint,
        options=chosen.as_dict(),
        split=WeekSplitInfo(plan.split.start, plan.split.cutoff, plan.n_training, plan.split.n_live),
        new_run=True,
    )


def ratings_of(run: RunFolder) -> Interactions:
    """All of the run's data, in their order."""
    return Interactions.concat(map(Interactions.of_ratings, open_dataset(run.info.data).chunks()))


async def replay(run: RunFolder, first: int, last: int) -> None:
    """Publish the ratings ``first`` to ``last`` of the run's data, then ticks: as the replayer would, stopped there."""
    ratings = ratings_of(run)
    partitions = int(run.info.options["partitions"])
    async with open_bus(run.bus_url) as bus:
        await bus.create_topics(*run_topics(partitions))
        async with bus.producer() as producer:
            for i in range(first, last):
                user_id, movie_id = int(ratings.user_id[i]), int(ratings.movie_id[i])
                at = int(ratings.timestamp[i])
                rating = Rating(user_id, movie_id, float(ratings.rating[i]), at, source=run.run_id, event_id=i + 1)
                await producer.send(RATINGS, msgspec.json.encode(rating), key=str(user_id).encode())
            tick = Tick(int(ratings.timestamp[last - 1]) // DAY_S * DAY_S, run.run_id, last)
            for partition in range(partitions):
                await producer.send(RATINGS, msgspec.json.encode(tick), partition=partition)
            await producer.flush()


async def work_until(run: RunFolder, n: int) -> None:
    """Have a features worker apply ``n`` ratings, and publish metrics of it."""
    catalogue = Catalogue(open_movies(run.info.data).values())
    options = WorkerOptions(run.bus_url, run.store_url, run.run_id, catalogue=catalogue)
    worker, stopping = FeatureWorker(options), asyncio.Event()

    async def stop_when_done() -> None:
        while sum(c.ratings + c.duplicates for c in worker.ingest.writer.cursors.values()) < n:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        stopping.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(worker.run(stopping))
        group.create_task(stop_when_done())


def publish(run: RunFolder, topic: str, records: Sequence[object]) -> None:
    """Publish records, those of one user to one partition."""

    async def main() -> None:
        async with open_bus(run.bus_url) as bus, bus.producer() as producer:
            for record in records:
                user_id = getattr(record, "user_id", None)
                key = None if user_id is None else str(user_id).encode()
                await producer.send(topic, msgspec.json.encode(record), key=key)
            await producer.flush()

    finished(main())


async def values(run: RunFolder, topic: str) -> list[bytes]:
    """All records of a topic, as they are now."""
    async with open_bus(run.bus_url) as bus:
        ends = {tp: held.end for tp, held in (await bus.offsets(topic)).items()}
        found: list[bytes] = []
        async with await bus.consumer(topic) as consumer:
            while unread := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
                for batch in await consumer.fetch(partitions=unread):
                    found += batch.values
        return found


def add_version(run: RunFolder, kind: str, *, as_of: int, **hyperparameters: object) -> Version:
    """A model of the run's ratings before ``as_of``, with a validation window of the last tenth."""
    ratings = ratings_of(run).before(as_of)
    features = SideFeatures.of_catalogue(Catalogue(open_movies(run.info.data).values()))
    model = make_model(kind, **hyperparameters).fit(ratings, features)
    start = int(np.quantile(ratings.timestamp, 0.9))
    manifest = Manifest(
        version_id=new_version_id(kind, as_of),
        kind=kind,
        created_at=f"2026-11-27T04:00:0{len(Registry(run.path / 'models').versions())}.000+00:00",
        as_of=as_of,
        seed=0,
        hyperparameters=model.hyperparameters,
        n_ratings=len(ratings),
        n_users=len(np.unique(ratings.user_id)),
        n_movies=len(model.movie_ids),
        validation=Validation(
            start,
            40,
            120,
            {"ctr": (0.05, 0.04, 0.06), "ndcg": (0.2, 0.15, 0.25)},
            {"popularity": {"ctr": (0.03, 0.02, 0.04)}},
        ),
    )
    registry = Registry(run.path / "models")
    with registry.draft() as draft:
        model.save(draft / "version")
        write_manifest(draft / "version", manifest)
        return registry.add(draft / "version")


def pointer_to(var: Path) -> str:
    """What the pages are told in their environment."""
    return msgspec.json.encode(Pointer(str(var))).decode()

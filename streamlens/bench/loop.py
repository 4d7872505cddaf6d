"""How fast one loop worker makes slates and feedback of a log of ratings, and how soon a rating's slate is there.

The features of the log are applied before, so that the loop alone is measured: ``events_per_s`` counts ratings from
joining the group to the last one committed, everything on. Models have random arrays of the usual sizes, see
:mod:`streamlens.bench.sized_models`; every variant shows the one model. For latency replayer, features worker and loop
run beside each other.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from agents.alignment import Gate
from agents.loop_store import loop_url, open_loop_store
from agents.loop_worker import LoopOptions, LoopWorker
from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from featurestore.reader import FeatureReader
from models.registry import Registry
from models.versions import Manifest, write_manifest
from streamlens.bench.processes import in_fresh_process, max_rss_mb, started
from streamlens.bench.sized_models import sized_model
from streamlens.bench.workload import drain
from streams.batch import decode_ratings
from streams.bus import open_bus
from streams.dataset import open_dataset, open_movies
from streams.errors import StoreError
from streams.events import IMPRESSIONS, RATINGS, Slate, Tick
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer

__all__ = ["run"]

_MOVIES = 4_000
_KINDS = ("two-tower", "ease", "vae")
_RATE = 1_000.0
_LATENCY_EVENTS = 15_000
_VARIABLE = "OPENBLAS_NUM_THREADS"

_decoder = msgspec.json.Decoder(Slate | Tick)


def run(events: int = 1_000_000, rounds: int = 1) -> dict[str, Any]:
    """Events and slates per second by model, the median over ``rounds``; latency with two-tower at 1,000 events/s."""
    world = f"synthetic:ratings={events},movies={_MOVIES},seed=0"
    figures: dict[str, Any] = {"events": events}
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as name, _one_blas_thread():
        folder = Path(name)
        bus_url = f"sqlite:///{folder}/bus.db"
        in_fresh_process(_fill, bus_url, world, ReplayOptions(speed=math.inf))
        in_fresh_process(drain, bus_url, f"sqlite:///{folder}/features.db", world)
        for kind in _KINDS:
            in_fresh_process(_register, folder / kind, kind, world)
            found = []
            for _ in range(rounds):
                for file in folder.glob("loop.db*"):
                    file.unlink()
                found.append(in_fresh_process(_loop, folder, folder / kind))
            key = "" if kind == _KINDS[0] else f"{kind.replace('-', '_')}_"
            figures[f"{key}events_per_s"] = round(statistics.median(events / seconds for seconds, _, _ in found))
            figures[f"{key}slates_per_s"] = round(statistics.median(slates / seconds for seconds, slates, _ in found))
            figures[f"{key}max_rss_mb"] = round(max(rss for _, _, rss in found))
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as name, _one_blas_thread():
        in_fresh_process(_register, Path(name) / "models", _KINDS[0], world)
        figures |= _latency(Path(name), Path(name) / "models", world)
    return figures


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """In the processes started meanwhile, as the command line has it for a loop."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def _fill(bus_url: str, world: str, options: ReplayOptions) -> None:
    async def main() -> None:
        async with open_bus(bus_url) as bus:
            await Replayer(open_dataset(world), bus, options, run_id="bench").replay()

    asyncio.run(main())


def _register(folder: Path, kind: str, world: str) -> None:
    """A registry whose champion is a model of that kind, over the world's movies."""
    movie_ids = np.array(sorted(open_movies(world)), np.int64)
    rated = np.concatenate([np.searchsorted(movie_ids, chunk.movie_id) for chunk in open_dataset(world).chunks()])
    popularity = (1 + np.bincount(rated, minlength=len(movie_ids))).astype(np.float32)
    registry = Registry(folder)
    with registry.draft() as draft:
        model = sized_model(kind, movie_ids, popularity, draft / "version")
        manifest = Manifest(
            version_id=f"{kind}-bench",
            kind=kind,
            created_at=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            as_of=0,
            seed=0,
            hyperparameters=model.hyperparameters,
            n_ratings=len(rated),
            n_users=0,
            n_movies=len(movie_ids),
        )
        write_manifest(draft / "version", manifest)
        registry.promote(registry.add(draft / "version"), by="bench", why="measured")


def _loop(folder: Path, models: Path) -> tuple[float, int, float]:
    """Seconds until all is done, slates made, and the process's peak memory."""
    return asyncio.run(_drain(f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db", models))


async def _drain(bus_url: str, store_url: str, models: Path) -> tuple[float, int, float]:
    async with open_bus(bus_url) as bus:
        ends = {tp.partition: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
    worker = LoopWorker(LoopOptions(bus_url, store_url, models, gate=Gate(aligned=False)))
    stopping = asyncio.Event()
    began = time.perf_counter()
    running = asyncio.create_task(worker.run(stopping))
    while not running.done():
        cursors = worker.ingest.steps.writer.cursors
        if cursors and all(cursors[p].next_offset >= end for p, end in ends.items()):
            break
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - began
    stopping.set()
    await running
    return seconds, worker.ingest.steps.stats.slates, max_rss_mb()


def _latency(folder: Path, models: Path, world: str) -> dict[str, Any]:
    """From a rating's publishing time to that of the slate it triggered, all in processes of their own."""
    bus_url, store_url = f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db"
    workers = [started(_keep_features, bus_url, store_url, world), started(_make_slates, bus_url, store_url, models)]
    try:
        _wait_for_assignment(store_url)
        options = ReplayOptions(week=1, start="1990-01-01", rate=_RATE, arrival="poisson", limit=_LATENCY_EVENTS)
        in_fresh_process(_fill, bus_url, world, options)
        latencies = asyncio.run(_latencies_ms(bus_url))
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist()
    return {
        "latency_slates": len(latencies),
        "latency_p50_ms": round(p50, 1),
        "latency_p95_ms": round(p95, 1),
        "latency_p99_ms": round(p99, 1),
    }


def _keep_features(bus_url: str, store_url: str, world: str) -> None:
    catalogue = Catalogue(open_movies(world).values())
    asyncio.run(_until_terminated(FeatureWorker(WorkerOptions(bus_url, store_url, catalogue=catalogue))))


def _make_slates(bus_url: str, store_url: str, models: Path) -> None:
    asyncio.run(_until_terminated(LoopWorker(LoopOptions(bus_url, store_url, models, gate=Gate(aligned=False)))))


async def _until_terminated(worker: FeatureWorker | LoopWorker) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await worker.run(stopping)


def _wait_for_assignment(store_url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with FeatureReader(store_url) as reader, closing(open_loop_store(loop_url(store_url))) as loop:
                if reader.applied() and loop.rows("SELECT 1 FROM applied"):
                    return
        except StoreError:
            pass  # a worker has not made its own yet
        time.sleep(0.05)
    raise TimeoutError("the workers did not start within 60 s")


async def _latencies_ms(bus_url: str) -> npt.NDArray[np.float64]:
    """Waits for the end of the run on ``impressions``."""
    published: dict[tuple[int, int], int] = {}
    made: list[tuple[tuple[int, int], int]] = []
    async with open_bus(bus_url) as bus:
        partitions = (await bus.topics())[IMPRESSIONS].partitions
        async with asyncio.timeout(60), await bus.consumer(IMPRESSIONS) as consumer:
            ended = 0
            while ended < partitions:
                for batch in await consumer.fetch():
                    for value, at in zip(batch.values, batch.timestamps_ms.tolist(), strict=True):
                        record = _decoder.decode(value)
                        if isinstance(record, Slate):
                            made.append(((record.user_id, record.timestamp), at))
                        elif record.end_of_run:
                            ended += 1
        async with await bus.consumer(RATINGS) as consumer:
            while batches := await consumer.fetch(timeout_s=0.2):
                for batch in batches:
                    ratings = decode_ratings(batch)
                    at_ms = batch.timestamps_ms[np.searchsorted(batch.offsets, ratings.offset)].tolist()
                    users, times = ratings.user_id.tolist(), ratings.timestamp.tolist()
                    for user, time_s, at in zip(users, times, at_ms, strict=True):
                        published.setdefault((user, time_s), at)
    return np.array([at - published[trigger] for trigger, at in made], np.float64)

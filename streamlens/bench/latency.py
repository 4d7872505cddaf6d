"""From publishing a rating to seeing it in the store from another process, at a steady thousand events a second."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from featurestore.reader import FeatureReader
from streamlens.bench.buses import own_bus
from streamlens.bench.processes import started
from streamlens.bench.workload import world
from streams.bus import open_bus
from streams.dataset import open_dataset, open_movies
from streams.errors import StoreError
from streams.events import RATINGS
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer

__all__ = ["run"]

_POLL_S = 0.001


def run(events: int = 30_000, rate: float = 1_000.0, bus: str | None = None) -> dict[str, Any]:
    """Replayer, worker and observer in three processes; ``worker_cpu`` in cores, while records came."""
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder, own_bus(bus, Path(folder)) as bus_url:
        store_url = f"sqlite:///{folder}/features.db"
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        worker = started(_work, bus_url, store_url, world(2 * events), theirs)
        _wait_for_assignment(store_url)
        replayer = started(_replay, bus_url, world(2 * events), rate, events)
        seen = _observe(store_url, replayer, ours)
        assert worker.pid is not None
        worker.terminate()
        cpu_s = ours.recv()
        worker.join()
        latencies, span_s = asyncio.run(_latencies_ms(bus_url, seen))
    p50, p99 = np.percentile(latencies, [50, 99]).tolist()
    return {
        "events": len(latencies),
        "rate": rate,
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "max_ms": round(float(latencies.max()), 1),
        "worker_cpu": round(cpu_s / span_s, 3),
    }


def _work(bus_url: str, store_url: str, dataset: str, done: Connection) -> None:
    """A worker that measures its own CPU from its first record on, until SIGTERM."""

    async def main() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        catalogue = Catalogue(open_movies(dataset).values())
        worker = FeatureWorker(WorkerOptions(bus_url, store_url, catalogue=catalogue))
        running = asyncio.create_task(worker.run(stopping))
        while not worker.ingest.stats.records and not running.done():  # noqa: ASYNC110 (nothing to wait on from here)
            await asyncio.sleep(0.01)
        began = time.process_time()
        await running
        done.send(time.process_time() - began)

    asyncio.run(main())


def _replay(bus_url: str, dataset: str, rate: float, events: int) -> None:
    async def main() -> None:
        async with open_bus(bus_url) as bus:
            options = ReplayOptions(week=1, start="1990-01-01", rate=rate, arrival="poisson", limit=events)
            await Replayer(open_dataset(dataset), bus, options, run_id="bench").replay()

    asyncio.run(main())


def _wait_for_assignment(store_url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with FeatureReader(store_url) as reader:
                if reader.applied():
                    return
        except StoreError:
            pass  # the worker has not made it yet
        time.sleep(0.05)
    raise TimeoutError("the worker did not start within 60 s")


def _observe(store_url: str, replayer: Any, worker: Connection) -> dict[int, list[tuple[int, float]]]:
    """Per partition (applied offset, wall time in ms when another process first saw it), until the run has ended."""
    seen: dict[int, list[tuple[int, float]]] = {}
    with FeatureReader(store_url) as reader:
        while True:
            rows = reader.applied()
            now_ms = time.time() * 1_000
            for row in rows:
                history = seen.setdefault(row.partition, [])
                if not history or history[-1][0] != row.next_offset:
                    history.append((row.next_offset, now_ms))
            if all(row.end_of_run for row in rows) or worker.poll() or replayer.exitcode not in (None, 0):
                return seen
            time.sleep(_POLL_S)


async def _latencies_ms(
    bus_url: str, seen: dict[int, list[tuple[int, float]]]
) -> tuple[npt.NDArray[np.float64], float]:
    """Each record's latency, and the seconds over which they were published."""
    parts, published = [], []
    async with open_bus(bus_url) as bus, await bus.consumer(RATINGS) as consumer:
        while batches := await consumer.fetch(timeout_s=0.2):
            for batch in batches:
                offsets = np.array([offset for offset, _ in seen[batch.partition]])
                times = np.array([at for _, at in seen[batch.partition]])
                visible = times[np.searchsorted(offsets, batch.offsets, side="right")]
                parts.append(visible - batch.timestamps_ms)
                published.append(batch.timestamps_ms)
    times_ms = np.concatenate(published)
    return np.concatenate(parts), float(times_ms.max() - times_ms.min()) / 1_000

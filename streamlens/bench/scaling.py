"""Whether two workers do as much for their CPU as one does: each number of them drains the same backlog, in turns."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from featurestore.reader import FeatureReader
from featurestore.verify import verify
from streamlens.bench.buses import on_kafka, own_bus
from streamlens.bench.processes import in_fresh_process, started
from streamlens.bench.stores import own_store
from streamlens.bench.workload import fill_log, world
from streams.bus import open_bus
from streams.dataset import open_movies
from streams.errors import ConfigError, StoreError, StreamLensError
from streams.events import RATINGS

__all__ = ["run"]

_WORKERS = (1, 2)
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class _Drain:
    """A backlog drained by some workers: the ratings that each applied, their CPU in all, and the time it took."""

    ratings: list[int]
    cpu_s: float
    wall_s: float

    @property
    def events_per_cpu_s(self) -> float:
        return sum(self.ratings) / self.cpu_s


def run(events: int = 2_000_000, rounds: int = 3, bus: str | None = None, store: str | None = None) -> dict[str, Any]:
    """Ratings per CPU second of all workers together, by one and by two; every store is verified.

    ratio: of two workers to one, median over ``rounds``. shares: the part of the ratings that each of two applied.
    Raises StreamLensError where a store differs from the log: something was lost, or applied twice.
    """
    if bus is None or not on_kafka(bus):
        raise ConfigError("--bus: expected kafka://HOST:PORT, found none; on the embedded bus a group has one worker")
    drains: dict[int, list[_Drain]] = {workers: [] for workers in _WORKERS}
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder, own_bus(bus, Path(folder)) as bus_url:
        in_fresh_process(fill_log, bus_url, events)
        for _ in range(rounds):
            for workers in _WORKERS:
                with own_store(store, Path(folder)) as store_url:
                    drains[workers].append(_drain(bus_url, store_url, world(events), workers))
                    in_fresh_process(_verify, bus_url, store_url)
    one, two = drains[1], drains[2]
    ratios = [b.events_per_cpu_s / a.events_per_cpu_s for a, b in zip(one, two, strict=True)]
    return {
        "events": events,
        "events_per_cpu_s": round(statistics.median(drain.events_per_cpu_s for drain in one)),
        "events_per_cpu_s_two": round(statistics.median(drain.events_per_cpu_s for drain in two)),
        "ratio": round(statistics.median(ratios), 2),
        "events_per_s": round(statistics.median(events / drain.wall_s for drain in one)),
        "events_per_s_two": round(statistics.median(events / drain.wall_s for drain in two)),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "shares": [[round(ratings / events, 2) for ratings in drain.ratings] for drain in two],
    }


def _drain(bus_url: str, store_url: str, dataset: str, workers: int) -> _Drain:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [started(_work, bus_url, store_url, dataset, barrier, theirs) for _, theirs in pipes]
    ends = asyncio.run(_ends(bus_url))
    barrier.wait()
    began = time.perf_counter()
    while not _drained(store_url, ends) and all(process.is_alive() for process in processes):
        time.sleep(_POLL_S)
    wall_s = time.perf_counter() - began
    for process in processes:
        process.terminate()
    done = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return _Drain([ratings for ratings, _ in done], sum(cpu_s for _, cpu_s in done), wall_s)


def _work(bus_url: str, store_url: str, dataset: str, barrier: Any, done: Connection) -> None:
    """A worker until SIGTERM; what it applied, and its CPU from joining the group on."""
    catalogue = Catalogue(open_movies(dataset).values())
    worker = FeatureWorker(WorkerOptions(bus_url, store_url, catalogue=catalogue))
    barrier.wait()

    async def main() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        await worker.run(stopping)

    began_s = time.process_time()
    try:
        asyncio.run(main())
    finally:
        done.send((worker.ingest.stats.ratings, time.process_time() - began_s))


async def _ends(bus_url: str) -> dict[int, int]:
    async with open_bus(bus_url) as bus:
        return {tp.partition: held.end for tp, held in (await bus.offsets(RATINGS)).items()}


def _drained(store_url: str, ends: dict[int, int]) -> bool:
    try:
        with FeatureReader(store_url) as reader:
            applied = {row.partition: row.next_offset for row in reader.applied()}
    except StoreError:  # nobody has made it yet
        return False
    return all(applied.get(partition, 0) >= end for partition, end in ends.items())


def _verify(bus_url: str, store_url: str) -> None:
    async def check() -> None:
        async with open_bus(bus_url) as bus:
            report = await verify(bus, store_url)
        if not report.ok:
            raise StreamLensError(f"verify: expected the store to equal its log: {report.as_dict()}")

    asyncio.run(check())

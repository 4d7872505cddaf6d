"""What the benchmarks run on: a log of synthetic ratings, and one worker that drains it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from streamlens.bench.processes import max_rss_mb
from streams.bus import open_bus
from streams.dataset import open_dataset, open_movies
from streams.events import RATINGS
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, ReplaySummary

__all__ = ["Drained", "drain", "fill_log", "world"]


def world(events: int, seed: int = 0) -> str:
    """The name of the synthetic world of so many ratings."""
    return f"synthetic:ratings={events},seed={seed}"


async def _replay(bus_url: str, events: int, seed: int) -> ReplaySummary:
    dataset = open_dataset(world(events, seed))
    async with open_bus(bus_url) as bus:
        return await Replayer(dataset, bus, ReplayOptions(speed=math.inf), run_id=f"bench{seed}").replay()


def fill_log(bus_url: str, events: int, seed: int = 0) -> ReplaySummary:
    """Replay a synthetic world of ``events`` ratings into the bus at full speed."""
    return asyncio.run(_replay(bus_url, events, seed))


@dataclass(frozen=True, slots=True)
class Drained:
    """A log drained by one worker. ``seconds``: from joining the group to the last rating committed in the store."""

    ratings: int
    seconds: float
    max_rss_mb: float


def drain(bus_url: str, store_url: str, dataset: str, on_poll: Callable[[int], None] | None = None) -> Drained:
    """Run one features worker, with everything on, until it has applied all that the log holds.

    dataset: the name of the ratings' dataset, whose movies the store is built with.
    on_poll: called about a hundred times a second with the number of ratings applied so far.
    """
    return asyncio.run(_drain(bus_url, store_url, dataset, on_poll))


async def _drain(bus_url: str, store_url: str, dataset: str, on_poll: Callable[[int], None] | None) -> Drained:
    async with open_bus(bus_url) as bus:
        ends = {tp.partition: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
    catalogue = Catalogue(open_movies(dataset).values())
    worker = FeatureWorker(WorkerOptions(bus_url, store_url, catalogue=catalogue))
    stopping = asyncio.Event()
    began = time.perf_counter()
    running = asyncio.create_task(worker.run(stopping))
    while not running.done():
        cursors = worker.ingest.writer.cursors
        if on_poll is not None:
            on_poll(sum(cursor.ratings for cursor in cursors.values()))
        if cursors and all(cursors[p].next_offset >= end for p, end in ends.items()):
            break
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - began
    stopping.set()
    await running
    ratings = sum(cursor.ratings for cursor in worker.ingest.writer.cursors.values())
    return Drained(ratings, seconds, max_rss_mb())

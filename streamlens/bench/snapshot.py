"""Snapshots from another process, one after the other, while a worker ingests at full speed; and what ingest loses."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.reader import FeatureReader
from featurestore.snapshot import take_snapshot
from featurestore.snapshot_tables import INTERACTIONS
from streamlens.bench.processes import in_fresh_process, max_rss_mb
from streamlens.bench.workload import drain, fill_log, world
from streamlens.priority import yield_to_ingest
from streams.dataset import open_dataset
from streams.errors import ConfigError, StoreError

__all__ = ["run"]

_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Progress:
    """How many ratings one drain had applied, by ``time.monotonic``, which processes of one machine share."""

    at_s: list[float]
    ratings: list[int]

    def ratings_at(self, moment: float) -> float:
        return float(np.interp(moment, self.at_s, self.ratings))

    def seconds_between(self, first: float, last: float) -> float:
        """Seconds from the rating numbered ``first`` to that numbered ``last``."""
        return float(np.interp(last, self.ratings, self.at_s) - np.interp(first, self.ratings, self.at_s))


@dataclass(frozen=True, slots=True)
class _Taken:
    """The snapshots of one drain. ``seconds``: of each, from the call to the folder in its place."""

    began_s: float
    ended_s: float
    seconds: list[float]
    interactions: int
    max_rss_mb: float


def run(events: int = 3_000_000) -> dict[str, Any]:
    """Snapshots as of the event time at which a third of the ``events`` ratings were applied, until all of them are.

    seconds: median of one snapshot; slowdown: by how much less is ingested while they are taken, against the same
    ratings of a drain without; median over rounds, in each of which both drains take turns, in fresh processes.
    """
    rounds = []
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder:
        bus_url = f"sqlite:///{folder}/bus.db"
        in_fresh_process(fill_log, bus_url, events)
        for turn in range(_ROUNDS):
            alone = in_fresh_process(_drain, bus_url, f"sqlite:///{folder}/alone-{turn}.db", events)
            beside, taken = _drain_beside_snapshots(bus_url, Path(folder) / f"beside-{turn}", events)
            rounds.append((alone, beside, taken))
    slowdowns = [_slowdown(*one) for one in rounds]
    seconds = [second for _, _, taken in rounds for second in taken.seconds]
    return {
        "events": events,
        "interactions": min(taken.interactions for _, _, taken in rounds),
        "snapshots": len(seconds),
        "seconds": round(statistics.median(seconds), 2),
        "max_seconds": round(max(seconds), 2),
        "slowdown": round(statistics.median(slowdowns), 3),
        "max_rss_mb": round(max(taken.max_rss_mb for _, _, taken in rounds)),
        "rounds": [
            {"seconds": [round(s, 2) for s in taken.seconds], "slowdown": round(slowdown, 3)}
            for (_, _, taken), slowdown in zip(rounds, slowdowns, strict=True)
        ],
    }


def _slowdown(alone: _Progress, beside: _Progress, taken: _Taken) -> float:
    """The part of the ingest rate that was lost between the first snapshot's beginning and the last one's end."""
    first, last = beside.ratings_at(taken.began_s), beside.ratings_at(taken.ended_s)
    return 1 - alone.seconds_between(first, last) / beside.seconds_between(first, last)


def _drain(bus_url: str, store_url: str, events: int) -> _Progress:
    at_s: list[float] = []
    ratings: list[int] = []

    def watch(applied: int) -> None:
        if not ratings or applied > ratings[-1]:  # a transaction's ratings are applied at its end, all at once
            at_s.append(time.monotonic())
            ratings.append(applied)

    drain(bus_url, store_url, world(events), watch)
    return _Progress(at_s, ratings)


def _drain_beside_snapshots(bus_url: str, folder: Path, events: int) -> tuple[_Progress, _Taken]:
    folder.mkdir()
    store_url = f"sqlite:///{folder}/features.db"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        taking = pool.submit(_take_snapshots, store_url, folder, events)
        draining = pool.submit(_drain, bus_url, store_url, events)
        return draining.result(), taking.result()


def _take_snapshots(store_url: str, folder: Path, events: int) -> _Taken:
    yield_to_ingest()
    as_of = open_dataset(world(events)).timestamp_at(events // 3)
    with FeatureReader(_when_made(store_url)) as reader:
        while reader.clock() < as_of:
            time.sleep(0.02)
        began_s, seconds, interactions = time.monotonic(), [], 0
        while (applied := sum(row.ratings for row in reader.applied())) < events * 0.9:
            began = time.monotonic()
            manifest = take_snapshot(store_url, folder / f"snapshot-{applied}", as_of)
            seconds.append(time.monotonic() - began)
            interactions = manifest.files[INTERACTIONS].rows
    if not seconds:
        raise ConfigError(f"--events: expected enough to last for a snapshot, well over 1,000,000, found {events:,}")
    return _Taken(began_s, time.monotonic(), seconds, interactions, max_rss_mb())


def _when_made(store_url: str) -> str:
    """Wait until a worker has made the store."""
    while True:
        try:
            FeatureReader(store_url).close()
        except StoreError:
            time.sleep(0.02)
        else:
            return store_url

"""Reading features from another process while a worker ingests at full speed."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from typing import Any

import numpy as np

from featurestore.reader import FeatureReader
from streamlens.bench.processes import in_fresh_process
from streamlens.bench.workload import drain, fill_log, world
from streams.errors import ConfigError, StoreError

__all__ = ["run"]

_WARM_RATINGS = 200_000


def run(events: int = 2_000_000) -> dict[str, Any]:
    """p50 and p99 of one user's features plus one item's windows, and of a hundred users in one call, in ms."""
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder:
        bus_url, store_url = f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db"
        in_fresh_process(fill_log, bus_url, events)
        worker = multiprocessing.get_context("spawn").Process(target=drain, args=(bus_url, store_url, world(events)))
        worker.start()
        users, movies = _warm(store_url, worker)
        one, hundred = _read_while_alive(store_url, worker, users, movies)
        worker.join()
    return {
        "reads": len(one),
        "p50_ms": round(float(np.percentile(one, 50)), 3),
        "p99_ms": round(float(np.percentile(one, 99)), 3),
        "p50_ms_100": round(float(np.percentile(hundred, 50)), 3),
        "p99_ms_100": round(float(np.percentile(hundred, 99)), 3),
    }


def _warm(store_url: str, worker: Any) -> tuple[list[int], list[int]]:
    """Wait until there is something to read; some users and movies that have ratings."""
    while worker.is_alive():
        time.sleep(0.05)
        if not (reader := _try_open(store_url)):
            continue
        with reader:
            if sum(row.ratings for row in reader.applied()) >= _WARM_RATINGS:
                return reader.user_ids(limit=1_000), reader.movie_ids(limit=1_000)
    raise ConfigError(f"--events: expected enough to read while they are applied, well over {_WARM_RATINGS:,}")


def _try_open(store_url: str) -> FeatureReader | None:
    try:
        return FeatureReader(store_url)
    except StoreError:
        return None


def _read_while_alive(
    store_url: str, worker: Any, users: list[int], movies: list[int]
) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(0)
    one: list[float] = []
    hundred: list[float] = []
    with FeatureReader(store_url) as reader:
        while worker.is_alive():
            user, movie = int(rng.choice(users)), int(rng.choice(movies))
            began = time.perf_counter()
            reader.get_user_features([user])
            reader.get_item_features([movie])
            one.append((time.perf_counter() - began) * 1_000)
            many = rng.choice(users, 100).tolist()
            began = time.perf_counter()
            reader.get_user_features(many)
            hundred.append((time.perf_counter() - began) * 1_000)
            time.sleep(0.001)
    return one, hundred

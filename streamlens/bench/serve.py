"""Recommendations for one user while ratings come in, for a thousand in one call, and over swaps of the model.

The serving process runs with one BLAS thread: beside ingest more of them wait for each other, and many users are shared
among threads of its own. Its models have random arrays of the usual sizes, see :mod:`streamlens.bench.sized_models`.
Replayer and worker stand back behind it (:func:`os.nice`): a batch applied 2 ms later is as good, an answer is not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from featurestore.reader import FeatureReader
from models.explanations import explain
from models.interactions import Histories, Interactions
from models.kinds import load_model
from models.serving import Server
from models.side_features import SideFeatures
from streamlens.bench.processes import in_fresh_process, started
from streamlens.bench.sized_models import SIZED_MODELS, sized_model
from streams.bus import open_bus
from streams.dataset import open_dataset, open_movies
from streams.errors import ConfigError, StoreError
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, plan_replay

__all__ = ["run"]

_MOVIES = 30_000
_USERS = 1_000
_RATE = 5_000.0
_INGEST_NICENESS = 5
_ASKED_PER_S = 100.0
_REQUESTS = 2_000
_EXPLAINED = 50
_OTHER_S = 25.0
"""What is not asked in: loading models, reasons, swaps."""
_SWAPS = 20
_WARM_UP = 20
_ROUNDS = 7
_CORES = os.cpu_count() or 1


def run(events: int = 1_600_000) -> dict[str, Any]:
    """Per model p50, p95, p99 in ms of a top ten with fold-in, history read from the store included, cache off.

    ``requests``: of each model, fewer with fewer events. ``cpu_p99``: of these, without waiting for a core.
    ``explain``: of the reasons for such a list. ``batch``: ms of one call for a thousand users, the median of some,
    without ingest beside it. ``swap``: requests answered and dropped while the model is swapped, and with what errors.

    Two fifths of the ratings come at 5,000 a second, which has to last for all models: raises ConfigError where it
    does not.
    """
    world = f"synthetic:ratings={events},movies={_MOVIES},users={max(_USERS, events // 150)},seed=0"
    options = ReplayOptions(rate=_RATE, arrival="poisson")
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as name, _one_blas_thread():
        folder = Path(name)
        bus_url, store_url = f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db"
        n_training, n_live = in_fresh_process(_prepare, folder, world, options)
        requests = int(min(_REQUESTS, _ASKED_PER_S * (n_live / _RATE - _OTHER_S) / len(SIZED_MODELS)))
        if requests < 1:
            raise ConfigError(f"--events: expected more than {_OTHER_S:.0f} s of ratings at {_RATE:.0f}/s; give more")
        worker = started(_work, bus_url, store_url, world)
        replayer = started(_replay, bus_url, world, options)
        try:
            figures = in_fresh_process(_during_ingest, folder, store_url, world, n_training, requests)
            lasted = replayer.is_alive()
        finally:
            for process in (replayer, worker):
                _end(process)
        if not lasted:
            raise ConfigError("--events: expected enough ratings to come in until all models were measured; give more")
        return {
            "movies": _MOVIES,
            "requests": requests,
            **figures,
            **in_fresh_process(_many_at_once, folder, store_url),
        }


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """In the processes started meanwhile."""
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = before


def _prepare(folder: Path, world: str, options: ReplayOptions) -> tuple[int, int]:
    """Save the models; returns how many ratings come before the paced part, and in it."""
    dataset, catalogue = open_dataset(world), Catalogue(open_movies(world).values())
    movie_ids = np.array(sorted(catalogue.movies), np.int64)
    rated = np.concatenate([np.searchsorted(movie_ids, chunk.movie_id) for chunk in dataset.chunks()])
    popularity = (1 + np.bincount(rated, minlength=len(movie_ids))).astype(np.float32)
    for name in SIZED_MODELS:
        sized_model(name, movie_ids, popularity, folder / name, genre_names=catalogue.genres)
    plan = plan_replay(dataset, options)
    return plan.n_training, plan.n_total - plan.n_training


def _work(bus_url: str, store_url: str, world: str) -> None:
    """A features worker, until SIGTERM."""
    os.nice(_INGEST_NICENESS)

    async def main() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        catalogue = Catalogue(open_movies(world).values())
        await FeatureWorker(WorkerOptions(bus_url, store_url, catalogue=catalogue)).run(stopping)

    asyncio.run(main())


def _replay(bus_url: str, world: str, options: ReplayOptions) -> None:
    async def main() -> None:
        async with open_bus(bus_url) as bus:
            await Replayer(open_dataset(world), bus, options, run_id="bench").replay()

    os.nice(_INGEST_NICENESS)
    asyncio.run(main())


def _end(process: BaseProcess) -> None:
    process.terminate()
    process.join()


def _during_ingest(folder: Path, store_url: str, world: str, n_training: int, requests: int) -> dict[str, Any]:
    features = SideFeatures.of_catalogue(Catalogue(open_movies(world).values()))
    models = {name: load_model(folder / name) for name in SIZED_MODELS}
    figures: dict[str, Any] = {}
    with _live(store_url, n_training) as reader:
        users = np.array(reader.sample_users(_USERS))
        began, applied = time.perf_counter(), _applied(reader)
        for name, model in models.items():
            server = Server(cached_answers=0)
            server.swap(name, model)
            key = name.replace("-", "_")
            taken, on_cpu = _ask(server, reader, users, requests)
            figures |= _percentiles(key, taken) | {f"{key}_cpu_p99_ms": round(float(np.percentile(on_cpu, 99)), 2)}
            figures |= _percentiles(f"{key}_explain", _explain(server, reader, users, features))
        figures |= _swaps(models["mf"], models["two-tower"], store_url, users)
        rate = (_applied(reader) - applied) / (time.perf_counter() - began)
    best = ("mf", "two_tower", "vae", "ease")
    return {
        "ingest_per_s": round(rate),
        **{p: max(figures[f"{name}_{p}"] for name in best) for p in ("p50_ms", "p95_ms", "p99_ms")},
        **figures,
    }


@contextmanager
def _live(store_url: str, n_training: int) -> Iterator[FeatureReader]:
    """The store, once the paced part comes in."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with FeatureReader(store_url) as reader:
                if _applied(reader) > n_training:
                    yield reader
                    return
        except StoreError:
            pass  # the worker has not made it yet
        time.sleep(0.05)
    raise TimeoutError("the paced part was not reached within 120 s")


def _applied(reader: FeatureReader) -> int:
    return sum(row.ratings for row in reader.applied())


def _percentiles(key: str, milliseconds: list[float]) -> dict[str, float]:
    found = np.percentile(milliseconds, (50, 95, 99)).round(2).tolist()
    return dict(zip((f"{key}_p50_ms", f"{key}_p95_ms", f"{key}_p99_ms"), found, strict=True))


def _ask(server: Server, reader: FeatureReader, users: np.ndarray, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each answer to random users, asked at a steady rate; and those it was computed in."""
    random = np.random.default_rng(0)
    taken, on_cpu = [], []
    due = time.perf_counter()
    for _ in range(_WARM_UP + requests):
        due += 1 / _ASKED_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
        user = int(random.choice(users))
        began, cpu_began = time.perf_counter(), time.thread_time()
        server.recommend(Histories.of_stored(reader.history(user)))
        taken.append((time.perf_counter() - began) * 1_000)
        on_cpu.append((time.thread_time() - cpu_began) * 1_000)
    return taken[_WARM_UP:], on_cpu[_WARM_UP:]


def _explain(server: Server, reader: FeatureReader, users: np.ndarray, features: SideFeatures) -> list[float]:
    """Milliseconds of the reasons for one list each of the first users."""
    taken = []
    for user in users[:_EXPLAINED].tolist():
        history = Histories.of_stored(reader.history(user))
        listed = server.recommend(history).movie_ids
        began = time.perf_counter()
        explain(server.model(), history, listed, features)
        taken.append((time.perf_counter() - began) * 1_000)
    return taken


def _swaps(first: Any, second: Any, store_url: str, users: np.ndarray) -> dict[str, Any]:
    """Two threads ask while the model is swapped; an answer that fails, or is of no version, is dropped."""
    server = Server(cached_answers=0)
    server.swap("v0", first)
    done = threading.Event()
    counts = {"answered": 0, "dropped": 0}
    errors: Counter[str] = Counter()
    counting = threading.Lock()

    def ask() -> None:
        with FeatureReader(store_url) as reader:
            for user in np.resize(users, 100_000).tolist():
                if done.is_set():
                    return
                error = None
                try:
                    served = server.recommend(Histories.of_stored(reader.history(user)))
                    if served.version not in ("v0", "v1") or not len(served.movie_ids):
                        error = f"{len(served.movie_ids)} movies of version {served.version}"
                except Exception as failure:
                    error = f"{type(failure).__name__}: {failure}"
                with counting:
                    counts["dropped" if error else "answered"] += 1
                    errors.update([error] if error else [])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for swap in range(1, _SWAPS + 1):
        before = counts["answered"]
        server.swap(f"v{swap % 2}", second if swap % 2 else first)
        deadline = time.monotonic() + 5
        while counts["answered"] < before + 3 and not counts["dropped"] and time.monotonic() < deadline:
            time.sleep(0.002)
    done.set()
    for thread in threads:
        thread.join()
    named = "; ".join(f"{n} x {error}" for error, n in errors.most_common()) or "none"
    return {
        "swaps": _SWAPS,
        "swap_answered": counts["answered"],
        "swap_dropped": counts["dropped"],
        "swap_errors": named,
    }


def _many_at_once(folder: Path, store_url: str) -> dict[str, Any]:
    with FeatureReader(store_url) as reader:
        users = reader.sample_users(_USERS)
        rated = [(user, reader.history(user)) for user in users]
    histories = Histories.of_users(
        Interactions.concat(
            Interactions(np.full(len(h), user), h.movie_id, h.rating, h.timestamp) for user, h in rated
        ),
        np.array(users),
    )
    figures: dict[str, Any] = {"batch_users": len(histories), "batch_ratings": len(histories.movie_id)}
    for name in SIZED_MODELS:
        with Server(threads=_CORES) as server:
            server.swap(name, load_model(folder / name))
            taken = []
            for _ in range(1 if name == "neumf" else _ROUNDS):
                began = time.perf_counter()
                server.recommend_many(histories)
                taken.append((time.perf_counter() - began) * 1_000)
        figures[f"{name.replace('-', '_')}_batch_ms"] = round(float(np.median(taken)), 1)
    return figures

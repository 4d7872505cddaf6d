"""What the agents of a run tell, put on its bus: all of the past at once, then each second, as processes at work do.

So each panel of the pages has something to show, and is fresh.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from models.experiment_files import EXPERIMENT_JSON
from streams.bus import Producer, open_bus
from streams.drift import GROUND_TRUTH, GroundTruth, InjectedDrift
from streams.events import (
    ALERTS,
    DAY_S,
    DEADLETTER,
    FEEDBACK,
    METRICS,
    RATINGS,
    Alert,
    DeadLetter,
    Feedback,
    Metric,
)
from streams.run import RunFolder
from tests.dashboards.runs import publish

__all__ = ["N_LETTERS", "going_on", "inject", "tell"]

N_LETTERS = 23
_DAYS = 40
_BEATS = 30
_SLATES = 2_400


def inject(run: RunFolder) -> None:
    """Have the run's folder say that drift was put in, and an experiment stand beside it."""
    assert run.info.split is not None
    begins = run.info.split.cutoff + 20 * DAY_S
    drift = InjectedDrift("rating-bias", 10, "high", begins, first_ordinal=1, n_records=90, parameters={})
    truth = GroundTruth(run.run_id, 0, 0, run.info.split.cutoff, 1, 2, [drift])
    run.write(GROUND_TRUTH, msgspec.json.encode(truth))
    _experiment(run.var / "experiments" / "first")


def _experiment(folder: Path) -> None:
    """Write what an experiment of two models with learning curves leaves behind."""
    folder.mkdir(parents=True)
    outcomes = [
        {"model": model, "seed": 0, "measures": {"ndcg@10": (0.2, 0.15, 0.25), "hit_rate@10": (0.4, 0.3, 0.5)}}
        for model in ("mf", "vae")
    ]
    (folder / EXPERIMENT_JSON).write_bytes(msgspec.json.encode({"outcomes": outcomes}))
    epochs = [
        {"model": model, "seed": 0, "fit": 0, "epoch": n, "loss": 1 / n, "validation": 0.2 - 0.1 / n}
        for model in ("mf", "vae")
        for n in range(1, 9)
    ]
    pq.write_table(pa.Table.from_pylist(epochs), folder / "epochs.parquet")


def tell(run: RunFolder) -> None:
    """Publish feedback of two variants, dead letters, alerts, measures and detectors, and heartbeats of processes."""
    assert run.info.split is not None
    cutoff, now = run.info.split.cutoff, time.time()
    publish(run, FEEDBACK, [_feedback(i, cutoff) for i in range(_SLATES)])
    publish(run, DEADLETTER, [_letter(i) for i in range(N_LETTERS)])
    evidence = {"rating_drift": {"latest": 3.9, "level": 3.4, "n": 1_200}}
    publish(run, ALERTS, [Alert("rating_drift", "investigate", "drift", evidence, cutoff + 24 * DAY_S)])
    metrics = [one for day in range(_DAYS) for one in _closed(day, cutoff, now - _DAYS + day)]
    metrics += [one for beat in range(_BEATS) for one in _beat(beat, now - _BEATS + beat)]
    publish(run, METRICS, metrics)


@contextmanager
def going_on(run: RunFolder) -> Iterator[None]:
    """Until the end of the block a thread tells each second what processes tell, and what came of one more slate."""
    assert run.info.split is not None
    cutoff, stopping = run.info.split.cutoff, threading.Event()

    async def beat(producer: Producer, i: int) -> None:
        told = [*_beat(i, time.time()), *_closed(_DAYS, cutoff, time.time())]
        for topic, record in [*((METRICS, one) for one in told), (FEEDBACK, _feedback(_SLATES + i, cutoff))]:
            await producer.send(topic, msgspec.json.encode(record))
        await producer.flush()

    async def main() -> None:
        async with open_bus(run.bus_url) as bus, bus.producer() as producer:
            i = 0
            while not stopping.is_set():
                await beat(producer, i := i + 1)
                await asyncio.to_thread(stopping.wait, 1)

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="told")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


def _feedback(i: int, cutoff: int) -> Feedback:
    variant = ("champion", "ease-20080410-challenger", "champion")[i % 3]
    clicked = [1] * (i % 5 == 0) + [2] * (i % 7 == 0 and variant == "champion")
    at = cutoff + i * DAY_S // 60
    return Feedback(
        f"s{i}", "s", i % 137, variant, "v", 10, clicked, 1 + i % 9, 60 * (i % 9), at, source="loop", event_id=i + 1
    )


def _letter(i: int) -> DeadLetter:
    reason = ("rating: expected a multiple of 0.5 from 0.5 to 5, found 7", "not a rating: JSON is malformed")[i % 2]
    payload = '{"user_id":7,"movie_id":31,"rating":7,"timestamp":1260759144}' if i % 2 == 0 else '{"user_id":'
    return DeadLetter(RATINGS, 0, i, reason, payload, source="run", event_id=i + 1)


def _closed(day: int, cutoff: int, at: float) -> list[Metric]:
    """What the monitors tell of one event day: stars rise from the 20th on."""
    drifted = max(day - 20, 0)
    told: list[tuple[str, float, dict[str, str]]] = [
        ("closed", cutoff + day * DAY_S, {}),
        ("ctr", 0.03 + 0.002 * (day % 5), {}), ("ctr.baseline", 0.034, {}), ("ctr.threshold", 0.0289, {"bound": "low"}),
        ("volume", 60 + 7 * (day % 4), {}), ("volume.threshold", 42, {"bound": "low"}),
        ("volume.threshold", 91, {"bound": "high"}),
        ("rating_kl", 0.01 + 0.01 * drifted, {}), ("rating_kl.threshold", 0.1, {"bound": "high"}),
        ("detector.statistic", 2 + day % 3 + 3.0 * drifted, {"detector": "rating_drift"}),
        ("detector.threshold", 14, {"detector": "rating_drift"}),
        ("detector.latest", 3.4 + 0.03 * drifted, {"detector": "rating_drift"}),
        ("detector.latest", 0.5 + 0.01 * (day % 6), {"detector": "taste_drift"}),
        ("detector.level", 0.52, {"detector": "taste_drift"}),
        ("detector.significance", 0.002, {"detector": "taste_drift"}),
    ]  # fmt: skip
    event_time = cutoff + day * DAY_S
    return [Metric(f"monitors.{name}", value, at, labels, event_time=event_time) for name, value, labels in told]


def _beat(i: int, at: float) -> list[Metric]:
    """Heartbeats of two workers of one role and of two more, and what three of them tell of themselves."""
    told = [
        Metric(f"process.{name}", value, at, {"role": role, "host": "machine", "pid": pid})
        for role, pid in (("features", "4101"), ("features", "4102"), ("loop", "4200"), ("replayer", "4300"))
        for name, value in (("cpu", 0.25), ("rss_mib", 180.0), ("written_mib", 12.5))
    ]
    rate, swing = 700.0, 40.0 * (i % 5)
    figures: list[tuple[str, float]] = [
        ("replay.published", 3_800), ("replay.total", 6_000), ("replay.rate", rate), ("replay.paused", 0),
        ("features.throughput", rate - swing), ("features.lag", i % 3), ("features.freshness_s", 0),
        ("loop.throughput", rate - 2 * swing),
    ]  # fmt: skip
    told += [Metric(name, value, at) for name, value in figures]
    return told + [
        Metric(f"{agent}.latency_ms", ms * slower + i % 5, at, {"quantile": quantile})
        for agent, ms in (("features", 12.0), ("loop", 9_000.0))
        for quantile, slower in (("p50", 1), ("p99", 2.5))
    ]

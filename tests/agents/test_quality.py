"""The quality of the features is told on the metrics topic, and shows drift that was injected."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from agents.ingest import FeatureIngest
from agents.quality import QualityMonitor, publish_quality
from agents.worker import FeatureWorker, WorkerOptions
from featurestore.catalogue import Catalogue
from featurestore.quality import PSI_SHIFTED, VALID
from featurestore.quality_sample import sample
from featurestore.writer import FeatureWriter
from streams.bus import Bus, open_bus
from streams.dataset import open_dataset, open_movies
from streams.errors import StoreUnavailable
from streams.events import METRICS, RATINGS, Metric, Rating
from streams.records import RecordBatch
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, plan_replay, with_drift
from streams.topics import run_topics

NEVER_S = 3_600.0
WORLD = "synthetic:ratings=20000,users=400"


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        await bus.create_topics(*run_topics(1))
        yield bus


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/features.db"


@pytest.fixture
def ingest(url: str) -> Iterator[FeatureIngest]:
    ingest = FeatureIngest(FeatureWriter(url, agent="features", topic=RATINGS))
    yield ingest
    ingest.close()


@pytest.fixture
def monitor(ingest: FeatureIngest, url: str) -> Iterator[QualityMonitor]:
    monitor = QualityMonitor(ingest, url, None, wall_s=lambda: 2e9)
    yield monitor
    monitor.close()


async def assign(bus: Bus, ingest: FeatureIngest) -> None:
    await ingest.assign((await bus.topics())[RATINGS], await bus.offsets(RATINGS))


def rating(offset: int, stars: float) -> RecordBatch:
    line = msgspec.json.encode(Rating(offset, 1, stars, 1_000_000_000))
    return RecordBatch(RATINGS, 0, np.array([offset]), np.array([2 * 10**12]), offset + 1, line)


async def quality_metrics(bus: Bus) -> list[Metric]:
    found: list[Metric] = []
    async with await bus.consumer(METRICS) as consumer:
        ends = {tp: held.end for tp, held in (await bus.offsets(METRICS)).items()}
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            batches = await consumer.fetch()
            found += [msgspec.json.decode(value, type=Metric) for batch in batches for value in batch.values]
    return [metric for metric in found if metric.name.startswith("quality.")]


async def test_metrics_of_every_feature_are_on_the_topic_when_a_worker_stops(
    bus: Bus, ingest: FeatureIngest, monitor: QualityMonitor
) -> None:
    task = asyncio.create_task(publish_quality(bus, monitor, every_s=NEVER_S))
    await asyncio.sleep(0)  # it holds no partition: it says nothing, and waits
    await assign(bus, ingest)
    await ingest.apply([rating(0, 3.0)])
    await ingest.apply([rating(1, 5.0)])
    task.cancel()
    await asyncio.wait([task])
    metrics = await quality_metrics(bus)
    assert {metric.labels["feature"] for metric in metrics} == VALID.keys()
    values = {metric.name: metric.value for metric in metrics if metric.labels["feature"] == "user.mean_rating"}
    expected = {"quality.null_share": 0.0, "quality.out_of_range": 0.0, "quality.min": 3.0, "quality.max": 5.0}
    assert values == expected, "and no PSI, since there is no training part"
    ids = [metric.event_id for metric in metrics if metric.name == "quality.min"]
    assert ids == sorted(ids)


async def test_a_store_is_read_again_only_where_anything_was_applied(
    bus: Bus, ingest: FeatureIngest, monitor: QualityMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    monkeypatch.setattr("agents.quality.sample", lambda *args, **_: reads.append(args) or sample(*args))
    await assign(bus, ingest)
    await ingest.apply([rating(0, 3.0)])
    first, again = await monitor.take(), await monitor.take()
    assert [metric.value for metric in first] == [metric.value for metric in again]
    assert len(reads) == 1
    await ingest.apply([rating(1, 5.0)])
    await monitor.take()
    assert len(reads) == 2


async def test_a_store_that_cannot_be_read_costs_one_time(
    bus: Bus, ingest: FeatureIngest, monitor: QualityMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def away_once(*args: object, **_: object) -> dict[str, object]:
        tries.append(args)
        if len(tries) == 1:
            raise StoreUnavailable("away")
        return sample(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("agents.quality.sample", away_once)
    await assign(bus, ingest)
    await ingest.apply([rating(0, 3.0)])
    with capture_logs() as logs:
        task = asyncio.create_task(publish_quality(bus, monitor, every_s=0.001))
        async with asyncio.timeout(30):
            while not await quality_metrics(bus):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
    assert [log["event"] for log in logs] == ["feature quality not published"]


async def psi_after(drift: tuple[str, ...], folder: Path) -> dict[str, float]:
    """The last PSI of every feature of a run at full speed."""
    options = ReplayOptions(speed=math.inf, drift=drift)
    dataset = with_drift(open_dataset(WORLD), options)
    bus_url = f"sqlite:///{folder}/bus.db"
    async with open_bus(bus_url) as bus:
        await Replayer(dataset, bus, options, run_id="run").replay()
        catalogue = Catalogue(open_movies(WORLD).values())
        cutoff = plan_replay(dataset, options).split.cutoff
        store_url = f"sqlite:///{folder}/features.db"
        worker = FeatureWorker(WorkerOptions(bus_url, store_url, catalogue=catalogue, training_end=cutoff))
        stopping = asyncio.Event()
        running = asyncio.create_task(worker.run(stopping))

        def ended() -> bool:
            cursors = worker.ingest.writer.cursors.values()
            return bool(cursors) and all(cursor.end_of_run for cursor in cursors)

        async with asyncio.timeout(60):
            while not ended():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stopping.set()
        await running
        metrics = await quality_metrics(bus)
    return {metric.labels["feature"]: metric.value for metric in metrics if metric.name == "quality.psi"}


async def test_injected_drift_is_a_shift_and_no_drift_is_none(tmp_path: Path) -> None:
    still = await psi_after((), tmp_path / "still")
    biased = await psi_after(("rating-bias@10:high",), tmp_path / "biased")
    for feature in ("user.mean_rating", "item.mean_rating"):
        assert still[feature] < PSI_SHIFTED / 2
        assert biased[feature] > PSI_SHIFTED
    assert biased["user.n_ratings"] == still["user.n_ratings"] < PSI_SHIFTED, "bias changes stars, not their number"

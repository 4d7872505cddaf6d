"""Replay, bus, Faust, store: the whole path in one process, on the real ratings."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from agents.worker import FeatureWorker, WorkerOptions
from featurestore.reader import FeatureReader
from featurestore.schema import TASTE_DTYPE, metadata
from featurestore.verify import verify
from streams.bus import open_bus
from streams.dataset import open_dataset
from streams.errors import GroupBusy, LogReplaced, StoreAheadOfLog, StoreError, StreamLensError
from streams.events import DEADLETTER, METRICS, RATINGS, DeadLetter, Metric
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer
from streams.topics import run_topics
from tests.agents.at_work import at_work

LIVE = 3_000
DECAYED = {"decayed", "taste"}


def urls(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db"


async def replay(folder: Path, run_id: str = "run") -> None:
    async with open_bus(urls(folder)[0]) as bus:
        options = ReplayOptions(speed=math.inf, limit=LIVE)
        await Replayer(open_dataset("ml-latest-small"), bus, options, run_id=run_id).replay()


def working(folder: Path, **options: int) -> AbstractAsyncContextManager[FeatureWorker]:
    return at_work(FeatureWorker(WorkerOptions(*urls(folder), run_id="run", **options)))  # type: ignore[arg-type]


async def until(condition: object, worker: FeatureWorker) -> None:
    async with asyncio.timeout(30):
        while not condition(worker):  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def ended(worker: FeatureWorker) -> bool:
    cursors = worker.ingest.writer.cursors
    return len(cursors) == 4 and all(cursor.end_of_run for cursor in cursors.values())


def views(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """All tables but for what tells when, by whom, from which log and into which store, and for the decayed sums."""
    own = {"epoch", "applied_ms", "published_ms", "log_id", *DECAYED}
    with sqlite3.connect(folder / "features.db") as connection:
        return {
            table.name: connection.execute(
                f"SELECT {', '.join(c.name for c in table.columns if c.name not in own)} FROM {table.name}"
                + (" WHERE key != 'store_id'" if table.name == "meta" else "")
            ).fetchall()
            for table in metadata.sorted_tables
        }


def decayed(folder: Path) -> dict[str, npt.NDArray[np.float64]]:
    """The decayed sums, in the order of their rows: the only floats of a store."""
    with sqlite3.connect(folder / "features.db") as connection:
        items = connection.execute("SELECT decayed FROM items ORDER BY movie_id, partition").fetchall()
        users = connection.execute("SELECT taste FROM users ORDER BY user_id").fetchall()
    return {
        "decayed": np.array([sums for (sums,) in items]),
        "taste": np.frombuffer(b"".join([sums for (sums,) in users]), TASTE_DTYPE),
    }


async def test_two_runs_side_by_side_give_identical_stores(tmp_path: Path) -> None:
    """One worker follows its replay and flushes rarely, the other comes later and flushes every hundred records.

    Whole numbers are the same to the bit; decayed sums were added up in other portions, so they differ by rounding.
    """
    first, second = tmp_path / "first", tmp_path / "second"

    async def follow() -> None:
        async with working(first) as worker:
            await replay(first)
            await until(ended, worker)

    async def come_later() -> None:
        await replay(second)
        async with working(second, flush_records=100) as worker:
            await until(ended, worker)

    await asyncio.gather(follow(), come_later())
    assert views(first) == views(second)
    for name, sums in decayed(first).items():
        np.testing.assert_allclose(sums, decayed(second)[name], rtol=1e-12, err_msg=name)
    for folder in (first, second):
        async with open_bus(urls(folder)[0]) as bus:
            report = await verify(bus, urls(folder)[1])
            committed = await bus.committed("features")
            assert committed == {tp: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
        assert report.ok, report.as_dict()
    with FeatureReader(urls(first)[1]) as reader:
        assert sum(row.ratings for row in reader.applied()) == 60_501 + LIVE


async def test_garbage_is_dead_lettered_once_and_stops_nothing(tmp_path: Path) -> None:
    async with open_bus(urls(tmp_path)[0]) as bus:
        await bus.create_topics(*run_topics(4))
        good = b'{"user_id":1,"movie_id":%d,"rating":4,"timestamp":1000000000}'
        async with bus.producer() as producer:
            for i, value in enumerate([b"", b"\xff\xfe", good % 1, b"{" * 500, b"[]", b'{"user_id":1e400}', good % 2]):
                await producer.send(RATINGS, value, partition=i % 2)
        async with working(tmp_path) as worker:
            await until(lambda w: w.ingest.stats.records == 7, worker)
        async with await bus.consumer(DEADLETTER) as consumer:
            letters = [msgspec.json.decode(v, type=DeadLetter) for b in await consumer.fetch() for v in b.values]
        assert sorted((x.partition, x.offset) for x in letters) == [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
        assert (await verify(bus, urls(tmp_path)[1])).ok
    with FeatureReader(urls(tmp_path)[1]) as reader:
        assert reader.history(1).movie_id.tolist() == [1, 2]
        assert reader.outbox_size() == 0


async def test_metrics_are_published_while_it_works(tmp_path: Path) -> None:
    await replay(tmp_path)
    async with working(tmp_path) as worker, open_bus(urls(tmp_path)[0]) as bus:
        await until(ended, worker)
        seen: dict[str, float] = {}
        async with asyncio.timeout(30), await bus.consumer(METRICS) as consumer:
            while seen.get("features.ratings") != 60_501 + LIVE:
                for batch in await consumer.fetch():
                    for value in batch.values:
                        metric = msgspec.json.decode(value, type=Metric)
                        seen[metric.name] = metric.value
    assert seen["features.lag"] == 0
    assert {"features.throughput", "features.freshness_s", "features.late", "features.latency_ms"} <= seen.keys()


async def test_a_worker_that_cannot_publish_its_outbox_stops_and_says_why(tmp_path: Path) -> None:
    worker = FeatureWorker(WorkerOptions(*urls(tmp_path)))
    running = asyncio.create_task(worker.run(asyncio.Event()))
    await until(lambda w: len(w.ingest.writer.cursors) == 4, worker)
    with sqlite3.connect(tmp_path / "features.db") as connection:
        connection.execute("DROP TABLE outbox")
    with pytest.raises(StoreError, match="no such table: outbox"):
        async with asyncio.timeout(30):
            await running


async def test_a_second_worker_of_the_group_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    await replay(tmp_path)
    async with working(tmp_path) as first:
        await until(ended, first)
        with pytest.raises(GroupBusy, match="kafka://"):
            await FeatureWorker(WorkerOptions(*urls(tmp_path))).run(asyncio.Event())
    async with open_bus(urls(tmp_path)[0]) as bus:
        assert (await verify(bus, urls(tmp_path)[1])).ok


@pytest.mark.parametrize(("longer", "expected"), [(False, StoreAheadOfLog), (True, LogReplaced)])
async def test_a_replaced_or_truncated_log_stops_the_worker(
    tmp_path: Path, longer: bool, expected: type[StreamLensError]
) -> None:
    await replay(tmp_path)
    async with working(tmp_path) as worker:
        await until(ended, worker)
    if longer:
        for file in tmp_path.glob("bus.db*"):
            if file.is_file():
                file.unlink()
        await replay(tmp_path)
    else:
        with sqlite3.connect(tmp_path / "bus.db") as connection:
            connection.execute("UPDATE partitions SET next_offset = next_offset - 10 WHERE topic = 'ratings'")
    with pytest.raises(expected, match="worker --rebuild"):
        await FeatureWorker(WorkerOptions(*urls(tmp_path))).run(asyncio.Event())

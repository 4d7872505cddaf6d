"""What replayer and worker do while their broker is away: little, told in few lines; and then they go on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from featurestore.reader import FeatureReader
from featurestore.verify import verify
from streamlens.children import Child, running
from streams.bus import open_bus
from streams.errors import StoreError
from streams.run import current_run
from tests.local_kafka import LocalKafka

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RATE = 100
"""Ratings are made and held until the producer's memory is full; at 500/s that alone takes a tenth of a core."""
WATCHED_S = 8.0


@dataclass
class Spent:
    """What a command has used and said until now."""

    cpu_s: float
    lines: int

    @classmethod
    def of(cls, child: Child) -> Spent:
        fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return cls(ticks / os.sysconf("SC_CLK_TCK"), child.log.read_bytes().count(b"\n"))


async def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def applied(var: Path) -> int:
    run = current_run(var)
    try:
        with FeatureReader(run.store_url if run else "") as reader:
            return sum(row.ratings for row in reader.applied())
    except StoreError:  # not made yet
        return 0


async def test_an_outage_costs_replayer_and_worker_little_and_they_go_on_alone(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    kafka, var = LocalKafka(workplace / "kafka"), workplace / "var"
    try:
        await asyncio.to_thread(kafka.start)
        data = ("--data", "synthetic:ratings=100000", "--week", "1", "--start", "1990-01-01", "--arrival", "poisson")
        bus = ("--bus", f"kafka://{kafka.address}")
        async with running("replay", workplace / "replay.log", "replay", *data, "--rate", str(RATE), *bus) as replayer:
            await until(lambda: current_run(var) is not None)
            async with running("worker", workplace / "worker.log", "worker") as worker:
                await until(lambda: applied(var) > 2 * RATE)
                await asyncio.to_thread(kafka.crash)
                await asyncio.sleep(1)  # what is noticed at once is over
                before, began = (Spent.of(replayer), Spent.of(worker)), time.monotonic()
                await asyncio.sleep(WATCHED_S)
                after, watched_s = (Spent.of(replayer), Spent.of(worker)), time.monotonic() - began
                await asyncio.to_thread(kafka.restart)
                at_return = applied(var)
                # What waited, and more.
                await until(lambda: worker.finished() or applied(var) > at_return + WATCHED_S * RATE)
                await replayer.stop()
            assert replayer.finished()
            assert worker.finished()
        run = current_run(var)
        assert run is not None
        async with open_bus(run.bus_url) as opened:
            report = await verify(opened, run.store_url)
        assert report.ok, report.as_dict()
    finally:
        kafka.remove()
    for name, first, last in zip(("replayer", "worker"), before, after, strict=True):
        cores, lines_per_s = (last.cpu_s - first.cpu_s) / watched_s, (last.lines - first.lines) / watched_s
        record_property(name, f"{cores:.3f} of a core, {lines_per_s:.1f} lines/s")
        assert cores < 0.1
        assert lines_per_s < 10

"""Worker and replayer are killed with SIGKILL at random moments of one replay, over and over, and started again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from featurestore.reader import FeatureReader
from featurestore.verify import VerifyReport, verify
from streams.bus import open_bus
from streams.errors import StreamLensError
from streams.events import CONTROL, RATINGS, Control

KILLS = 22
EVENTS = 100_000
REPLAY = ("replay", "--data", f"synthetic:ratings={EVENTS},seed=3", "--week", "1", "--rate", "600", "--quiet")
PATIENCE_S = 120.0

pytestmark = pytest.mark.slow


@dataclass
class Process:
    """A command of the program, started again after each kill, all it says in one file."""

    command: tuple[str, ...]
    folder: Path
    popen: subprocess.Popen[bytes] | None = None
    kills: int = 0

    def start(self) -> None:
        with (self.folder / f"{self.command[-1 if self.command[0].endswith('.py') else 0]}.log").open("ab") as log:
            head = () if self.command[0].endswith(".py") else ("-m", "streamlens")
            self.popen = subprocess.Popen(
                [sys.executable, *head, *self.command],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def kill(self) -> None:
        assert self.popen is not None
        if self.popen.poll() is None:
            os.kill(self.popen.pid, signal.SIGKILL)
            self.kills += 1
        self.popen.wait()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.01)


@dataclass
class Run:
    """The run that the first replay makes in ``folder``."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "var" / "runs" / (self.folder / "var" / "current").read_text().strip()

    @property
    def bus_url(self) -> str:
        return f"sqlite:///{self.home}/bus.db"

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.home}/features.db"

    def applied(self) -> int:
        """Sum of the applied offsets; 0 before there is a store."""
        try:
            with FeatureReader(self.store_url) as reader:
                return sum(row.next_offset for row in reader.applied())
        except (OSError, StreamLensError):
            return 0

    def ended(self) -> bool:
        try:
            with FeatureReader(self.store_url) as reader:
                rows = reader.applied()
                return bool(rows) and all(row.end_of_run for row in rows)
        except (OSError, StreamLensError):
            return False

    def check(self) -> VerifyReport:
        async def run() -> VerifyReport:
            async with open_bus(self.bus_url) as bus:
                return await verify(bus, self.store_url)

        return asyncio.run(run())

    def hurry(self) -> None:
        """Let the replayer publish the rest at once."""

        async def run() -> None:
            async with open_bus(self.bus_url) as bus, bus.producer() as producer:
                await producer.send(CONTROL, msgspec.json.encode(Control(self.home.name, "speed")))

        asyncio.run(run())

    def committed_and_end(self) -> tuple[dict[int, int], dict[int, int]]:
        async def run() -> tuple[dict[int, int], dict[int, int]]:
            async with open_bus(self.bus_url) as bus:
                committed = {tp.partition: offset for tp, offset in (await bus.committed("features")).items()}
                return committed, {tp.partition: held.end for tp, held in (await bus.offsets(RATINGS)).items()}

        return asyncio.run(run())


def kill_at_random(run: Run, worker: Process, replayer: Process, rng: random.Random) -> None:
    """Kill one of the two again and again; each time after the worker has moved on since the last."""
    while worker.kills + replayer.kills < KILLS and not run.ended():
        before = run.applied()
        wait_for(lambda before=before: run.applied() > before or run.ended(), "progress")  # type: ignore[misc]
        time.sleep(rng.random() * 0.2)  # the random moment
        victim = rng.choice([worker, worker, replayer])
        victim.kill()
        victim.start()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_everything_is_applied_exactly_once_however_often_worker_and_replayer_are_killed(run: Run) -> None:
    replayer, worker = Process(REPLAY, run.folder), Process(("worker", "--quiet"), run.folder)
    replayer.start()
    try:
        wait_for(lambda: (run.folder / "var" / "current").exists() and (run.home / "bus.db").exists(), "the run")
        worker.start()
        kill_at_random(run, worker, replayer, random.Random(2024))
        assert worker.kills + replayer.kills >= 20, "the replay ended before there were enough kills"
        before = run.applied()
        wait_for(lambda: run.applied() > before, "progress")  # the replayer listens by now
        run.hurry()
        wait_for(run.ended, "the end of the run")
        wait_for(lambda: run.committed_and_end()[0] == run.committed_and_end()[1], "committed == high water")
    finally:
        worker.kill()
        replayer.kill()
    report = run.check()
    assert report.ok, report.as_dict()
    with FeatureReader(run.store_url) as reader:
        rows = reader.applied()
    assert sum(row.ratings for row in rows) == EVENTS
    assert sum(row.duplicates + row.invalid for row in rows) == 0


def test_a_worker_that_commits_on_delivery_is_found_out(run: Run) -> None:
    replayer = Process(REPLAY, run.folder)
    replayer.start()
    control = Process((), run.folder)
    try:
        wait_for(lambda: (run.folder / "var" / "current").exists() and (run.home / "bus.db").exists(), "the run")
        script = str(Path(__file__).with_name("commits_on_delivery.py"))
        control.command = (script, run.bus_url, run.store_url, run.home.name)
        control.start()
        rng = random.Random(7)
        while control.kills < 4:
            before = run.applied()
            wait_for(lambda before=before: run.applied() > before or run.ended(), "progress")  # type: ignore[misc]
            time.sleep(rng.random() * 0.2)
            control.kill()
            control.start()
        run.hurry()
        wait_for(run.ended, "the end of the run")
        wait_for(lambda: run.committed_and_end()[0] == run.committed_and_end()[1], "committed == high water")
    finally:
        control.kill()
        replayer.kill()
    report = run.check()
    assert not report.ok, "committed == high water, and nothing says that events were lost"
    with FeatureReader(run.store_url) as reader:
        assert sum(row.ratings for row in reader.applied()) < EVENTS

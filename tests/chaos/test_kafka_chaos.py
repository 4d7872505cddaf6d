"""Three workers on Kafka and PostgreSQL while processes are killed, stopped and added, and broker and database go away.

``STREAMLENS_TEST_CHAOS_SEED`` draws another schedule, ``STREAMLENS_TEST_CHAOS_S`` a longer one: 180 has an outage of a
minute in it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from featurestore.reader import AppliedOffset, FeatureReader
from featurestore.verify import VerifyReport, verify
from streams.bus import open_bus
from streams.dataset import open_dataset
from streams.deadletters import placed_letters
from streams.drift import read_ground_truth
from streams.errors import StoreError
from streams.events import CONTROL, RATINGS, Control
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, with_drift
from streams.run import RunFolder, current_run
from tests.chaos.schedule import FIRST_WORKERS, Action, schedule
from tests.local_kafka import LocalKafka
from tests.local_postgres import LocalPostgres

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("STREAMLENS_TEST_CHAOS_SEED", "5"))
DURATION_S = float(os.environ.get("STREAMLENS_TEST_CHAOS_S", "75"))
RATE = 300
PARTITIONS = 8
EVENTS = int(RATE * (2 * DURATION_S + 120))  # for longer than it takes on a busy machine; the rest is hurried
DATA = f"synthetic:ratings={EVENTS},seed=3"
START = "1990-01-01"  # all of it is live
DRIFT = ("malformed@1:middle", "late@1:middle")
PATIENCE_S = 120.0
FENCED = "another worker took over"


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {patience_s:g} s"
        time.sleep(0.05)


@dataclass
class Process:
    """A command of the program in a folder of its own, started again and again; all it says is in ``log``."""

    command: tuple[str, ...]
    folder: Path
    environment: dict[str, str]
    popen: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        assert self.popen is None, f"{self.folder.name} runs"
        self.started_at = time.time()
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "streamlens", *self.command, "--with-parent"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.PIPE,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.popen is not None
        self.popen.send_signal(number)

    def exit_code(self) -> int | None:
        return None if self.popen is None else self.popen.poll()

    def at_work(self) -> bool:
        """The bus has answered it since it was started."""
        beats = self.folder.glob("var/**/*.alive")
        return self.popen is None or any(beat.stat().st_mtime > self.started_at for beat in beats)

    def wait(self, limit_s: float = 60) -> int:
        assert self.popen is not None
        code = self.popen.wait(limit_s)
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        self.popen = None
        return code

    def kill(self) -> None:
        """As it is, stopped or not."""
        if self.popen is not None:
            self.popen.kill()
            self.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass
class Cluster:
    """The broker, the replayer and the workers, and what the test knows of them."""

    folder: Path
    kafka: LocalKafka
    database: LocalPostgres
    workers: dict[str, Process] = field(default_factory=dict)
    epochs: dict[str, dict[int, int]] = field(default_factory=dict)
    """By frozen worker, those of the partitions when it was frozen."""
    zombies: int = 0

    def __post_init__(self) -> None:
        data = ("--data", DATA, "--start", START, "--week", "1", "--rate", str(RATE), "--arrival", "poisson", "--quiet")
        drift = [word for kind in DRIFT for word in ("--drift", kind)]
        self.replayer = self._process("replayer", "replay", *data, *drift)

    @property
    def bus_url(self) -> str:
        return f"kafka://{self.kafka.address}/chaos"

    @property
    def store_url(self) -> str:
        return f"{self.database.url}?schema=chaos"

    def _process(self, name: str, *command: str) -> Process:
        clean = {key: value for key, value in os.environ.items() if not key.upper().startswith("STREAMLENS_")}
        environment = {
            **clean,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "STREAMLENS_BUS": self.bus_url,
            "STREAMLENS_STORE": self.store_url,
            "STREAMLENS_PARTITIONS": str(PARTITIONS),
            "STREAMLENS_REPLAY_DATA": DATA,
            "STREAMLENS_REPLAY_START": START,
            "STREAMLENS_REPLAY_WEEK": "1",
        }
        return Process(command, self.folder / name, environment)

    @property
    def run(self) -> RunFolder:
        run = current_run(self.replayer.folder / "var")
        assert run is not None
        return run

    def applied(self) -> list[AppliedOffset]:
        try:
            with FeatureReader(self.store_url) as reader:
                return reader.applied()
        except StoreError:  # not made yet
            return []

    def ratings(self) -> int:
        return sum(row.ratings for row in self.applied())

    def ended(self) -> bool:
        rows = self.applied()
        return len(rows) == PARTITIONS and all(row.end_of_run for row in rows)

    # What is done to it

    def do(self, action: Action) -> None:
        match action.verb, action.whom:
            case "stop" | "crash" | "freeze", _ if not self._at_work():
                wait_for(self._at_work, "the start of the workers")  # who finds no broker at its start ends, rightly
                self.do(action)
            case "stop", "broker":
                self.kafka.stop()
            case "crash", "broker":
                self.kafka.crash()
            case "start", "broker":
                self.kafka.restart()
            case "crash", "database":
                self.database.stop("immediate")
            case "start", "database":
                self.database.start()
            case "start", name:
                self.workers.setdefault(name, self._process(name, "worker", "--quiet")).start()
            case "kill", name:
                self.workers[name].kill()
            case "freeze", name:
                self.epochs[name] = {row.partition: row.epoch for row in self.applied()}
                self.workers[name].signal(signal.SIGSTOP)
            case "thaw", name:
                before = self.epochs.pop(name)
                wait_for(lambda: self._taken_over(before), "a takeover")
                self.zombies += 1
                self.workers[name].signal(signal.SIGCONT)
            case "remove", name:
                self.workers[name].signal(signal.SIGTERM)
                assert self.workers[name].wait() == 0, self.workers[name].said()
            case _:
                raise AssertionError(action)

    def _taken_over(self, before: dict[int, int]) -> bool:
        """Every partition has had another writer since."""
        self.watch()
        return all(row.epoch > before[row.partition] for row in self.applied())

    def _at_work(self) -> bool:
        self.watch()
        return all(worker.at_work() for worker in self.workers.values())

    def watch(self) -> None:
        """Nobody ends by itself, not even a zombie."""
        assert self.replayer.exit_code() in (None, 0), self.replayer.said()
        for name, worker in self.workers.items():
            assert worker.exit_code() is None, f"{name} ended with exit code {worker.exit_code()}: {worker.said()}"

    def play(self, actions: list[Action]) -> None:
        """In order, and no sooner after one another than the schedule says."""
        began = time.monotonic()
        for action in actions:
            while time.monotonic() < began + action.at_s:
                self.watch()
                time.sleep(0.05)
            print(
                f"{time.strftime('%X')}  {action.at_s:5.1f} s  {action.verb} {action.whom}, {self.ratings():,} applied"
            )
            self.do(action)
            began = max(began, time.monotonic() - action.at_s)

    def hurry(self) -> None:
        """Let the replayer publish the rest at once."""

        async def send() -> None:
            async with open_bus(self.bus_url) as bus, bus.producer() as producer:
                await producer.send(CONTROL, msgspec.json.encode(Control(self.run.run_id, "speed")))

        asyncio.run(send())

    def close(self) -> None:
        for process in (self.replayer, *self.workers.values()):
            process.kill()

    # What is found in the end

    def check(self) -> VerifyReport:
        async def run() -> VerifyReport:
            async with open_bus(self.bus_url) as bus:
                return await verify(bus, self.store_url)

        return asyncio.run(run())

    def committed_and_end(self) -> tuple[dict[int, int], dict[int, int]]:
        async def run() -> tuple[dict[int, int], dict[int, int]]:
            async with open_bus(self.bus_url) as bus:
                committed = {tp.partition: offset for tp, offset in (await bus.committed("features")).items()}
                return committed, {tp.partition: held.end for tp, held in (await bus.offsets(RATINGS)).items()}

        return asyncio.run(run())

    def dead_ids(self) -> list[int]:
        """The ``event_id`` that the dead records carry, one each, in order; some come twice where the database has lost
        that they were published."""

        async def run() -> list[str]:
            async with open_bus(self.bus_url) as bus:
                return [placed.letter.payload async for placed in placed_letters(bus)]

        # A record cut off in the middle is no JSON; its identity stands first.
        return sorted({int(payload.split('"event_id":')[1].split(",")[0]) for payload in asyncio.run(run())})


def malformed_ids() -> list[int]:
    """The ``event_id`` of each record that the replay makes malformed."""
    dataset = with_drift(open_dataset(DATA), ReplayOptions(start=START, week=1, rate=RATE, drift=DRIFT))
    found, first = [], 1
    for chunk in dataset.chunks():
        if chunk.malformed is not None:
            found += (chunk.malformed.nonzero()[0] + first).tolist()
        first += len(chunk)
    return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        kafka = LocalKafka(tmp_path / "kafka")
        stack.callback(kafka.remove)
        kafka.start()
        database = LocalPostgres("wal_writer_delay=10s", "wal_writer_flush_after=1GB", "wal_buffers=64MB")  # loses much
        stack.callback(database.remove)
        cluster = Cluster(tmp_path, kafka, database)
        stack.callback(cluster.close)
        yield cluster


def test_through_chaos_every_rating_counts_once(cluster: Cluster) -> None:
    actions = schedule(SEED, DURATION_S)
    print(f"seed {SEED}:", *(f"{a.at_s:g} s {a.verb} {a.whom}" for a in actions), sep="\n  ")
    cluster.replayer.start()
    for name in FIRST_WORKERS:
        cluster.do(Action(0, "start", name))
    wait_for(lambda: cluster.ratings() > RATE and len(cluster.applied()) == PARTITIONS, "the first ratings")
    cluster.play(actions)
    assert cluster.replayer.exit_code() is None, "the replay ended before the chaos did"
    before = cluster.ratings()
    wait_for(lambda: cluster.ratings() > before, "progress")
    cluster.hurry()

    def done() -> bool:
        cluster.watch()
        return cluster.ended() and cluster.replayer.exit_code() == 0

    wait_for(done, "the end of the run")
    wait_for(lambda: cluster.committed_and_end()[0] == cluster.committed_and_end()[1], "committed == high water")
    malformed = malformed_ids()
    wait_for(lambda: len(cluster.dead_ids()) >= len(malformed), "the last dead letter")
    for worker in cluster.workers.values():
        if worker.popen is not None:
            worker.signal(signal.SIGTERM)
    for name, worker in cluster.workers.items():
        assert worker.popen is None or worker.wait() == 0, f"{name}: {worker.said()}"

    refused = sum(worker.said().count(FENCED) for worker in cluster.workers.values())
    print(f"{cluster.zombies} zombies; {refused} writes were refused, and who tried joined again")
    report = cluster.check()
    assert report.ok, report.as_dict()
    rows = cluster.applied()
    truth = {drift.kind: drift.n_records for drift in read_ground_truth(cluster.run.path).drifts}
    assert sum(row.ratings for row in rows) == EVENTS - len(malformed)
    assert sum(row.duplicates for row in rows) == 0
    assert sum(row.late for row in rows) == truth["late"] > 0
    assert sum(row.invalid for row in rows) == len(malformed) == truth["malformed"] > 0
    assert cluster.dead_ids() == malformed
    assert cluster.zombies > 0


@pytest.mark.streamlens_bus("kafka")
async def test_a_worker_that_commits_on_delivery_is_found_out_on_kafka(streamlens_bus_url: str, tmp_path: Path) -> None:
    """The control: the same checks find what such a worker loses."""
    store_url = f"sqlite:///{tmp_path}/features.db"
    command = (sys.executable, str(Path(__file__).with_name("commits_on_delivery.py")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def applied() -> int:
        try:
            with FeatureReader(store_url) as reader:
                return sum(row.next_offset for row in reader.applied())
        except StoreError:
            return 0

    async def loses(before: int) -> bool:
        """More is committed than is applied, of what came since ``before``."""
        committed = sum((await bus.committed("features")).values())
        return before < applied() < committed  # what is read last is the newer

    async with open_bus(streamlens_bus_url) as bus:
        options = ReplayOptions(start=START, week=1, rate=300, arrival="poisson", limit=6_000)
        replayer = Replayer(open_dataset("synthetic:ratings=20000"), bus, options, run_id="control")
        replaying = asyncio.create_task(replayer.replay())
        while RATINGS not in await bus.topics():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        for kills_left in reversed(range(4)):
            before = applied()
            arguments = (streamlens_bus_url, store_url, "control", "control-1")
            worker = await asyncio.create_subprocess_exec(*command, *arguments, env=environment)
            try:
                if kills_left:
                    async with asyncio.timeout(PATIENCE_S):
                        while not await loses(before):
                            pass
                else:
                    await replaying
                    ends = {tp: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
                    async with asyncio.timeout(PATIENCE_S):
                        while await bus.committed("features") != ends:  # noqa: ASYNC110
                            await asyncio.sleep(0.1)
            finally:
                worker.kill()
                await worker.wait()
        report = await verify(bus, store_url)
    assert not report.ok, "committed == high water, and nothing says that events were lost"

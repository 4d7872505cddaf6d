"""All four roles of one run in one process, until its end; what they published, and what the registry says.

``python -m tests.loop.together FOLDER VARIATION ...``, each in a folder of its own there. Replay and the trainer's jobs
run in the process, too.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from agents import training_supervisor
from agents.job_process import Ended
from agents.job_store import read_jobs
from agents.loop_worker import LoopWorker
from agents.monitors_worker import MonitorsWorker
from agents.trainer import Trainer
from agents.worker import FeatureWorker
from models.registry import Registry
from streamlens.cli import loop_role, monitors_role, trainer_role, worker
from streamlens.loop_status import loop_status
from streamlens.replay_run import PreparedReplay, prepare_run
from streamlens.settings import load_settings
from streamlens.target import Target, find_target
from streamlens.waiting import NothingYet
from streams.bus import Bus
from streams.errors import StreamLensError
from streams.events import ALERTS, FEEDBACK, IMPRESSIONS, MODELS, RATINGS, RETRAIN
from tests.agents.training_world import in_this_process
from tests.loop.small_world import PARTITIONS, prepare

__all__ = ["ROLES", "VARIATIONS", "Results", "current", "read_results", "together"]

ROLES = ("features", "loop", "monitors", "trainer")
TOPICS = (IMPRESSIONS, FEEDBACK, ALERTS, RETRAIN, MODELS)
_LONGEST_S = 120.0
_VERSION = re.compile(r"(?:ease|popularity)-[0-9]{8}-[0-9a-f]{6}")

Agent = FeatureWorker | LoopWorker | MonitorsWorker | Trainer


class Results(msgspec.Struct, frozen=True):
    """topics: records by topic and partition, each once, in the order of their ids. trail: of the registry, without
    wall times. versions: their names. jobs: the trainer's, id and state. waits: what the loop has waited for, and in
    ``status``, what it was said to."""

    topics: dict[str, list[str]]
    trail: list[Any]
    versions: list[str]
    jobs: list[tuple[str, str]]
    waits: list[str] = []
    status: list[str] = []

    @property
    def same(self) -> Results:
        """What must be the same again, however it was done."""
        return msgspec.structs.replace(self, waits=[], status=[])

    @property
    def alike(self) -> Results:
        """What must be the same of another run over the same ratings, whose log has heartbeats in other places: without
        offsets, and with versions numbered as they come, since their names are made of the run's."""
        plain = re.sub(r'\\"offsets\\":\{[^}]*\}', "", msgspec.json.encode(self.same).decode())
        names = {name: f"{name[:-6]}{n}" for n, name in enumerate(dict.fromkeys(_VERSION.findall(plain)))}
        found = msgspec.json.decode(_VERSION.sub(lambda m: names[m[0]], plain), type=Results)
        return msgspec.structs.replace(found, versions=sorted(found.versions))


def make(role: str, target: Target, variation: Variation) -> Agent:
    if role == "features":
        options = worker._worker_options(target, target.catalogue(), None)
        return FeatureWorker(replace(options, flush_records=variation.records_at_once))
    if role == "loop":
        return LoopWorker(replace(loop_role.loop_options(target), records_at_once=variation.records_at_once))
    if role == "monitors":
        return MonitorsWorker(monitors_role._options(target, None))
    return Trainer(replace(trainer_role.trainer_options(target), poll_s=0.02))


def ended(agent: Agent) -> bool:
    if isinstance(agent, Trainer):
        return agent.supervisor.idle_at_end
    if isinstance(agent, MonitorsWorker):
        return agent.ingest.ended
    cursors = (agent.ingest.steps.writer if isinstance(agent, LoopWorker) else agent.ingest.writer).cursors.values()
    return bool(cursors) and all(cursor.end_of_run for cursor in cursors)


@dataclass(frozen=True)
class Variation:
    """rate: live ratings a second, all at once where None. restarts: how often some agent is stopped and started.
    job_s: how much longer a job takes. monitors_away: whether monitors come only once the loop waits for them. failing:
    whether retrain jobs fail. idle: a partition without ratings.
    """

    records_at_once: int = 10_000
    rate: float | None = None
    restarts: int = 0
    job_s: float = 0.0
    monitors_away: bool = False
    failing: bool = False
    idle: int | None = None


VARIATIONS = {
    "at-once": Variation(),
    "small-batches": Variation(records_at_once=40),
    "slowly": Variation(rate=900.0),
    "restarted": Variation(records_at_once=300, restarts=16),
    "slow-trainer": Variation(job_s=0.4),
    "monitors-away": Variation(monitors_away=True),
    "failing": Variation(failing=True),
    "idle": Variation(idle=1),
}


@dataclass
class Seen:
    """What the loop waits for, by partition, and all it has waited for."""

    now: dict[int, str]
    ever: set[str]
    status: set[str]

    def look(self, loop: LoopWorker) -> None:
        self.now = loop.ingest.steps.waits
        self.ever |= {re.sub(r"[0-9].*", "", why) for why in self.now.values() if why}


@asynccontextmanager
async def working(agent: Agent) -> AsyncIterator[asyncio.Task[None]]:
    stopping = asyncio.Event()
    running = asyncio.create_task(agent.run(stopping))
    try:
        yield running
    finally:
        stopping.set()
        await running


async def keep(role: str, target: Target, variation: Variation, restart: asyncio.Event, seen: Seen) -> None:
    """An agent of the role until it has ended, and another whenever ``restart`` is set."""
    if role == "monitors" and variation.monitors_away:
        while sum("the monitors" in why for why in seen.now.values()) < PARTITIONS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with target.open_bus() as bus:
            found = loop_status(
                target.store_url, target.models, await bus.offsets(RATINGS), loop_role.loop_options(target).gate
            )
        seen.status |= {} if found is None else {re.sub(r"[0-9].*", "", why) for why in found["waits"]}
    while True:
        agent = make(role, target, variation)
        async with working(agent) as running:
            while not (restart.is_set() or ended(agent)):
                assert not running.done(), f"{role}: {running.exception() or 'ended too early'}"
                if isinstance(agent, LoopWorker):
                    seen.look(agent)
                    assert not agent.ingest.steps.no_champion, agent.ingest.steps.no_champion
                await asyncio.sleep(0.005)
        if not restart.is_set():
            return
        restart.clear()


async def run_all(target: Target, variation: Variation) -> Seen:
    """To the end, everywhere."""
    restarts = {role: asyncio.Event() for role in ROLES}
    seen = Seen({}, set(), set())
    async with asyncio.timeout(_LONGEST_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep(role, target, variation, restarts[role], seen)) for role in ROLES]
        draw = random.Random(7)
        for _ in range(variation.restarts):
            await asyncio.sleep(draw.uniform(0.02, 0.25))
            role = draw.choice(ROLES)
            if not tasks[ROLES.index(role)].done():
                restarts[role].set()
    return seen


def current() -> Target | None:
    """The run in this folder, once it is there with its log."""
    try:
        target = find_target(None)
        return target if target.run is not None else None
    except (StreamLensError, NothingYet, OSError):
        return None


async def read_results(target: Target) -> Results:
    """The id of a run is made of what was asked for: RUN stands in its place."""
    async with target.open_bus() as bus:
        return await _read_results(bus, target)


async def _read_results(bus: Bus, target: Target) -> Results:
    run_id = target.run_id
    topics: dict[str, list[str]] = {}
    for topic in TOPICS:
        for partition, values in sorted((await values_of(bus, topic)).items()):
            topics[f"{topic}/{partition}"] = [value.decode().replace(run_id, "RUN") for value in unique(values)]
    registry = Registry(target.models)
    trail = [{k: v for k, v in msgspec.to_builtins(entry).items() if k != "at"} for entry in registry.audit()]
    plain = msgspec.json.encode(trail).decode().replace(run_id, "RUN")
    jobs = [(job.id.replace(run_id, "RUN"), job.state) for job in read_jobs(target.store_url)]
    return Results(topics, msgspec.json.decode(plain), sorted(v.version_id for v in registry.versions()), jobs)


async def values_of(bus: Bus, topic: str) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    missing = sum(held.end - held.start for held in (await bus.offsets(topic)).values())
    async with await bus.consumer(topic) as consumer:
        while missing > 0:
            for batch in await consumer.fetch():
                found.setdefault(batch.partition, []).extend(batch.values)
                missing -= len(batch)
    return found


def unique(values: Sequence[bytes]) -> list[bytes]:
    """Each id once, as whoever reads at least once does; a second copy must be the same."""
    found: dict[str, bytes] = {}
    for value in values:
        record = msgspec.json.decode(value)
        key = f"{record['source']} {record.get('event_id')}" if "event_id" in record else record["id"]
        assert found.setdefault(key, value) == value, f"{key}: two records of one id"
    return list(found.values())


async def work_out(variation: Variation, replay: PreparedReplay) -> Results:
    """In the current folder, which is prepared."""
    replaying = asyncio.create_task(replay.replay(asyncio.Event()))
    if variation.rate is None:
        await replaying
    while (target := current()) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    seen = await run_all(target, variation)
    await replaying
    found = await read_results(target)
    return msgspec.structs.replace(found, waits=sorted(seen.ever), status=sorted(seen.status))


def jobs_of(variation: Variation) -> Callable[..., Awaitable[Ended]]:
    async def run(command: Sequence[str], task: bytes, *given: Any) -> Ended:
        await asyncio.sleep(variation.job_s)
        if variation.failing and b'"kind":"retrain"' in task:
            return Ended(2, None, "it fails in this test")
        return await in_this_process(command, task, *given)

    return run


def together(folder: Path, *names: str, timeout_s: float) -> Mapping[str, Results]:
    """Each of the variations, worked out in ``folder`` by a process with one thread of BLAS: sums in another order are
    other sums."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STREAMLENS_")}
    environment |= {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.loop.together", str(folder), *names]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    found = {name: (folder / name / "results.json").read_bytes() for name in names}
    return {name: msgspec.json.decode(results, type=Results) for name, results in found.items()}


def main(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        variation = VARIATIONS[name]
        training_supervisor.run_process = jobs_of(variation)
        prepare(folder / name, idle=variation.idle)
        os.chdir(folder / name)
        began = time.monotonic(), time.process_time()
        wanted = {"speed": "max"} if variation.rate is None else {"rate": variation.rate}
        results = asyncio.run(work_out(variation, prepare_run(load_settings({"replay": wanted}))))
        print(name, f"{time.monotonic() - began[0]:.1f} s, {time.process_time() - began[1]:.1f} s of CPU", flush=True)  # noqa: T201
        Path("results.json").write_bytes(msgspec.json.encode(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2:])

"""A small world for the trainer: two tastes, so that EASE beats popularity, and a supervisor without a bus."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

from agents import training_supervisor
from agents.job_answer import AnswerTask
from agents.job_process import ENVIRONMENT, Ended, Limits, run_process
from agents.job_store import JobStore, read_jobs
from agents.jobs import FINAL, Job
from agents.store_thread import StoreThread
from agents.thresholds import Gates
from agents.trainer_options import TrainerOptions
from agents.training_job import RESULT
from agents.training_supervisor import Supervisor
from agents.training_task import TrainingTask
from models.registry import Registry
from streams.bus import OffsetRange, TopicInfo
from streams.durable import replace_durably
from streams.errors import StoreUnavailable, StreamLensError
from streams.events import DAY_S, DEADLETTER, MODELS, RETRAIN, DeadLetter, ModelEvent, Rating, Tick
from streams.records import RecordBatch, TopicPartition
from streams.retrain import RetrainRequest, RetrainRequested

START = 1_000_000_000 - 1_000_000_000 % DAY_S
END = START + 80 * DAY_S
TRAINING_END = START + 20 * DAY_S
T = START + 50 * DAY_S
"""Of the retrain events."""
GATES = Gates(min_slates=300, shadow_min_slates=300, n_bootstrap=200)
LOG = TopicInfo(RETRAIN, 1, None, "log-1")


def world(seed: int = 0) -> list[Rating | Tick]:
    """Even users like even movies; 24 ratings a day by 100 users, each a session of its own. Ticks each day."""
    random = np.random.default_rng(seed)
    movies = [random.permutation([m for m in range(60) if m % 2 == user % 2]) for user in range(100)]
    records: list[Rating | Tick] = []
    for n in range(80 * 24):
        user, turn = n % 100, n // 100
        records.append(Rating(user, int(movies[user][turn]), 4.0, START + n * 3_600))
    return [*records, Tick(END), Tick(END)]


def retrain_event(event_id: str, model: str = "ease", moment: int = T) -> bytes:
    request = RetrainRequest(reason="CTR -17 %", severity="critical", asked_by="ctr")
    event = RetrainRequested.of(
        model, request, id=event_id, source="run/monitors", time=datetime.fromtimestamp(moment, UTC)
    )
    return msgspec.json.encode(event)


def records(*values: bytes, first: int = 0) -> RecordBatch:
    offsets = np.arange(first, first + len(values))
    return RecordBatch(RETRAIN, 0, offsets, np.full(len(values), 2 * 10**12), first + len(values), None, list(values))


def child(*patches: str) -> tuple[str, ...]:
    """A job's process that does something else at some point: lines of Python, run before it begins."""
    return (sys.executable, "-c", "\n".join(_lines(patches)))


def _lines(patches: Sequence[str]) -> list[str]:
    return [
        "import os, signal",
        "import agents.job_answer as answer, agents.training_job as job",
        *patches,
        "job.main()",
    ]


async def in_this_process(command: Sequence[str], task: bytes, limits: Limits, on_line: Callable[[str], None]) -> Ended:
    """In place of :func:`agents.job_process.run_process`: the same work, without the second that a process takes.

    That a process of its own does it is for the tests that kill one. This one cannot be killed, and is waited for.
    """
    given = msgspec.json.decode(task, type=TrainingTask)
    working = asyncio.ensure_future(asyncio.to_thread(AnswerTask(given, on_line).outcome))
    try:
        outcome = await asyncio.shield(working)
    except StoreUnavailable as error:  # tried again, as in a process of its own
        return Ended(1, None, str(error))
    except StreamLensError as error:
        return Ended(2, None, str(error))
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise
    replace_durably(Path(given.folder) / RESULT, msgspec.json.encode(outcome))
    return Ended(0, None, "")


Run = Callable[[Sequence[str], bytes, Limits, Callable[[str], None]], Awaitable[Ended]]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["agents.training_job", "models.ease", "models.popularity", "scipy.linalg"])


def in_a_fork(*patches: str) -> Run:
    """In place of :func:`agents.job_process.run_process`: a process of its own, without the second that Python takes to
    import all that a job needs. patches: as for :func:`child`, which does the same without a fork.
    """

    async def run(command: Sequence[str], task: bytes, limits: Limits, on_line: Callable[[str], None]) -> Ended:
        process = _FORKS.Process(target=_main, args=(task, patches))
        with patch.dict(os.environ, ENVIRONMENT):  # of the server that forks, which the first one starts
            process.start()
        try:
            await asyncio.to_thread(process.join)
            assert process.exitcode is not None
            return Ended(process.exitcode, None, "")
        finally:
            process.kill()

    return run


def _main(task: bytes, patches: Sequence[str]) -> None:
    """What :func:`child` runs. stdin stays open, as it does while a trainer lives."""
    reading, writing = os.pipe()
    os.write(writing, task + b"\n")
    os.dup2(reading, 0)
    sys.stdin = os.fdopen(0)
    exec("\n".join(_lines(patches)), {})


DIE = "os.kill(os.getpid(), signal.SIGKILL)"


@dataclass
class Workplace:
    """A store of :func:`world`, a registry, and one trainer at a time without a bus."""

    store_url: str
    folder: Path

    def options(self, **options: Any) -> TrainerOptions:
        given = {"training_end": TRAINING_END, "champion": "popularity", "rating_model": None, "gates": GATES}
        return TrainerOptions(
            bus_url="memory://",
            store_url=self.store_url,
            models=self.registry.folder,
            jobs=self.folder / "jobs",
            run_id="run",
            partitions=2,
            lateness_s=0,
            poll_s=0.01,
            niceness=0,
            **(given | options),
        )

    @property
    def registry(self) -> Registry:
        return Registry(self.folder / "models")

    @property
    def jobs(self) -> dict[str, Job]:
        return {job.id: job for job in read_jobs(self.store_url)}

    async def work(
        self,
        *events: bytes,
        first: int = 0,
        prepare: Callable[[Supervisor], None] = lambda supervisor: None,
        run: Run | None = None,
        **options: Any,
    ) -> list[ModelEvent]:
        """A trainer from its start until all jobs that can run are done; returns what it left to be published.

        Jobs have a process of their own only where a ``command`` is given, or ``run`` makes one.
        """
        chosen = self.options(**options)
        store = JobStore(chosen.store_url, run_id=chosen.run_id, train_delay_s=chosen.train_delay_s)
        thread = StoreThread("jobs", patience_s=1.0)
        try:
            store.assign(LOG, {TopicPartition(RETRAIN, 0): OffsetRange(0, first + len(events))})
            store.apply([records(*events, first=first)])
            supervisor = Supervisor(chosen, store, thread)
            prepare(supervisor)
            await supervisor.begin()
            chosen_run = run or (run_process if "command" in options else in_this_process)
            with patch.object(training_supervisor, "run_process", chosen_run):
                async with asyncio.timeout(60):
                    while await supervisor.step():
                        pass
            return [msgspec.json.decode(row.value, type=ModelEvent) for row in store.outbox() if row.topic == MODELS]
        finally:
            thread.close()
            store.close()

    def dead_letters(self) -> list[DeadLetter]:
        store = JobStore(self.store_url, run_id="run", train_delay_s=DAY_S)
        try:
            store.assign(LOG, {TopicPartition(RETRAIN, 0): OffsetRange(0, 1_000)})
            return [msgspec.json.decode(r.value, type=DeadLetter) for r in store.outbox() if r.topic == DEADLETTER]
        finally:
            store.close()

    def all_final(self) -> bool:
        return all(job.state in FINAL for job in self.jobs.values())

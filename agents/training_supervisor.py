"""The supervisor: runs jobs one at a time, each in a process of its own, and does what they find is to be done.

Whatever is killed, whenever: a job's process leaves versions that nobody serves, and ``result.json``, by a rename; the
supervisor decides by that in the registry, where a job id is decided on once, then ends the job and leaves its answer
to be published in one transaction. Each step finds what the one before it has left.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import structlog

from agents.job_process import Ended, Limits, run_process
from agents.job_store import JobStore, NotHeld
from agents.jobs import (
    FINAL,
    Job,
    Outcome,
    Progress,
    answers,
    finished,
    interrupted,
    next_job,
    put_back,
    shadow_checked,
    shadow_job,
    shadow_of_entry,
    started,
)
from agents.registry_decision import decide, outcome_decided
from agents.store_thread import StoreThread
from agents.trainer_options import TrainerOptions
from agents.training_job import RESULT
from agents.training_progress import progress_of, ratings_since, slates_since
from agents.training_task import TrainingTask
from models.registry import Registry
from streams.errors import ModelError
from streams.events import DAY_S

__all__ = ["Supervisor"]

_NO_USE_TO_TRY_AGAIN = 2
_NO_TIMES = np.zeros(0, np.int64)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Counted:
    """Slates of a shadow job when they were counted last, and the ratings since its promotion by then."""

    slates: int
    ratings: int


class Supervisor:
    """``running``: the job in work, for a status line; its progress is in the table. answered: how many have ended.

    idle_at_end: whether the run has ended, and no job is left that can run, or may still be asked for by the monitors.
    waiting_for: what comes before the next job, for a person; empty for nothing.
    """

    def __init__(self, options: TrainerOptions, store: JobStore, thread: StoreThread) -> None:
        self.options = options
        self.running: Job | None = None
        self.answered = 0
        self.idle_at_end = False
        self.waiting_for = ""
        self._store = store
        self._thread = thread
        self._registry = Registry(options.models)
        self._counted: dict[str, _Counted] = {}
        self._progress = ""
        self._looked_at = -1

    async def run(self) -> None:
        """Until cancelled. Raises what the stores and the registry do, and WriterFenced once another took over."""
        begun = False
        while True:
            if not self._store.held:
                begun = False  # another may have been at work meanwhile
            else:
                try:
                    if not begun:
                        await self.begin()
                        begun = True
                    elif await self.step():
                        continue
                except NotHeld:
                    begun = False
            await asyncio.sleep(self.options.poll_s)

    async def step(self) -> bool:
        """Run the next job, where one can be; True where one was. The trainer's partition is held."""
        progress = await self._thread.patiently(progress_of, self.options)
        if progress is None:
            return False
        settled, decided = (find(self.options.lateness_s) for find in (progress.settled, progress.decided))
        await self._watch_others_promotion(progress)
        all_jobs = await self._thread.patiently(self._store.jobs)
        jobs = [await self._watched(job, decided) for job in all_jobs if job.state not in FINAL]
        job = next_job(jobs, settled, decided)
        if job is not None:
            self.idle_at_end = False
            await self._answer(job)
            return True
        self.waiting_for = self._not_yet(progress, {job.id for job in all_jobs if job.state in FINAL})
        self.idle_at_end = (
            progress.ended and not self.waiting_for and not await self._thread.patiently(self._store.outbox)
        )
        return False

    def _not_yet(self, progress: Progress, answered: set[str]) -> str:
        """What has to come before it can be said that no job will."""
        if not progress.ended:
            return "the end of the run"
        if (self.options.monitored or progress.monitored is not None) and not progress.monitors_ended:
            return "the monitors to close the end of the run"
        missing = progress.asked - answered
        return f"the event {min(missing)}, which the monitors have decided on" if missing else ""

    async def begin(self) -> None:
        """After a start: nobody works on what is said to be running, and what is done needs no folder."""
        options = self.options
        if options.training_end is not None:
            await self._thread.patiently(self._store.add_initial, options.champion, options.training_end)
        for job in await self._thread.patiently(self._store.jobs):
            if job.state == "running" and not await self._settle(job):
                await self._interrupt(job, "the trainer was stopped")
            elif job.state in FINAL:
                self._clear(job)

    async def _watch_others_promotion(self, progress: Progress) -> None:
        """Whoever promoted the champion, it is looked back at: from when it serves, and both have learnt nothing."""
        trail = self._registry.audit()
        place = max((i for i, entry in enumerate(trail) if entry.action != "rejected"), default=-1)
        entry = trail[place] if trail else None
        if place <= self._looked_at or entry is None:
            return
        self._looked_at = place
        if entry.action != "promoted" or entry.previous is None or entry.request is not None:
            return
        try:
            new, old = (self._registry.get(version_id).manifest for version_id in (entry.version_id, entry.previous))
        except ModelError as error:
            log.warning("a promotion cannot be looked back at", error=str(error))
            return
        at_once = (progress.closed // DAY_S + 1) * DAY_S
        since = max(at_once if entry.effective is None else entry.effective, new.as_of, old.as_of)
        job = shadow_of_entry(self.options.run_id, place, new.kind, entry, since, self.options.train_delay_s)
        await self._thread.patiently(self._store.change, None, (), [job])

    async def _watched(self, job: Job, settled: int) -> Job:
        """A shadow job that waits for slates, after a look at how many there are."""
        if job.kind != "shadow" or job.ready or job.since is None or settled <= job.event_time:
            return job
        least = self.options.gates.shadow_min_slates
        n_ratings = await self._thread.patiently(
            ratings_since, self.options.store_url, job.since // DAY_S, settled // DAY_S + 1
        )
        counted = self._counted.setdefault(job.id, _Counted(0, 0))
        times = _NO_TIMES
        if counted.slates + n_ratings - counted.ratings >= least:  # a rating makes one slate at most
            times = await self._thread.patiently(slates_since, self.options.store_url, job.since, settled)
            counted.slates, counted.ratings = len(times), n_ratings
        looked = shadow_checked(job, times, least, settled, self.options.train_delay_s)
        if looked != job:
            await self._thread.patiently(self._store.change, looked)
        return looked

    # One job

    async def _answer(self, job: Job) -> None:
        if self._registry.answer_to(job.id) is not None:  # of jobs that a database which was removed has forgotten
            await self._settle(started(job))
            return
        job = self.running = started(job)
        await self._thread.patiently(self._store.change, job)
        try:
            ended = await self._work(job)
            if not await self._settle(job):
                await self._interrupt(job, ended.why, final=_is_final(ended))
        except asyncio.CancelledError:
            if self._found(job) is None:
                with suppress(NotHeld):
                    await self._thread.run(self._store.change, put_back(job))
            raise
        finally:
            self.running = None

    async def _work(self, job: Job) -> Ended:
        options, folder = self.options, self._folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        task = TrainingTask(
            job=job,
            store_url=options.store_url,
            models=str(options.models),
            folder=str(folder),
            gates=options.gates,
            kinds=options.kinds,
            rating_model=options.rating_model,
            data=options.data,
            niceness=options.niceness,
        )
        telling = asyncio.create_task(self._tell_progress(job))
        try:
            return await run_process(
                options.command,
                msgspec.json.encode(task),
                Limits(options.time_limit_s, options.memory_limit_mib),
                self._on_line,
            )
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

    def _on_line(self, line: str) -> None:
        self._progress = line

    async def _tell_progress(self, job: Job) -> None:
        """Into the table, not more often than it is looked at."""
        self._progress = told = ""
        while True:
            await asyncio.sleep(self.options.poll_s)
            if told != self._progress:
                told = self._progress
                self.running = msgspec.structs.replace(job, progress=told)
                await self._thread.patiently(self._store.change, self.running)

    async def _settle(self, job: Job) -> bool:
        """Do what the job's process, or a trainer before this one, has found or decided; False where it did not."""
        outcome = self._found(job)
        if outcome is None:
            return False
        outcome = await asyncio.to_thread(decide, self._registry, job, outcome)
        ended = finished(job, outcome)
        shadows = []
        if ended.state == "promoted" and ended.kind == "retrain" and ended.against is not None:
            shadows.append(shadow_job(ended, self.options.train_delay_s))
        await self._thread.patiently(self._store.change, ended, answers(ended, outcome), shadows)
        self.answered += 1
        log.info("job ended", job=job.id, state=ended.state, reason=ended.reason)
        self._clear(job)
        return True

    def _found(self, job: Job) -> Outcome | None:
        with suppress(FileNotFoundError, msgspec.DecodeError):
            return msgspec.json.decode((self._folder(job) / RESULT).read_bytes(), type=Outcome)
        return outcome_decided(self._registry, job.id)

    async def _interrupt(self, job: Job, why: str, *, final: bool = False) -> None:
        after = interrupted(job, why, job.attempts if final else self.options.max_attempts)
        log.warning("job not answered", job=job.id, why=why, state=after.state)
        await self._thread.patiently(self._store.change, after, answers(after, None))
        if after.state in FINAL:
            self._clear(job)

    def _folder(self, job: Job) -> Path:
        return self.options.jobs / hashlib.sha256(job.id.encode()).hexdigest()[:16]

    def _clear(self, job: Job) -> None:
        shutil.rmtree(self._folder(job), ignore_errors=True)


def _is_final(ended: Ended) -> bool:
    """Whether another try would end the same way."""
    return ended.exceeded is not None or ended.code == _NO_USE_TO_TRY_AGAIN

"""The supervisor: runs jobs one at a time, each in a process of its own, and does what they find is to be done.

Whatever is killed, whenever: a job's process leaves versions that nobody serves, and ``result.json``, by a rename; the
supervisor decides by that in the registry, where a job id is decided on once, then ends the job and leaves its answer
to be published in one transaction. Each step finds what the one before it has left.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import structlog

from agents.features import FEATURES
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
from agents.monitor_store import read_decided
from agents.store_thread import StoreThread
from agents.thresholds import Gates, default_thresholds
from agents.training_job import RESULT, TrainingTask
from featurestore.aggregate import Accepted
from featurestore.reader import FeatureReader
from models.interactions import Interactions
from models.registry import Registry
from models.trials import slate_times
from streams.errors import ModelError, StoreMissing
from streams.events import DAY_S, RATINGS
from streams.records import Int64s

__all__ = ["Supervisor", "TrainerOptions"]

_BY = "trainer"
_NO_USE_TO_TRY_AGAIN = 2
_NO_TIMES = np.zeros(0, np.int64)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """What a trainer runs on, and how.

    partitions: of ``ratings``. models: the registry's folder; jobs: where each job has a folder while it runs.
    training_end: event time at which the live part begins; None: nothing is trained unless it is asked for. monitored:
    whether monitors belong to the run, so that its end is theirs. aligned: whether jobs run in event time, none before
    the monitors have decided up to it. champion,
    kinds: the kind that serves first, and those that are trained beside it. rating_model: trained along with every
    champion; None for none. train_delay_s: event time from what asks for a training to what it changes. lateness_s: how
    long ratings of an event time are waited for. data: the dataset. command: of a job's process.
    """

    bus_url: str
    store_url: str
    models: Path
    jobs: Path
    run_id: str = ""
    partitions: int = 4
    training_end: int | None = None
    champion: str = "ease"
    kinds: tuple[str, ...] = ()
    rating_model: str | None = "mf"
    train_delay_s: int = DAY_S
    lateness_s: int = DAY_S
    monitored: bool = False
    aligned: bool = True
    gates: Gates = default_thresholds().gates
    data: str | None = None
    time_limit_s: float = 3_600.0
    memory_limit_mib: float = 4_096.0
    max_attempts: int = 3
    niceness: int = 10
    store_patience_s: float = 30.0
    poll_s: float = 0.25
    command: Sequence[str] = (sys.executable, "-m", "agents.training_job")


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
        progress = await asyncio.to_thread(_progress_of, self.options)
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
        self.idle_at_end = progress.ended and not self.waiting_for and not await self._thread.run(self._store.outbox)
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
        n_ratings = await asyncio.to_thread(
            _ratings_since, self.options.store_url, job.since // DAY_S, settled // DAY_S + 1
        )
        counted = self._counted.setdefault(job.id, _Counted(0, 0))
        times = _NO_TIMES
        if counted.slates + n_ratings - counted.ratings >= least:  # a rating makes one slate at most
            times = await asyncio.to_thread(_slates_since, self.options.store_url, job.since, settled)
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
        outcome = await asyncio.to_thread(_decide, self._registry, job, outcome)
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
        entry = self._registry.answer_to(job.id)
        if entry is None:
            return None
        decisions = {"promoted": "promote", "rejected": "reject", "rolled back": "roll back"}
        return msgspec.convert(
            {
                "decision": decisions[entry.action],
                "reason": entry.why,
                "version_id": None if entry.action == "rolled back" else entry.version_id,
                "against": entry.previous,
            },
            Outcome,
        )

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


def _decide(registry: Registry, job: Job, outcome: Outcome) -> Outcome:
    """In the registry, once for a job's id; what cannot be done fails the job."""
    how = {"by": _BY, "why": outcome.reason, "effective": job.due, "request": job.id}
    try:
        if outcome.decision == "roll back":
            champion = registry.champion()
            if registry.answer_to(job.id) is None and champion and champion.version_id != job.version_id:
                reason = f"{champion.version_id} takes over; nothing to roll back. {outcome.reason}"
                return msgspec.structs.replace(outcome, decision="none", reason=reason)
            registry.roll_back(**how, champion=job.version_id)  # type: ignore[arg-type]
        elif outcome.version_id is not None and outcome.decision == "promote":
            registry.promote(registry.get(outcome.version_id), **how)  # type: ignore[arg-type]
        elif outcome.version_id is not None and outcome.decision == "reject":
            registry.reject(registry.get(outcome.version_id), **how)  # type: ignore[arg-type]
    except ModelError as error:
        return msgspec.structs.replace(outcome, decision="fail", reason=str(error))
    return outcome


def _progress_of(options: TrainerOptions) -> Progress | None:
    """None before the features have begun with every partition."""
    # Monitors first: what they have closed, the features had applied.
    monitors = read_decided(options.store_url)
    try:
        with FeatureReader(options.store_url) as reader:
            rows = [row for row in reader.applied() if row.topic == RATINGS and row.agent == FEATURES]
    except StoreMissing:
        return None
    if len(rows) < options.partitions:
        return None
    return Progress(
        closed=min(row.closed for row in rows),
        ended=all(row.end_of_run for row in rows),
        monitored=monitors.closed if monitors and options.aligned else None,
        monitors_ended=monitors is not None and monitors.ended,
        asked=frozenset() if monitors is None else monitors.asked,
    )


def _ratings_since(store_url: str, first_day: int, end_day: int) -> int:
    with FeatureReader(store_url) as reader:
        return reader.ratings_on_days(first_day, end_day)


def _slates_since(store_url: str, since: int, until: int) -> Int64s:
    """When slates were made from ``since`` to before ``until``; late ratings make none."""
    with FeatureReader(store_url) as reader:
        parts = [_on_time(page) for page in reader.history_pages(before=until)]
    return slate_times(Interactions.concat(parts), since)


def _on_time(page: Accepted) -> Interactions:
    kept = page.where(~page.late)
    return Interactions(kept.user_id, kept.movie_id, kept.half_stars / 2, kept.timestamp)

"""Training jobs as values: what each is about, when it may run, and what becomes of it. Pure.

    queued -> running -> promoted | rejected | failed | done
       ^---------'  its process ended without an answer, and tries are left

A ``retrain`` job answers one retrain event; the ``initial`` one makes the first champion; a ``shadow`` job compares a
new champion with the one before it, once enough slates were made since the promotion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from models.decisions import AuditEntry
from streams.events import DAY_S, ModelEvent
from streams.records import Int64s
from streams.retrain import RetrainRequested

__all__ = [
    "FINAL",
    "Decision",
    "Job",
    "JobKind",
    "JobState",
    "Outcome",
    "Progress",
    "answers",
    "finished",
    "initial_job",
    "interrupted",
    "next_job",
    "put_back",
    "retrain_job",
    "shadow_checked",
    "shadow_job",
    "shadow_of_entry",
    "started",
]

JobKind = Literal["initial", "retrain", "shadow"]
JobState = Literal["queued", "running", "promoted", "rejected", "failed", "done"]
FINAL = frozenset({"promoted", "rejected", "failed", "done"})
Decision = Literal["promote", "reject", "roll back", "none", "fail"]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table ``jobs``; times are event times, seconds since the epoch.

    id: of the retrain event; others are derived from the run's. number: orders jobs of one event time. event_time:
    nothing from then on is learnt from, or judged by; of a shadow job that waits for slates, how far these were
    counted. due: when what it decides takes effect. model: the kind that is trained, or the new champion's.
    version_id: who was promoted or rejected, of a shadow job the new champion. against: the champion it is compared
    with. since: of a shadow job, when the new champion began to serve. ready: whether event_time is settled. asked: who
    asked for it in person, and their justification; empty where nobody did.
    """

    id: str
    number: int
    kind: JobKind
    model: str
    event_time: int
    due: int
    state: JobState = "queued"
    version_id: str | None = None
    reason: str = ""
    metrics: dict[str, Any] = {}
    attempts: int = 0
    progress: str = ""
    against: str | None = None
    since: int | None = None
    ready: bool = True
    asked: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a job's process found: the decision it asks for, about which version, why, and by what evidence.

    against: the champion it was compared with. trained: versions it added beside, by kind.
    """

    decision: Decision
    reason: str
    version_id: str | None = None
    metrics: dict[str, Any] = {}
    against: str | None = None
    trained: dict[str, str] = {}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the features are, and the monitors. closed: boundary of the partition that is last. ended: the run is,
    everywhere. monitored: event time up to which the monitors have decided, None where there are none.
    monitors_ended: they have closed the end of the run. asked: the ids of what they asked for.
    """

    closed: int
    ended: bool
    monitored: int | None = None
    monitors_ended: bool = False
    asked: frozenset[str] = frozenset()

    def settled(self, lateness_s: int) -> int:
        """Before this event time no rating is still to come, but late ones."""
        return self.closed if self.ended else self.closed - lateness_s

    def decided(self, lateness_s: int) -> int:
        """Before this event time the monitors, too, ask for nothing any more."""
        settled = self.settled(lateness_s)
        return settled if self.monitored is None else min(settled, self.monitored)


def initial_job(run_id: str, champion: str, training_end: int) -> Job:
    """The job that trains what is needed before the first slate."""
    return Job(
        id=f"{run_id}/trainer/initial",
        number=-1,
        kind="initial",
        model=champion,
        event_time=training_end,
        due=training_end,
    )


def retrain_job(event: RetrainRequested, offset: int, train_delay_s: int) -> Job:
    """The job that answers ``event``, which stands at ``offset``.

    Raises ValueError for what decodes and is no event: an empty id, one that no database keeps, a time without a zone.
    """
    asked = f"{event.data.asked_by}: {event.data.justification}" if event.data.justification else ""
    if not event.id or "\0" in event.id + event.subject + asked:
        raise ValueError(
            f"expected an id, a subject and a justification without NUL, found {event.id!r}, {event.subject!r} and "
            f"{asked!r}"
        )
    if event.time.tzinfo is None:
        raise ValueError(f"time: expected one with a zone, found {event.time.isoformat()}")
    moment = int(event.time.timestamp())
    return Job(
        id=event.id,
        number=offset,
        kind="retrain",
        model=event.subject,
        event_time=moment,
        due=moment + train_delay_s,
        asked=asked,
    )


def shadow_job(promoted: Job, train_delay_s: int) -> Job:
    """The job that looks back at a promotion that a job has led to; it waits until enough slates were made.

    >>> job = Job(id="7", number=3, kind="retrain", model="ease", event_time=0, due=86_400, version_id="b", against="a")
    >>> shadow_job(job, 86_400).id
    '7/shadow'
    """
    return _waiting(f"{promoted.id}/shadow", promoted, promoted.due, train_delay_s)


def shadow_of_entry(run_id: str, place: int, kind: str, entry: AuditEntry, since: int, train_delay_s: int) -> Job:
    """The same for a promotion by somebody else: the decision at ``place`` of the trail, of a version of ``kind``."""
    promoted = Job(
        id=f"{run_id}/trainer/decision-{place}",
        number=-1,
        kind="retrain",
        model=kind,
        event_time=since,
        due=since,
        version_id=entry.version_id,
        against=entry.previous,
    )
    return shadow_job(promoted, train_delay_s)


def _waiting(job_id: str, promoted: Job, since: int, train_delay_s: int) -> Job:
    waiting = Job(
        id=job_id,
        number=promoted.number,
        kind="shadow",
        model=promoted.model,
        event_time=since,
        due=since,
        version_id=promoted.version_id,
        against=promoted.against,
        since=since,
        ready=False,
    )
    return _counted_to(waiting, since, train_delay_s)


def shadow_checked(job: Job, slates: Int64s, least: int, settled: int, train_delay_s: int) -> Job:
    """A shadow job after slates were counted up to event time ``settled``: (n,) moments, rising, since its promotion.

    It is ready as of the first day boundary by which there are ``least``. Until then its due time moves along, so that
    whoever waits for all jobs due by a time waits for this one only until it is known not to be.
    """
    if len(slates) >= least:
        boundary = (int(slates[least - 1]) // DAY_S + 1) * DAY_S
        if boundary <= settled:
            return msgspec.structs.replace(job, event_time=boundary, due=boundary + train_delay_s, ready=True)
    return _counted_to(job, max(settled, job.event_time), train_delay_s)


def _counted_to(job: Job, moment: int, train_delay_s: int) -> Job:
    earliest = (moment // DAY_S + 1) * DAY_S
    return msgspec.structs.replace(job, event_time=moment, due=earliest + train_delay_s)


def next_job(jobs: Iterable[Job], settled: int, decided: int | None = None) -> Job | None:
    """The job to run now: of those queued whose event time is settled, the earliest.

    decided: event time before which no other job can come any more, by default as settled; the initial job does not
    wait for it. So jobs run in event time, however far features are ahead of the monitors. None while one runs.
    Shadow jobs were counted up to ``decided``: none becomes ready as of an earlier time.
    """
    decided = settled if decided is None else min(decided, settled)
    open_jobs = [job for job in jobs if job.state not in FINAL]
    if any(job.state == "running" for job in open_jobs):
        return None
    fit = [job for job in open_jobs if job.ready and job.event_time <= (settled if job.kind == "initial" else decided)]
    return min(fit, key=lambda job: (job.event_time, job.number, job.id), default=None)


def started(job: Job) -> Job:
    """Raises ValueError where it is not queued."""
    _expect(job, "queued")
    return msgspec.structs.replace(job, state="running", attempts=job.attempts + 1, progress="")


def interrupted(job: Job, why: str, max_attempts: int) -> Job:
    """Its process ended without an answer: it is queued again, or failed once it had its tries."""
    _expect(job, "running")
    if job.attempts < max_attempts:
        return msgspec.structs.replace(job, state="queued", progress="", reason=f"try {job.attempts}: {why}")
    tries = f"{job.attempts} tries" if job.attempts > 1 else "one try"
    return msgspec.structs.replace(job, state="failed", progress="", reason=f"given up after {tries}: {why}")


def put_back(job: Job) -> Job:
    """Its process was stopped along with the trainer, on purpose: this try does not count."""
    _expect(job, "running")
    return msgspec.structs.replace(job, state="queued", attempts=job.attempts - 1, progress="")


def finished(job: Job, outcome: Outcome) -> Job:
    """As it ends, once what was decided is done."""
    _expect(job, "running")
    states: dict[Decision, JobState] = {"promote": "promoted", "reject": "rejected", "fail": "failed"}
    return msgspec.structs.replace(
        job,
        state=states.get(outcome.decision, "done"),
        version_id=outcome.version_id or job.version_id,
        reason=outcome.reason,
        metrics=outcome.metrics,
        against=outcome.against or job.against,
        progress="",
    )


def answers(job: Job, outcome: Outcome | None) -> Sequence[ModelEvent]:
    """What is told of a job that ended; outcome: None where it was given up."""
    asked = job.id if job.kind == "retrain" else None
    events = [
        ModelEvent("trained", kind, version_id, job.event_time, "beside the champion", request=asked)
        for kind, version_id in sorted((outcome.trained if outcome else {}).items())
    ]
    if outcome is not None and outcome.decision == "roll back":
        events.append(ModelEvent("rolled_back", job.model, job.against, job.due, job.reason, job.metrics))
    elif job.state == "promoted" or job.state == "rejected" or job.state == "failed":
        events.append(ModelEvent(job.state, job.model, job.version_id, job.due, job.reason, job.metrics, request=asked))
    return events


def _expect(job: Job, state: JobState) -> None:
    if job.state != state:
        raise ValueError(f"job {job.id}: expected it {state}, found it {job.state}")

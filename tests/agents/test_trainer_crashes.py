"""The trainer and its jobs killed at each step: one decision, told once, and nothing trained for nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from agents import training_supervisor
from agents.jobs import FINAL, Job, Outcome
from agents.trainer import Trainer
from agents.training_supervisor import Supervisor
from streams.bus import open_bus
from streams.events import DAY_S, MODELS, RETRAIN, ModelEvent
from streams.testing import collect
from streams.topics import run_topics
from tests.agents.at_work import at_work
from tests.agents.killed import bus_of, killed, trainer_part
from tests.agents.trainer_place import QUIET, build_store, decisions, one_step, place, plant, stored
from tests.agents.training_world import DIE, T, Workplace, in_a_fork, in_this_process, retrain_event

__all__ = ["build_store", "place", "stored"]


@dataclass(frozen=True)
class Answer:
    """What comes of ``events`` where ``champions`` were planted. versions: how many the job leaves; effective: when."""

    champions: tuple[str, ...]
    events: tuple[bytes, ...]
    job: str
    kind: str
    versions: int
    effective: int | None
    options: dict[str, Any]


ANSWERS = {
    "promotion": Answer(("popularity",), (retrain_event("e1"),), "e1", "promoted", 1, T + DAY_S, QUIET),
    "rejection": Answer(("ease",), (retrain_event("e1", "popularity"),), "e1", "rejected", 1, T + DAY_S, QUIET),
    "roll back": Answer(
        *(("ease", "popularity"), (), "run/trainer/decision-1/shadow", "rolled_back", 0, T + 14 * DAY_S),
        {"training_end": None, "max_attempts": 9},
    ),
}
"""Of a better challenger, of a worse one, and of a worse model that was planted as champion."""

CRASHES = {
    "before training": f"job.AnswerTask.outcome = lambda self: {DIE}",
    "before the verdict": f"answer.replace_durably = lambda path, content: {DIE}",
    "after the verdict": f"answer.AnswerTask._train = lambda self, recipe: {DIE}",
    "before the version is there": f"answer.Registry.add = lambda self, draft: {DIE}",
    "after the version": f"keep = answer.keep_version; answer.keep_version = lambda *given: (keep(*given), {DIE})",
    "before the result": f"job.replace_durably = lambda path, content: {DIE} if path.name == job.RESULT else None",
    "after the result": f"put = job.replace_durably; job.replace_durably = lambda path, content: (put(path, content), "
    f"{DIE} if path.name == job.RESULT else None)",
}
NEVER = {
    "rejection": {"before training", "after the verdict"},
    "roll back": {"before the verdict", "after the verdict", "before the version is there", "after the version"},
}
"""Where no such job comes, or another one has been."""


@pytest.mark.parametrize(
    ("answer", "crash"),
    [(answer, crash) for answer in ANSWERS for crash in CRASHES if crash not in NEVER.get(answer, ())],
)
async def test_a_job_killed_at_any_step_is_one_answer(place: Workplace, answer: str, crash: str) -> None:
    """The process dies where it comes to the step; the next one does not."""
    expected = ANSWERS[answer]
    plant(place, *expected.champions)
    run = in_a_fork(CRASHES[crash])
    first = await place.work(*expected.events, **expected.options, run=run, prepare=one_step)
    job = place.jobs[expected.job]
    assert (job.state in FINAL) == (crash == "after the result")
    assert ("signal 9" in job.reason) == (job.state == "queued")
    again = await place.work(first=len(expected.events), **expected.options)
    assert again[: len(first)] == first
    assert_answered_once(place, again, expected)


async def test_a_verdict_that_a_try_before_has_left_is_gone_by(place: Workplace) -> None:
    """Whatever another comparison would say: this one would promote."""
    plant(place, "popularity")

    def leave(supervisor: Supervisor) -> None:
        folder = supervisor._folder(supervisor._store.jobs()[-1])
        folder.mkdir(parents=True)
        (folder / "verdict.json").write_bytes(msgspec.json.encode(Outcome(decision="reject", reason="so it was")))

    (told,) = await place.work(retrain_event("e1"), **QUIET, prepare=leave)
    assert (told.kind, told.reason) == ("rejected", "so it was")


def assert_answered_once(place: Workplace, events: list[ModelEvent], expected: Answer) -> None:
    request = expected.job if expected.events else None
    assert [(e.kind, e.request, e.event_id) for e in events] == [(expected.kind, request, 1)]
    action = expected.kind.replace("_", " ")
    assert decisions(place)[len(expected.champions) :] == [(action, expected.job, expected.effective)]
    left = [version for version in place.registry.versions() if version.manifest.request == expected.job]
    assert len(left) == expected.versions
    assert place.registry.damaged() == {}
    assert place.jobs[expected.job].state == ("done" if expected.kind == "rolled_back" else expected.kind)


class Killed(BaseException):
    """In place of a kill: nothing of the trainer goes on after it."""


def dying(point: str) -> Callable[[Supervisor], None]:
    def prepare(supervisor: Supervisor) -> None:
        change = supervisor._store.change

        def die(*given: object) -> None:
            job = given[0]
            ending = isinstance(job, Job) and job.state in FINAL
            if isinstance(job, Job) and point.endswith("ended" if ending else job.state):
                if point.startswith("after"):
                    change(*given)  # type: ignore[arg-type]
                raise Killed
            change(*given)  # type: ignore[arg-type]

        supervisor._store.change = die  # type: ignore[method-assign, assignment]

    return prepare


STEPS = ("before running", "after running", "before ended", "after ended", "before deciding", "after deciding")


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("point", STEPS)
async def test_a_trainer_killed_at_any_step_is_one_answer(
    place: Workplace, answer: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ANSWERS[answer]
    plant(place, *expected.champions)
    with monkeypatch.context() as patched:
        decide = training_supervisor.decide
        if point == "before deciding":
            patched.setattr(training_supervisor, "decide", _die)
        if point == "after deciding":
            patched.setattr(training_supervisor, "decide", lambda *given: (decide(*given), _die()))
        with pytest.raises(Killed):
            await place.work(*expected.events, **expected.options, prepare=dying(point))
    assert_answered_once(place, await place.work(first=len(expected.events), **expected.options), expected)
    attempts = place.jobs[expected.job].attempts
    assert attempts == (2 if point == "after running" else 1), "worked on again for nothing"


def _die(*_: object) -> None:
    raise Killed


async def test_an_answer_that_is_published_and_not_forgotten_is_published_again(place: Workplace) -> None:
    """The trainer is killed between the two; whoever reads drops the second one by its id."""
    plant(place, "popularity")
    bus_url = bus_of(place.folder)
    async with asyncio.timeout(120), open_bus(bus_url) as bus:
        await bus.create_topics(*run_topics(2))
        async with bus.producer() as producer:
            await (await producer.send(RETRAIN, retrain_event("e1")))
        await asyncio.to_thread(killed, trainer_part, place.store_url, place.folder)
        (told,) = await collect(bus, MODELS, 1)
        options = replace(place.options(**QUIET), bus_url=bus_url)
        with patch.object(training_supervisor, "run_process", in_this_process):
            async with at_work(Trainer(options)) as trainer:
                again = await collect(bus, MODELS, 2)
                while not trainer.store.held or trainer.store.outbox():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert again == [told] * 2
        assert [held.end for held in (await bus.offsets(MODELS)).values()] == [2]
    assert_answered_once(place, [msgspec.json.decode(told, type=ModelEvent)], ANSWERS["promotion"])


async def test_what_a_first_training_left_when_it_was_killed_is_told_of_all_the_same(place: Workplace) -> None:
    kinds = ("decayed-popularity",)
    await place.work(kinds=kinds, run=in_a_fork(CRASHES["before the result"]), prepare=one_step)
    assert len(place.registry.versions()) == 2
    told = await place.work(kinds=kinds)
    assert [(event.kind, event.model) for event in told] == [("trained", *kinds), ("promoted", "popularity")]


ENDLESS = """
import asyncio, sys
from pathlib import Path
from typing import Any
from tests.agents.training_world import Workplace, child, retrain_event

place = Workplace(sys.argv[1], Path(sys.argv[2]))
command = child("job.AnswerTask.outcome = lambda self: (job.Path(%r).write_text(str(os.getpid())), "
                "__import__('time').sleep(600))" % sys.argv[3])
asyncio.run(place.work(retrain_event("e1"), training_end=None, command=command))
"""


async def test_a_trainer_that_is_killed_takes_its_job_along_and_the_next_one_answers(place: Workplace) -> None:
    plant(place, "popularity")
    told = place.folder / "pid"
    command = [sys.executable, "-c", ENDLESS, place.store_url, str(place.folder), str(told)]
    with subprocess.Popen(command) as trainer:  # noqa: ASYNC220
        async with asyncio.timeout(60):
            while not (told.exists() and told.read_text()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        pid = int(told.read_text())
        os.kill(pid, 0)
        trainer.kill()
    assert place.jobs["e1"].state == "running"
    async with asyncio.timeout(60):
        while is_there(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert_answered_once(place, await place.work(first=1, **QUIET), ANSWERS["promotion"])
    assert place.jobs["e1"].attempts == 2


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

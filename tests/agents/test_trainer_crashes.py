"""The trainer and its jobs killed at each step: one promotion, told once, and nothing trained for nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agents import training_supervisor
from agents.jobs import Job, Outcome
from agents.training_supervisor import Supervisor
from streams.events import DAY_S, ModelEvent
from tests.agents.trainer_place import QUIET, build_store, decisions, one_step, place, plant, stored
from tests.agents.training_world import DIE, T, Workplace, in_a_fork, retrain_event

__all__ = ["build_store", "place", "stored"]


CRASHES = {
    "before training": f"job.AnswerTask.outcome = lambda self: {DIE}",
    "after the verdict": f"answer.AnswerTask._train = lambda self, recipe: {DIE}",
    "before the version is there": f"answer.Registry.add = lambda self, draft: {DIE}",
    "after the version": f"keep = answer.keep_version; answer.keep_version = lambda *given: (keep(*given), {DIE})",
    "before the result": f"job.replace_durably = lambda path, content: {DIE} if path.name == job.RESULT else None",
    "after the result": f"put = job.replace_durably; job.replace_durably = lambda path, content: (put(path, content), "
    f"{DIE} if path.name == job.RESULT else None)",
}


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES)
async def test_a_job_killed_at_any_step_is_one_promotion(place: Workplace, crash: str) -> None:
    """The process dies where it comes to the step; the next one does not."""
    plant(place, "popularity")
    first = await place.work(retrain_event("e1"), **QUIET, run=in_a_fork(crash), prepare=one_step)
    job = place.jobs["e1"]
    assert (job.state, "signal 9" in job.reason) in {("queued", True), ("promoted", False)}
    assert (job.state == "promoted") == ("put(path" in crash)
    again = await place.work(first=1, **QUIET)
    assert again[: len(first)] == first
    assert_promoted_once(place, again)


async def test_a_verdict_that_a_try_before_has_left_is_gone_by(place: Workplace) -> None:
    """Whatever another comparison would say: this one would promote."""
    plant(place, "popularity")

    def leave(supervisor: Supervisor) -> None:
        folder = supervisor._folder(supervisor._store.jobs()[-1])
        folder.mkdir(parents=True)
        (folder / "verdict.json").write_bytes(msgspec.json.encode(Outcome(decision="reject", reason="so it was")))

    (told,) = await place.work(retrain_event("e1"), **QUIET, prepare=leave)
    assert (told.kind, told.reason) == ("rejected", "so it was")


def assert_promoted_once(place: Workplace, events: list[ModelEvent]) -> None:
    assert [(e.kind, e.request, e.event_id) for e in events] == [("promoted", "e1", 1)]
    assert decisions(place)[1:] == [("promoted", "e1", T + DAY_S)]
    assert len([v for v in place.registry.versions() if v.manifest.request == "e1"]) == 1
    assert place.registry.damaged() == {}
    assert place.jobs["e1"].state == "promoted"


class Killed(BaseException):
    """In place of a kill: nothing of the trainer goes on after it."""


def dying(point: str) -> Callable[[Supervisor], None]:
    def prepare(supervisor: Supervisor) -> None:
        change = supervisor._store.change

        def die(*given: object) -> None:
            job = given[0]
            if isinstance(job, Job) and job.state == point.split()[-1]:
                if point.startswith("after"):
                    change(*given)  # type: ignore[arg-type]
                raise Killed
            change(*given)  # type: ignore[arg-type]

        supervisor._store.change = die  # type: ignore[method-assign, assignment]

    return prepare


STEPS = ("before running", "after running", "before promoted", "after promoted", "before deciding", "after deciding")


@pytest.mark.parametrize("point", STEPS)
async def test_a_trainer_killed_at_any_step_is_one_promotion(
    place: Workplace, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(place, "popularity")
    with monkeypatch.context() as patched:
        decide = training_supervisor.decide
        if point == "before deciding":
            patched.setattr(training_supervisor, "decide", _die)
        if point == "after deciding":
            patched.setattr(training_supervisor, "decide", lambda *given: (decide(*given), _die()))
        with pytest.raises(Killed):
            await place.work(retrain_event("e1"), **QUIET, prepare=dying(point))
    assert_promoted_once(place, await place.work(first=1, **QUIET))
    assert place.jobs["e1"].attempts == (2 if point == "after running" else 1), "trained again for nothing"


def _die(*_: object) -> None:
    raise Killed


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
    assert_promoted_once(place, await place.work(first=1, **QUIET))
    assert place.jobs["e1"].attempts == 2


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

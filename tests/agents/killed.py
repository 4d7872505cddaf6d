"""Agents at work in a process of their own, which kills itself with SIGKILL where they come to a step.

Nothing of such a process goes on: no ``finally``, no ``close`` of a store, no thread. What it had committed is there.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agents import monitor_ingest, training_supervisor
from agents.lines_ingest import LinesIngest
from agents.lines_outbox import drain_lines
from agents.loop_steps import LoopSteps
from agents.monitor_ingest import MonitorIngest
from agents.outbox import drain_outbox
from agents.trainer import Trainer
from streams.bus import open_bus
from streams.topics import run_topics
from tests.agents.loop_world import PARTITIONS, World, unread
from tests.agents.monitored import falling
from tests.agents.monitored_run import Run
from tests.agents.trainer_place import QUIET
from tests.agents.training_world import Workplace, in_this_process

__all__ = ["LOOP_STEPS", "MONITOR_STEPS", "PUBLISHED", "bus_of", "killed", "loop_part", "monitors_part", "trainer_part"]

_FORKS = multiprocessing.get_context("forkserver")
_LONGEST_S = 60.0


def killed(work: Callable[..., None], *given: Any) -> None:
    """Have a process do ``work(*given)``, in the middle of which it is killed; it is an error where it was not."""
    process = _FORKS.Process(target=work, args=given)
    process.start()
    process.join(_LONGEST_S)
    ended = process.exitcode
    process.kill()
    process.join()
    assert ended == -signal.SIGKILL, ended


def _die_at(
    owner: object, name: str, nth: int = 1, *, after: bool = False, only: Callable[..., bool] = lambda *given: True
) -> None:
    """Kill this process where ``owner.name`` is called the ``nth`` time with what ``only`` wants: first, or after."""
    call, left = getattr(owner, name), nth

    def dying(*given: Any) -> Any:
        nonlocal left
        left -= only(*given)
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*given)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, name, dying)


def bus_of(folder: Path) -> str:
    return f"sqlite:///{folder}/bus.db"


PUBLISHED = "published, not forgotten"
"""The bus has acknowledged it, and it is still to be published."""

LOOP_STEPS: Mapping[str, Callable[[LoopSteps], None]] = {
    "before the commit": lambda steps: _die_at(steps.writer, "commit_step", 9),
    "in the transaction": lambda steps: _die_at(
        steps.writer.database, "execute_many", 9, after=True, only=lambda sql, rows: "INTO outgoing" in sql
    ),
    "after the commit": lambda steps: _die_at(steps.writer, "commit_step", 9, after=True),
    PUBLISHED: lambda steps: _die_at(steps.writer, "sent", 4),
    "forgotten": lambda steps: _die_at(steps.writer, "sent", 4, after=True),
}


def loop_part(folder: Path, step: str | None = None) -> None:
    """The loop of the world in ``folder``, whose features are applied, from where it is; to its end where no step is
    named."""
    asyncio.run(_loop_part(folder, step))


async def _loop_part(folder: Path, step: str | None) -> None:
    world = World(folder)
    steps = world.loop(records_at_once=40)
    steps.offer(unread(world.log, steps, 25))
    if step is not None:
        LOOP_STEPS[step](steps)
    ingest: LinesIngest[LoopSteps] = LinesIngest("loop", steps)
    async with open_bus(bus_of(folder)) as bus:
        await bus.create_topics(*run_topics(PARTITIONS))
        await drain_lines(bus, ingest)
        while await ingest.store.run(steps.advance):
            await drain_lines(bus, ingest)
    ingest.close()


def _tells(*given: Any) -> bool:
    """Whether a commit of the monitors leaves something to be published."""
    return bool(given[3])


MONITOR_STEPS: Mapping[str, Callable[[MonitorIngest], None]] = {
    "before the commit": lambda ingest: _die_at(ingest.writer, "commit", only=_tells),
    "in the transaction": lambda ingest: _die_at(
        monitor_ingest, "write_requests", after=True, only=lambda database, asked: bool(asked)
    ),
    "after the commit": lambda ingest: _die_at(ingest.writer, "commit", after=True, only=_tells),
    PUBLISHED: lambda ingest: _die_at(ingest.writer, "published"),
    "forgotten": lambda ingest: _die_at(ingest.writer, "published", after=True),
}


def monitors_part(folder: Path, step: str | None = None) -> None:
    """Monitors of five days of falling clicks in ``folder``, from where they are; to the end where no step is named."""
    asyncio.run(_monitors_part(folder, step))


async def _monitors_part(folder: Path, step: str | None) -> None:
    run = Run(folder, falling(5))
    since = await run.start()
    assert run.ingest is not None
    if step is not None:
        MONITOR_STEPS[step](run.ingest)
    async with open_bus(bus_of(folder)) as bus:
        await bus.create_topics(*run_topics(run.logs.partitions))
        await drain_outbox(bus, run.ingest)
        for batch in run.logs.batches(60, 1, since):
            await run.ingest.apply([batch])
            await drain_outbox(bus, run.ingest)
        await run.ingest.release([])
    run.kill()


def trainer_part(store_url: str, folder: Path) -> None:
    """The trainer of a place, which dies where it has published its first answer, and not forgotten it."""
    trainer = Trainer(replace(Workplace(store_url, folder).options(**QUIET), bus_url=bus_of(folder)))
    _die_at(trainer.store, "published")
    with patch.object(training_supervisor, "run_process", in_this_process):
        asyncio.run(trainer.run(asyncio.Event()))

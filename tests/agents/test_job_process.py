"""A job's process ends with all that it has started."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import pytest

from agents.job_process import Limits, run_process
from streams.testing import eventually

CHILD = "import time; time.sleep(600)"
JOB = f"""
import subprocess, sys
sys.stdin.readline()
print(subprocess.Popen([sys.executable, "-c", {CHILD!r}]).pid, flush=True)
sys.stdin.read()
"""
COMMAND = [sys.executable, "-c", JOB]


def is_gone(pid: int) -> bool:
    """Also one that nobody has waited for yet."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        pass
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


async def test_at_a_limit_its_children_are_killed_with_it() -> None:
    said: list[str] = []
    ended = await asyncio.wait_for(run_process(COMMAND, b"{}", Limits(1.5, 4_096), said.append), 30)
    assert ended.why.startswith("time limit: ")
    await eventually(lambda: is_gone(int(said[0])))


async def test_where_it_is_given_up_its_children_are_killed_with_it() -> None:
    said: list[str] = []
    running = asyncio.create_task(run_process(COMMAND, b"{}", Limits(600, 4_096), said.append))
    await eventually(lambda: bool(said))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await eventually(lambda: is_gone(int(said[0])))

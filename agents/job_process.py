"""A job's process: started, watched and, where it takes too long or too much memory, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENT", "Ended", "Limits", "run_process"]

_WATCH_S = 0.2
_LAST_LINES = 5
_LONGEST_LINE = 1 << 16
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread: ingest needs the other cores, and sums in another order are other sums."""


@dataclass(frozen=True, slots=True)
class Limits:
    """time_s: wall time. memory_mib: resident memory; an address-space limit would not do, torch reserves far more."""

    time_s: float
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Ended:
    """code: as subprocess has it. exceeded: the limit it was killed for, in words; None for none. said: its last line
    on stderr."""

    code: int
    exceeded: str | None
    said: str

    @property
    def why(self) -> str:
        """In words."""
        if self.exceeded is not None:
            return self.exceeded
        ended = f"ended by signal {-self.code}" if self.code < 0 else f"ended with exit code {self.code}"
        return f"its process {ended}" + (f": {self.said}" if self.said else "")


async def run_process(command: Sequence[str], task: bytes, limits: Limits, on_line: Callable[[str], None]) -> Ended:
    """Run ``command`` with ``task``, a line, on its stdin, which then stays open. on_line: told what it prints.

    The process has a session of its own, so that a Ctrl-C reaches its parent alone; it is killed where this is
    cancelled.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=os.environ | ENVIRONMENT,
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    said: deque[str] = deque(maxlen=_LAST_LINES)
    reading = [
        asyncio.create_task(_each_line(process.stdout, on_line)),
        asyncio.create_task(_each_line(process.stderr, said.append)),
    ]
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died at once, which its code tells
            process.stdin.write(task + b"\n")
            await process.stdin.drain()
        exceeded = await _watch(process, limits)
        await asyncio.gather(*reading)
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
        for one in reading:
            one.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        process.stdin.close()
    assert process.returncode is not None
    return Ended(process.returncode, exceeded, said[-1] if said else "")


async def _watch(process: asyncio.subprocess.Process, limits: Limits) -> str | None:
    """Wait until it ends; kill it at a limit, and say which."""
    deadline = time.monotonic() + limits.time_s
    ending = asyncio.ensure_future(process.wait())
    exceeded = None
    while not ending.done():
        await asyncio.wait({ending}, timeout=_WATCH_S)
        if ending.done() or exceeded is not None:
            continue
        used_mib = _resident_mib(process.pid)
        if used_mib > limits.memory_mib:
            exceeded = f"memory limit: {used_mib:,.0f} MiB of {limits.memory_mib:,.0f} were in use"
        elif time.monotonic() > deadline:
            exceeded = f"time limit: not done after {limits.time_s:,g} s"
        if exceeded is not None:
            _kill(process)
    return exceeded


def _kill(process: asyncio.subprocess.Process) -> None:
    """With all that it has started, which would hold its output open: its session is its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _resident_mib(pid: int) -> float:
    """0 where the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return 0.0
    except (ProcessLookupError, IndexError):
        return 0.0
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return int(found) / 1_024 if found.strip() else 0.0


async def _each_line(stream: asyncio.StreamReader, tell: Callable[[str], None]) -> None:
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than anything it has to say
            continue
        if not line:
            return
        if text := line.decode(errors="replace").strip():
            tell(text)

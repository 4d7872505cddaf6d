"""Commands of this program as child processes: started, watched, and stopped as Ctrl-C would stop them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from streams.errors import StreamLensError

__all__ = ["Child", "ChildFailed", "running"]

_DRAIN_S = 30.0


class ChildFailed(StreamLensError):
    """A child process ended with an error; the message is its own last line."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running command; what it prints goes to the file ``log``."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def finished(self) -> bool:
        """True once it has ended well. Raises ChildFailed once it has ended otherwise."""
        code = self.process.returncode
        if code:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            said = lines[-1] if lines else "no word"
            raise ChildFailed(f"the {self.name} ended with exit code {code}: {said} (all it said: {self.log})")
        return code == 0

    async def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """Ask it to drain and end; kill it only if it does not."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                self.process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self.process.wait(), _DRAIN_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@contextlib.asynccontextmanager
async def running(
    name: str, log: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """``streamlens ARGUMENTS --with-parent`` as a child that ends with the block.

    Its stdin is a pipe that only this process holds: it drains and ends also where this process is killed. It has a
    session of its own: a Ctrl-C in the terminal reaches the parent alone, which stops its children in order.
    environment: variables it has beside those of this process.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "streamlens",
            *arguments,
            "--with-parent",
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | dict(environment or {}),
        )
    child = Child(name, process, log)
    try:
        yield child
    finally:
        await child.stop()

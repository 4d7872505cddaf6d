"""Commands of the program as processes that may be killed, and are there again at once.

They are forked from a process that has imported everything, so that starting one costs milliseconds, not the second
that an interpreter of its own takes: what is killed and started again is the same.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

__all__ = ["Killable"]

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        "agents.loop_worker",
        "agents.monitors_worker",
        "agents.trainer",
        "agents.worker",
        "streamlens.cli.app",
        "streamlens.heartbeat",
        "streamlens.replay_run",
        "streamlens.retrain_watch",
    ]
)


@dataclass
class Killable:
    """``streamlens COMMAND`` in ``folder``, started again after each kill. What it says goes to a file of its name."""

    name: str
    command: tuple[str, ...]
    folder: Path
    kills: int = 0
    process: ForkServerProcess = field(init=False)

    def start(self) -> None:
        given = (self.command, self.folder, self._log, dict(os.environ))
        self.process = _FORKED.Process(target=_command, args=given, name=self.name)
        self.process.start()

    def kill(self) -> None:
        """Where it is still at work, by SIGKILL; then it is started again."""
        if self.process.is_alive():
            self.process.kill()
            self.kills += 1
            self.process.join()
            self.start()

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    @property
    def exit_code(self) -> int | None:
        """None while it is at work."""
        return self.process.exitcode

    @property
    def said(self) -> str:
        return self._log.read_text()[-3_000:] if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"


def _command(command: tuple[str, ...], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("ab") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    from streamlens.cli.app import run

    sys.exit(run(command))

"""One training job in a process of its own: ``python -m agents.training_job``, with its task as JSON on stdin.

It trains and compares (:mod:`agents.job_answer`) and writes what it found to ``result.json`` in the job's folder. It
decides nothing: the trainer does, once, by what stands there. stdin stays open as long as the trainer lives; once it
ends, so does this process.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TextIO

import msgspec

from agents.job_answer import AnswerTask
from agents.training_task import TrainingTask
from streams.durable import replace_durably
from streams.errors import StoreUnavailable, StreamLensError

__all__ = ["RESULT", "main"]

RESULT = "result.json"
_LOCK = "job.lock"


def main() -> None:
    """Read the task, do it, leave the result. Exit code 2: no use to try again; its message is the last line said."""
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=TrainingTask)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(task.niceness)
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a process of the try before may still be ending
        try:
            outcome = AnswerTask(task, partial(_say, sys.stdout)).outcome()
        except StoreUnavailable:
            raise
        except StreamLensError as error:
            _say(sys.stderr, str(error))
            os._exit(2)
        replace_durably(folder / RESULT, msgspec.json.encode(outcome))


def _say(where: TextIO, what: str) -> None:
    where.write(" ".join(what.split()) + "\n")
    where.flush()


def _end_with_parent() -> None:
    with suppress(OSError):
        while os.read(sys.stdin.fileno(), 4_096):
            pass
    os._exit(1)


if __name__ == "__main__":
    main()

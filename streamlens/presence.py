"""Who is at work on a run: a lock file per role in the run's folder, freed by the system however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["announced", "holder"]


@contextmanager
def announced(folder: Path, role: str) -> Iterator[None]:
    """Let :func:`holder` find this process in ``role``, unless another one is there already.

    It forbids nothing: who may be a worker is for the bus to say, which knows its groups.
    """
    with _path(folder, role).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def holder(folder: Path, role: str) -> int | None:
    """The process at work in ``role``, None if there is none."""
    try:
        file = _path(folder, role).open()
    except FileNotFoundError:
        return None
    with file:
        text = file.read()
        if not text.isdigit():
            return None
        # Only a file that names somebody is tried: the try holds the lock for a moment, and a starter must not meet it.
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(text)
    return None


def _path(folder: Path, role: str) -> Path:
    return folder / f"{role}.lock"

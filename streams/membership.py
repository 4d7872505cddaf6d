"""One live member per group on the embedded bus: an OS file lock, which a killed process frees at once.

A process that is stopped (SIGSTOP) keeps it. POSIX only: ``flock`` is what gives the guarantee.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from streams.errors import BusUnavailable, GroupBusy

__all__ = ["FileLease", "MemoryLease", "group_busy"]


def group_busy(group: str, holder: str) -> GroupBusy:
    """The error for a second member: who holds the group, and what to do."""
    return GroupBusy(
        f"group {group!r} already has its one member on this embedded bus ({holder}); stop it first, "
        "or use kafka:// for several workers in one group"
    )


class FileLease:
    """Membership of ``group``, held from construction to :meth:`release`, in the folder beside the log."""

    def __init__(self, folder: Path, group: str) -> None:
        path = folder / f"{quote(group, safe='')}.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BusUnavailable(
                f"group lock {path}: cannot be opened ({error}); check that it can be written"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise group_busy(group, f"process {holder}" if holder else "another process") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Leave the group. The file stays: to remove it would let two processes lock two files of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class MemoryLease:
    """Membership of a group of an in-memory bus; ``held`` is the bus's set of groups that have a member."""

    def __init__(self, held: set[str], group: str) -> None:
        if group in held:
            raise group_busy(group, "in this process")
        held.add(group)
        self._held, self._group = held, group

    def release(self) -> None:
        """Leave the group."""
        self._held.discard(self._group)

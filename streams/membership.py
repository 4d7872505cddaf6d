"""One live member per group on the embedded bus: an OS file lock, which a killed process frees at once.

A process that is merely stopped (SIGSTOP) keeps it. POSIX only: ``flock`` is what gives the guarantee.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from streams.errors import BusUnavailable, GroupBusy

__all__ = ["FileLease", "MemoryLease", "instance_id"]

_MAX_NAME_BYTES = 200
_memory_lock = threading.Lock()


def _busy(group: str, holder: str) -> GroupBusy:
    return GroupBusy(
        f"group {group!r} has its one live member already: {holder}. The embedded bus takes one per group: stop that "
        "one first, or move to Kafka (a kafka://HOST:PORT bus) for more workers in a group"
    )


def _file_name(group: str) -> str:
    """A name any file system takes, one for each group."""
    name = quote(group, safe="")
    if len(name) > _MAX_NAME_BYTES:
        name = f"{name[:_MAX_NAME_BYTES]}-{hashlib.sha256(group.encode()).hexdigest()[:16]}"
    return f"{name}.lock"


class FileLease:
    """Membership of ``group`` in a log's lock ``folder``, from construction to :meth:`release`.

    Raises GroupBusy if somebody has it, naming the process, and BusUnavailable if the lock cannot be made.
    """

    def __init__(self, folder: Path, group: str) -> None:
        path = folder / _file_name(group)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BusUnavailable(
                f"group {group!r}: its lock {path} cannot be opened ({error}); check that the folder can be written"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise _busy(group, f"process {holder}" if holder else "another process") from None
        except OSError as error:
            os.close(self._fd)
            raise BusUnavailable(f"group {group!r}: its lock {path} cannot be taken ({error})") from error

    def release(self) -> None:
        """Leave the group. The file stays: were it removed, two processes could each lock a file of that name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def instance_id(folder: Path) -> Iterator[str]:
    """A name for a worker whose state is in ``folder``, its own for the time of the block; the next one gets it again.

    A Kafka group knows its static members by it: whoever starts anew gets back the partitions of the one that ended.
    Containers may have both their paths and their host's name in common, so the folder holds something random, too.
    """
    slot = 0
    while True:
        try:
            lease = FileLease(folder, f"instance-{slot}")
            break
        except GroupBusy:
            slot += 1
    try:
        where = f"{socket.gethostname()}:{folder.resolve()}:{_own_word(folder / f'instance-{slot}.id')}"
        yield f"streamlens-{hashlib.sha256(where.encode()).hexdigest()[:12]}-{slot}"
    finally:
        lease.release()


def _own_word(path: Path) -> str:
    """What the file holds, something random where it is new; who has the lease beside it is alone at it."""
    word = path.read_text() if path.exists() else ""
    if not word:  # or its writer was killed
        word = secrets.token_hex(8)
        path.write_text(word)
    return word


class MemoryLease:
    """Membership of a group of a log in memory; ``held``: the log's groups that have a member."""

    def __init__(self, held: set[str], group: str) -> None:
        with _memory_lock:
            if group in held:
                raise _busy(group, f"this process ({os.getpid()})")
            held.add(group)
        self._held: set[str] | None = held
        self._group = group

    def release(self) -> None:
        """Leave the group."""
        with _memory_lock:
            if self._held is not None:
                self._held.discard(self._group)
                self._held = None

"""A file whose modification time tells when a command last got its work done: what a health check looks at."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["Heartbeat"]

_EVERY_S = 1.0


class Heartbeat:
    """``ROLE.alive`` in ``folder``. One that cannot be written stops nobody: it goes stale, which is its message."""

    def __init__(self, folder: Path, role: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.path = folder / f"{role}.alive"
        self._monotonic = monotonic
        self._next = -1.0

    def beat(self) -> None:
        """Say that work was done just now; at most once a second reaches the disk."""
        now = self._monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()

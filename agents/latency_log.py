"""Latencies since somebody last asked: added to by one thread, taken by another, in bounded memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from streams.records import Int64s

__all__ = ["LatencyLog"]


@dataclass(slots=True)
class LatencyLog:
    """Of the last ``kept`` at least, in milliseconds; older ones go by whole additions.

    >>> log = LatencyLog(kept=3)
    >>> for latencies in ([1, 2], [3], [4, 5]):
    ...     log.add(np.array(latencies))
    >>> log.take().tolist(), log.take().tolist()
    ([3, 4, 5], [])
    """

    kept: int = 100_000
    _parts: deque[Int64s] = field(default_factory=deque)
    _held: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, latencies_ms: Int64s) -> None:
        with self._lock:
            self._parts.append(latencies_ms)
            self._held += len(latencies_ms)
            while self._held > self.kept and len(self._parts) > 1:
                self._held -= len(self._parts.popleft())

    def take(self) -> Int64s:
        """Those since the last call; clears them."""
        with self._lock:
            taken = list(self._parts)
            self._parts.clear()
            self._held = 0
        return np.concatenate(taken) if taken else np.zeros(0, np.int64)

"""What the loop, or an agent after it, has done since it started."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from streams.records import Int64s

__all__ = ["LoopStats"]

_KEPT = 100_000


@dataclass(slots=True)
class LoopStats:
    """Latencies are of the last 100,000 slates, in milliseconds. Added to by the store's thread, read by another."""

    records: int = 0
    slates: int = 0
    transactions: int = 0
    store_errors: int = 0
    waiting_for_store: str = ""
    _latencies: deque[Int64s] = field(default_factory=deque)
    _held: int = 0
    _lock: Lock = field(default_factory=Lock)

    def add(self, n_records: int, latencies_ms: Int64s) -> None:
        """A step: its records, and for each slate the time from publishing its cause to storing what was made."""
        self.transactions += 1
        self.records += n_records
        self.slates += len(latencies_ms)
        with self._lock:
            self._latencies.append(latencies_ms)
            self._held += len(latencies_ms)
            while self._held > _KEPT and len(self._latencies) > 1:
                self._held -= len(self._latencies.popleft())

    def take_latencies(self) -> Int64s:
        """Those since the last call, in milliseconds; clears them."""
        with self._lock:
            taken = list(self._latencies)
            self._latencies.clear()
            self._held = 0
        return np.concatenate(taken) if taken else np.zeros(0, np.int64)

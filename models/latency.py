"""How long answers take: percentiles over the last of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

__all__ = ["Latency", "LatencyWindow"]


@dataclass(frozen=True, slots=True)
class Latency:
    """answers: all so far; hits: those from the cache. p50_ms, p95_ms, p99_ms: over the window, NaN before any."""

    answers: int
    hits: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class LatencyWindow:
    """The last ``size`` durations, in seconds. Thread-safe.

    >>> window = LatencyWindow(size=2)
    >>> for seconds in (9.0, 0.001, 0.003): window.add(seconds, hit=False)
    >>> window.latency().answers, round(window.latency().p50_ms, 3)
    (3, 2.0)
    """

    def __init__(self, size: int = 4_096) -> None:
        self._seconds = np.zeros(size)
        self._answers = self._hits = 0
        self._lock = threading.Lock()

    def add(self, seconds: float, *, hit: bool) -> None:
        with self._lock:
            self._seconds[self._answers % len(self._seconds)] = seconds
            self._answers += 1
            self._hits += hit

    def latency(self) -> Latency:
        with self._lock:
            held = self._seconds[: min(self._answers, len(self._seconds))].copy()
            answers, hits = self._answers, self._hits
        if not answers:
            return Latency(0, 0, *(float("nan"),) * 3)
        return Latency(answers, hits, *(np.percentile(held, (50, 95, 99)) * 1_000).tolist())

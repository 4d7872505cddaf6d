"""How far a replay is, for whoever watches it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streams.clock import Clock

__all__ = ["ProgressMeter", "ReplayProgress"]

_INTERVAL_S = 0.1
_WINDOW_S = 2.0


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """``position`` of ``total`` ratings sent, of which ``n_training`` before the live part.

    ``event_time``: of the last rating sent, seconds since the epoch, None before the first. ``events_per_s``: over
    the last two seconds of wall time. ``shifted_s``: how far the schedule was moved so far.
    """

    position: int
    total: int
    n_training: int
    event_time: int | None
    events_per_s: float
    paused: bool
    shifted_s: float

    @property
    def phase(self) -> str:
        """ "training" or "live"."""
        return "training" if self.position < self.n_training else "live"


class ProgressMeter:
    """Calls ``callback`` at most ten times a second."""

    def __init__(
        self, clock: Clock, n_training: int, total: int, callback: Callable[[ReplayProgress], None] | None
    ) -> None:
        self._clock = clock
        self._n_training = n_training
        self._total = total
        self._callback = callback
        self._next = -1.0
        self._recent: deque[tuple[float, int]] = deque()

    def report(
        self, position: int, event_time: int | None, *, paused: bool, shifted_s: float, final: bool = False
    ) -> None:
        """Say where the replay is, if it is time to or ``final``."""
        now = self._clock.monotonic()
        if self._callback is None or (now < self._next and not final):
            return
        self._next = now + _INTERVAL_S
        self._recent.append((now, position))
        while len(self._recent) > 2 and self._recent[1][0] <= now - _WINDOW_S:
            self._recent.popleft()
        since, before = self._recent[0]
        rate = (position - before) / (now - since) if now > since else 0.0
        self._callback(ReplayProgress(position, self._total, self._n_training, event_time, rate, paused, shifted_s))

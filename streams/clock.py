"""Clocks, injected wherever wall time matters, so that tests decide what time it is.

Event time never comes from here: it follows the events (``streams.ticks``). These clocks serve pacing, latency and
what is stamped on a run.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Wall time, a monotonic time, and waiting on the latter."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait until ``event`` is set (True) or ``seconds`` have passed (False); at least one turn of the loop."""
        ...


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await event.wait()
        except TimeoutError:
            return False
        return True


class ManualClock:
    """A clock that moves when it is told to.

    ``autojump``: whoever waits moves the clock to the end of the wait at once, so that an hour of schedule is over
    in no time; only for a single waiter. Without it a wait ends when :meth:`advance` has passed its end.

    >>> clock = ManualClock(time=1_000.0)
    >>> clock.advance(2.5)
    >>> clock.time(), clock.monotonic()
    (1002.5, 2.5)
    """

    def __init__(self, time: float = 2_000_000_000.0, *, autojump: bool = False) -> None:
        self._epoch = time
        self._now = 0.0
        self._autojump = autojump
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._n_waits = 0

    def time(self) -> float:
        return self._epoch + self._now

    def monotonic(self) -> float:
        return self._now

    @property
    def waiting(self) -> int:
        """How many waits are going on."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move both times; waits that end by then are over (their tasks run at the next turn of the loop)."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if self._autojump:
            await asyncio.sleep(0)
            if event.is_set():
                return True
            self._now += max(seconds, 0.0)
            return False
        timer = asyncio.get_running_loop().create_future()
        self._n_waits += 1
        heapq.heappush(self._sleepers, (self._now + max(seconds, 0.0), self._n_waits, timer))
        setter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({timer, setter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            setter.cancel()
        return event.is_set()

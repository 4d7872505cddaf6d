"""Noticing that the log has grown: at once for this process's appends, by polling for those of others."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from streams.errors import BusError
from streams.log import EmbeddedLog

__all__ = ["Tail"]

_POLL_ACTIVE_S = 0.002
_POLL_IDLE_S = 0.01
_ACTIVE_FOR_S = 0.25
_CHECK_IN_PLACE_S = 1.0


class Tail:
    """What the consumers of a bus wait on. Belongs to the event loop it was made in.

    One timer polls for all who wait, and none runs while nobody does. A poll reads SQLite's change counter, which is
    in shared memory: microseconds.
    """

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._wakes = 0
        self._waiting: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._polled = 0
        self._active_until = 0.0
        self._check_at = 0.0
        log.listen(self._appended)

    def close(self) -> None:
        """Let everybody go who waits."""
        self._log.unlisten(self._appended)
        if self._timer is not None:
            self._timer.cancel()
        self.wake()

    def version(self) -> tuple[int, int]:
        """What :meth:`changed` compares with; take it before reading."""
        return self._log.version(), self._wakes

    def wake(self) -> None:
        """Have everybody who waits look again."""
        self._wakes += 1
        self._resolve(True)

    async def changed(self, seen: tuple[int, int], timeout_s: float) -> bool:
        """Wait until the version is another than ``seen``; False if ``timeout_s`` went by first."""
        if self.version() != seen:
            return True
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.add(waiter)
        timeout = self._loop.call_later(timeout_s, _expire, waiter)
        if self._timer is None and self._log.path is not None:
            self._polled = seen[0]
            self._arm()
        try:
            return await waiter
        finally:
            timeout.cancel()
            self._waiting.discard(waiter)

    def _appended(self) -> None:
        """In the appending thread; whoever was abandoned with its event loop must not stop it."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.wake)

    def _arm(self) -> None:
        active = self._loop.time() < self._active_until
        self._timer = self._loop.call_later(_POLL_ACTIVE_S if active else _POLL_IDLE_S, self._poll)

    def _poll(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        now = self._loop.time()
        try:
            version = self._log.version()
            if now > self._check_at:
                self._log.check_in_place()
                self._check_at = now + _CHECK_IN_PLACE_S
        except BusError as error:
            self._resolve(error)
            return
        if version != self._polled:
            self._polled = version
            self._active_until = now + _ACTIVE_FOR_S
            self._resolve(True)
        else:
            self._arm()

    def _resolve(self, outcome: bool | BusError) -> None:
        for waiter in self._waiting:
            if waiter.done():
                continue
            if isinstance(outcome, BusError):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)
        self._waiting.clear()


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)

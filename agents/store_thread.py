"""Work on a store, on a thread of its own: the event loop stays free, and a store that is away is waited for.

SQLite releases the GIL while it works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import structlog

from streams.errors import StoreUnavailable

__all__ = ["StoreStats", "StoreThread"]

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.0

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)


class StoreStats(Protocol):
    """waiting_for_store: the store's error while it is waited for, else empty. store_errors: how often it was away."""

    store_errors: int
    waiting_for_store: str


class StoreThread:
    """One thread. ``patience_s``: how long to try again while the store is away, before giving up with its error.

    Whether and how often it is away is told to ``stats``, which are its own by default.
    """

    def __init__(self, name: str, *, patience_s: float, stats: StoreStats | None = None) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._patience_s = patience_s
        self.store_errors = 0
        self.waiting_for_store = ""
        self._stats: StoreStats = self if stats is None else stats

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Once."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *args, **kwargs))

    async def patiently(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Again and again while the store is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        delay = _FIRST_DELAY_S
        while True:
            try:
                result = await self.run(call, *args, **kwargs)
                self._stats.waiting_for_store = ""
                return result
            except StoreUnavailable as error:
                self._stats.store_errors += 1
                self._stats.waiting_for_store = str(error)
                if loop.time() + delay > deadline:
                    raise
                log.warning("store unavailable, trying again", error=str(error), delay_s=delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY_S)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()

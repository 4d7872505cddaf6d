"""A worker of any role that is at work while a test looks on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

__all__ = ["at_work"]


class _Worker(Protocol):
    async def run(self, stopping: asyncio.Event) -> None: ...


W = TypeVar("W", bound=_Worker)


@asynccontextmanager
async def at_work(worker: W) -> AsyncIterator[W]:
    """``worker``, which is asked to stop at the end, and waited for."""
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    try:
        yield worker
    finally:
        stopping.set()
        await running

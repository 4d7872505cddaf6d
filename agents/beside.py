"""Running an agent with what goes on beside it, all of it until one is told to stop, or fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from streams.app import BatchedApp

__all__ = ["or_stop", "serve_beside"]


async def serve_beside(
    app: BatchedApp,
    stopping: asyncio.Event,
    beside: Iterable[Coroutine[Any, Any, None]],
    finish: Callable[[], Awaitable[None]],
) -> None:
    """Serve ``app`` until ``stopping`` is set, with ``beside`` going on meanwhile; ``finish`` once all are over.

    Raises what stopped the app, or the first error of what was beside it, which sets ``stopping``.
    """
    tasks = [asyncio.create_task(or_stop(work, stopping)) for work in beside]
    try:
        await app.serve(stopping)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await finish()
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def or_stop(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
    """Do what runs beside the agent; where it fails, the worker stops, for nobody would notice that it is missing."""
    try:
        await work
    except Exception:
        stopping.set()
        raise

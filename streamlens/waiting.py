"""Commands that may be started before the run they are about: they say so in one line, and wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from streams.errors import ConfigError

__all__ = ["NothingYet", "once_there"]

_LOOK_S = 0.25

T = TypeVar("T")


class NothingYet(ConfigError):
    """What a command is about is not there yet. ``until``: what a command that can wait for it says."""

    def __init__(self, message: str, until: str) -> None:
        super().__init__(message)
        self.until = until


async def once_there(look: Callable[[], Awaitable[T]], stopping: asyncio.Event, say: Callable[[str], None]) -> T | None:
    """What ``look`` finds, once it no longer raises NothingYet; None if ``stopping`` is set first.

    say: called with what it waits for, whenever that changes.
    """
    said = ""
    while not stopping.is_set():
        try:
            return await look()
        except NothingYet as reason:
            if reason.until != said:
                said = reason.until
                say(said)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _LOOK_S)
    return None

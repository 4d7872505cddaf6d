"""Ctrl-C, SIGTERM and the end of a parent, for commands that run until told to stop and for those that do not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

__all__ = ["interruptible", "run_until_signal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


def run_until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], *, with_parent: bool = False) -> T:
    """Run ``main(stopping)``; the first SIGINT or SIGTERM sets ``stopping``, a second one interrupts at once.

    with_parent: stdin is a pipe that the parent holds; its end, however the parent came to it, sets ``stopping`` too.
    """

    async def watched() -> T:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop() -> None:
            stopping.set()
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, _interrupt)

        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, stop)
        if with_parent:
            loop.add_reader(sys.stdin.fileno(), _stop_at_end_of_stdin, loop, stopping)
        try:
            return await main(stopping)
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    return asyncio.run(watched())


def _stop_at_end_of_stdin(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1_024):
        loop.remove_reader(sys.stdin.fileno())
        stopping.set()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGTERM raises KeyboardInterrupt as SIGINT does, so that both end a command in the same way."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""Ctrl-C and SIGTERM, for commands that run until told to stop and for those that do not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

__all__ = ["interruptible", "run_until_signal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")


def run_until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(stopping)``; the first SIGINT or SIGTERM sets ``stopping``, a second one interrupts at once."""

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
        try:
            return await main(stopping)
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    return asyncio.run(watched())


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

"""Retrain events one after the other, each handed to a command until that has done its work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from streams.bus import Bus, Consumer
from streams.errors import StreamLensError, UnknownTopic
from streams.events import RETRAIN
from streams.records import TopicPartition
from streams.retrain import RetrainRequested

__all__ = ["EVENT_ID", "RETRY_DELAYS_S", "CommandFailed", "WatchedEvent", "run_command", "watch_retrain"]

EVENT_ID = "STREAMLENS_EVENT_ID"
"""The variable in which a command finds the event's id, to dedupe by."""

RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0)
"""Between the tries of a command that fails."""

_POLL_S = 0.2
"""How long a fetch may keep a watch from noticing that it shall stop."""


class CommandFailed(StreamLensError):
    """The command went on failing: the event waits for the next start."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class WatchedEvent:
    """value: the event as it stands on the topic. fault: why it is none, empty where it is one."""

    tp: TopicPartition
    offset: int
    value: bytes
    event: RetrainRequested | None
    fault: str = ""


async def watch_retrain(
    bus: Bus, stopping: asyncio.Event, *, group: str | None, since: Literal["start", "end"]
) -> AsyncGenerator[WatchedEvent]:
    """The events as they come, until ``stopping`` is set.

    group: it goes on from what it has committed, and an event is done once the next one is asked for; None keeps
    nothing. since: where to begin where nothing is committed. Raises UnknownTopic, and GroupBusy where the group has a
    member.
    """
    if RETRAIN not in await bus.topics():
        raise UnknownTopic(f"topic {RETRAIN!r}: not there yet on {bus.url}; start `streamlens replay` first")
    committed = {} if group is None else await bus.committed(group)
    async with await bus.consumer(RETRAIN, group=group) as consumer:
        if since == "end" and not any(tp.topic == RETRAIN for tp in committed):
            await consumer.seek_to_end(*consumer.assignment)
            await _commit(consumer, group, {tp: consumer.position(tp) for tp in consumer.assignment})
        while not stopping.is_set():
            for batch in await consumer.fetch(timeout_s=_POLL_S):
                for offset, value in zip(batch.offsets.tolist(), batch.values, strict=True):
                    yield _decoded(batch.tp, offset, value)
                    await _commit(consumer, group, {batch.tp: offset + 1})


async def _commit(consumer: Consumer, group: str | None, offsets: dict[TopicPartition, int]) -> None:
    if group is not None:
        await consumer.commit(offsets)


def _decoded(tp: TopicPartition, offset: int, value: bytes) -> WatchedEvent:
    try:
        return WatchedEvent(tp, offset, value, msgspec.json.decode(value, type=RetrainRequested))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return WatchedEvent(tp, offset, value, None, f"no retrain event: {error}")


async def run_command(
    command: str,
    watched: WatchedEvent,
    stopping: asyncio.Event,
    *,
    delays_s: Sequence[float] = RETRY_DELAYS_S,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Run ``command`` (of the shell), with the event on its stdin and its id in :data:`EVENT_ID`, until it ends well.

    False where ``stopping`` was set first; then it is told to end, and waited for. Raises CommandFailed after the last
    try.
    """
    assert watched.event is not None
    event_id = watched.event.id
    for number, delay_s in enumerate([*delays_s, None], 1):
        code = await _run(command, watched.value, event_id, stopping)
        if code is None:
            return False
        if code == 0:
            return True
        if delay_s is None:
            raise CommandFailed(
                f"retrain event {event_id}: the command failed {number} times, the last time with exit code {code}; "
                "mend it and start again, the event waits"
            )
        say(f"retrain event {event_id}: exit code {code}, trying again in {delay_s:g} s")
        waiting = {asyncio.ensure_future(sleep(delay_s)), asyncio.ensure_future(stopping.wait())}
        _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if stopping.is_set():
            return False
    raise AssertionError("unreachable")


async def _run(command: str, value: bytes, event_id: str, stopping: asyncio.Event) -> int | None:
    """The exit code; None where ``stopping`` was set before there was one."""
    process = await asyncio.create_subprocess_shell(
        command,
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, EVENT_ID: event_id},
        start_new_session=True,  # so that Ctrl-C reaches it through here only, and all that it has started
    )
    working = asyncio.ensure_future(process.communicate(value))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return process.returncode
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await working
        return None
    finally:
        stopped.cancel()
        if not working.done():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            working.cancel()

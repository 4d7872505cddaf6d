"""Noticing that the log has grown: whoever appended, soon, and without anything running while nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streams.bus import TopicSpec
from streams.errors import BusError
from streams.log import EmbeddedLog
from streams.records import TopicPartition
from streams.stored_batch import Pending
from streams.tail import Tail

TP = TopicPartition("t", 0)
DEADLINE_S = 20


def append(log: EmbeddedLog) -> None:
    log.append({TP: [Pending.record(b"v", None, 1)]})


def log_in(path: Path | None) -> EmbeddedLog:
    log = EmbeddedLog(path)
    log.create_topics([TopicSpec("t", 1)])
    return log


@pytest.fixture(params=["memory", "file"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedLog]:
    with closing(log_in(tmp_path / "bus.db" if request.param == "file" else None)) as log:
        yield log


@pytest.fixture
async def tail(log: EmbeddedLog) -> AsyncIterator[Tail]:
    with closing(Tail(log)) as tail:
        yield tail


async def waiting(tail: Tail, seen: tuple[int, int]) -> asyncio.Task[bool]:
    task = asyncio.create_task(tail.changed(seen, DEADLINE_S))
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_everybody_who_waits_hears_of_an_append_from_another_thread(log: EmbeddedLog, tail: Tail) -> None:
    seen = tail.version()
    waiters = [await waiting(tail, seen) for _ in range(3)]
    await asyncio.to_thread(append, log)
    async with asyncio.timeout(DEADLINE_S / 2):
        assert await asyncio.gather(*waiters) == [True, True, True]
    assert tail.version() != seen


async def test_what_came_between_looking_and_waiting_is_not_missed(log: EmbeddedLog, tail: Tail) -> None:
    seen = tail.version()
    append(log)
    assert await tail.changed(seen, 0.0)


async def test_a_quiet_log_lets_the_waiter_go_when_its_time_is_up(tail: Tail) -> None:
    assert not await tail.changed(tail.version(), 0.02)


async def test_waking_and_closing_end_every_wait(tail: Tail) -> None:
    for end in (tail.wake, tail.close):
        task = await waiting(tail, tail.version())
        end()
        async with asyncio.timeout(DEADLINE_S / 2):
            assert await task


async def test_a_waiter_that_is_cancelled_leaves_the_others_waiting(log: EmbeddedLog, tail: Tail) -> None:
    gone, stays = [await waiting(tail, tail.version()) for _ in range(2)]
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    append(log)
    async with asyncio.timeout(DEADLINE_S / 2):
        assert await stays


async def test_appends_of_another_connection_are_noticed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    with closing(log_in(path)) as log, closing(EmbeddedLog(path)) as other, closing(Tail(log)) as tail:
        for _ in range(3):
            task = await waiting(tail, tail.version())
            append(other)
            async with asyncio.timeout(DEADLINE_S / 2):
                assert await task


async def test_a_file_replaced_under_who_waits_is_an_error_not_a_silence(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    with closing(log_in(path)) as log, closing(Tail(log)) as tail:
        task = await waiting(tail, tail.version())
        path.rename(tmp_path / "moved.db")
        path.touch()
        with pytest.raises(BusError, match="removed or replaced"):
            await task


def test_a_tail_abandoned_with_its_event_loop_does_not_fail_others_appends() -> None:
    async def abandon(log: EmbeddedLog) -> None:
        Tail(log)

    with closing(log_in(None)) as log:
        asyncio.run(abandon(log))
        append(log)
        assert log.offsets(["t"])[TP].end == 1

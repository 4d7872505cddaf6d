"""What steps leave to be published goes out, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest

from agents.lines_ingest import LinesIngest
from agents.lines_outbox import drain_lines, publish_lines
from agents.lines_store import LinesWriter, OutgoingRow
from agents.loop_stats import LoopStats
from streams.bus import Bus, OffsetRange, TopicInfo, open_bus
from streams.errors import BusError, BusUnavailable, StoreUnavailable
from streams.events import FEEDBACK, RATINGS
from streams.records import TopicPartition
from streams.testing import collect
from streams.topics import run_topics

LOG = TopicInfo(RATINGS, 1, None, "log")


class Left:
    """Steps whose predecessor has left a record; the store is away at the first ``refusals`` assignments."""

    def __init__(self, refusals: int) -> None:
        self.writer = cast(LinesWriter, self)
        self.stats = LoopStats()
        self._refusals = refusals
        self._held = False
        self._rows = [OutgoingRow(1, 0, FEEDBACK, 1, b"7", b"told")]

    def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        self._refusals -= 1
        if self._refusals >= 0:
            raise StoreUnavailable("locked")
        self._held = True
        return dict.fromkeys(ranges, 0)

    def outgoing(self) -> list[OutgoingRow]:
        return self._rows if self._held else []

    def sent(self, rows: Iterable[OutgoingRow]) -> None:
        self._rows = []

    def release(self, partitions: Iterable[int]) -> None: ...
    def close(self) -> None: ...


class Killed(Exception):
    """As a process that is gone."""


@pytest.mark.streamlens_bus("memory")
async def test_what_the_bus_has_and_nobody_forgot_is_published_again(
    streamlens_bus_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same bytes, so the same id: whoever reads drops the second one."""

    def killed(rows: Iterable[OutgoingRow]) -> None:
        raise Killed

    steps = Left(0)
    ingest: LinesIngest[Any] = LinesIngest("test", steps)
    async with asyncio.timeout(30), open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(1))
        await ingest.assign(LOG, {TopicPartition(RATINGS, 0): OffsetRange(0, 0)})
        with monkeypatch.context() as patched:
            patched.setattr(steps, "sent", killed)
            with pytest.raises(Killed):
                await drain_lines(bus, ingest)
        assert await drain_lines(bus, ingest) == 1
        assert await drain_lines(bus, ingest) == 0
        assert await collect(bus, FEEDBACK, 2) == [b"told", b"told"]
    ingest.close()


@pytest.mark.streamlens_bus("memory")
async def test_what_the_bus_refuses_is_not_forgotten(streamlens_bus_url: str) -> None:
    ingest: LinesIngest[Any] = LinesIngest("test", Left(0))
    async with asyncio.timeout(30), open_bus(streamlens_bus_url) as bus:
        await ingest.assign(LOG, {TopicPartition(RATINGS, 0): OffsetRange(0, 0)})
        with pytest.raises(BusError):  # there is no such topic
            await drain_lines(bus, ingest)
        await bus.create_topics(*run_topics(1))
        assert await drain_lines(bus, ingest) == 1
        assert await collect(bus, FEEDBACK, 1) == [b"told"]
    ingest.close()


class Refusing:
    """A bus, and its producer, that takes batches and then cannot write them."""

    def producer(self, **_: object) -> Refusing:
        return self

    async def __aenter__(self) -> Refusing:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def send_batch(self, *_: object, **__: object) -> asyncio.Future[Any]:
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_exception(BusUnavailable("disk full"))
        return acknowledged


async def test_what_was_taken_and_not_acknowledged_is_not_forgotten() -> None:
    ingest: LinesIngest[Any] = LinesIngest("test", Left(0))
    await ingest.assign(LOG, {TopicPartition(RATINGS, 0): OffsetRange(0, 0)})
    with pytest.raises(BusUnavailable):
        await drain_lines(cast(Bus, Refusing()), ingest)
    assert [row.lines for row in await ingest.outgoing()] == [b"told"]
    ingest.close()


@pytest.mark.streamlens_bus("memory")
@pytest.mark.parametrize("refusals", [0, 2])
async def test_what_a_predecessor_left_is_published_before_any_step_of_ones_own(
    refusals: int, streamlens_bus_url: str
) -> None:
    ingest: LinesIngest[Any] = LinesIngest("test", Left(refusals))
    async with asyncio.timeout(30), open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(1))
        publishing = asyncio.create_task(publish_lines(bus, ingest))
        await asyncio.sleep(0)
        await ingest.assign(LOG, {TopicPartition(RATINGS, 0): OffsetRange(0, 0)})
        assert await collect(bus, FEEDBACK, 1) == [b"told"]
        publishing.cancel()
        await asyncio.wait([publishing])
    ingest.close()

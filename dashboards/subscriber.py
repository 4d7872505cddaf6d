"""The one subscriber of a process: a thread that reads all topics that the pages show, whatever happens to the bus.

It reads without a group from the last records on, keeps what :mod:`dashboards.live_records` keeps, and goes on by
itself where the bus was away. Pages read from memory, publish through :meth:`Subscriber.submit`, and never wait for the
bus otherwise.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from dashboards.live_records import KEPT, WATCHED, LiveRecords
from streams.bus import Bus, Consumer, TopicInfo, open_bus
from streams.errors import BusUnavailable, ConfigError, OffsetOutOfRange, StreamLensError
from streams.events import RATINGS
from streams.records import TopicPartition

__all__ = ["Connection", "Subscriber"]

_FETCH_S = 0.25
_LOOK_S = 0.5
"""Between two looks at the ends of ``ratings``."""
_TOPICS_S = 2.0
"""Between two looks at which topics there are."""
_SUBMIT_S = 10.0
_ANSWER_S = 4.0
"""Longer than any bus takes that is there; a client of Kafka goes on asking for most of a minute."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """How the subscriber stands with the bus. since: wall time at which this began; problem: why it is not there."""

    connected: bool
    since: float
    problem: str = ""


class Subscriber:
    """Reads from :meth:`start` to :meth:`close`. ``retry_s``: the shortest and the longest wait before another try."""

    def __init__(
        self,
        bus_url: str,
        *,
        wall_s: Callable[[], float] = time.time,
        retry_s: tuple[float, float] = (0.2, 5.0),
    ) -> None:
        self.bus_url = bus_url
        self.records = LiveRecords()
        self._wall_s = wall_s
        self._retry_s = retry_s
        self._connection = Connection(False, wall_s(), "connecting")
        self._ends: dict[int, int] = {}
        self._ends_at = 0.0
        self._heard_at = 0.0
        self._positions: dict[TopicPartition, int] = {}
        self._log_ids: dict[str, str] = {}
        self._bus: Bus | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="pages-subscriber", daemon=True)

    def start(self) -> Subscriber:
        self._thread.start()
        return self

    def close(self) -> None:
        """End the thread and let go of the bus."""
        self._closed = True
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(stopping.set)
        if self._thread.is_alive():
            self._thread.join(_SUBMIT_S)

    # What pages read

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def ends(self) -> dict[int, int]:
        """High-water mark of each partition of ``ratings``, as last seen at :attr:`ends_at`."""
        return dict(self._ends)

    @property
    def ends_at(self) -> float:
        """Wall time; 0 before the first look."""
        return self._ends_at

    @property
    def heard_at(self) -> float:
        """Wall time at which the bus answered last; 0 before it ever did. While connected it does twice a second."""
        return self._heard_at

    def submit(self, work: Callable[[Bus], Awaitable[T]]) -> T:
        """What ``work`` returns, done on the subscriber's bus; for any other thread.

        Raises BusUnavailable where the bus is away or does not answer in time, and what ``work`` raises.
        """
        loop, bus = self._loop, self._bus
        if loop is None or bus is None:
            raise BusUnavailable(f"bus {self.bus_url}: not connected ({self._connection.problem}); try again")

        async def do() -> T:
            return await asyncio.wait_for(work(bus), _SUBMIT_S)

        try:
            return asyncio.run_coroutine_threadsafe(do(), loop).result(_SUBMIT_S + 1)
        except TimeoutError:
            raise BusUnavailable(f"bus {self.bus_url}: no answer within {_SUBMIT_S:g} s; try again") from None

    # The thread

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        shortest, longest = self._retry_s
        wait_s = shortest
        while not (self._closed or self._stopping.is_set()):
            try:
                self._check_there()
                async with open_bus(self.bus_url) as bus:
                    await self._follow(bus, self._stopping)
                    wait_s = shortest
            except StreamLensError as error:
                wait_s = shortest if self._connection.connected else min(2 * wait_s, longest)
                self._lost(str(error))
            except Exception as error:  # a thread that ends would leave pages that never move again
                log.exception("the pages' subscriber failed, trying again")
                self._lost(f"{type(error).__name__}: {error}")
                wait_s = longest
            finally:
                self._bus = None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)

    def _check_there(self) -> None:
        """A log that does not exist yet is not made by looking."""
        scheme, _, path = self.bus_url.partition(":///")
        if scheme == "sqlite" and not Path(path).exists():
            raise BusUnavailable(f"nothing is at {self.bus_url} yet")

    def _lost(self, problem: str) -> None:
        if self._connection.connected or self._connection.problem != problem:
            self._connection = Connection(False, self._wall_s(), problem)

    async def _follow(self, bus: Bus, stopping: asyncio.Event) -> None:
        """Read until ``stopping`` is set; raises what the bus raises."""
        while not stopping.is_set():
            topics = await self._topics(bus)
            self._bus = bus
            self._check_logs(topics)
            watched = [name for name in WATCHED if name in topics]
            if RATINGS in topics:
                await self._look(bus)
            if not watched:
                raise ConfigError(f"bus {self.bus_url}: no topics yet; they come with the replay")
            async with await bus.consumer(*watched) as consumer:
                await self._seek(bus, consumer)
                if not self._connection.connected:
                    self._connection = Connection(True, self._wall_s())
                await self._read(bus, consumer, topics, stopping)

    def _check_logs(self, topics: dict[str, TopicInfo]) -> None:
        """A log that was replaced has other records at the old offsets: what was kept of it is forgotten."""
        ids = {name: info.log_id for name, info in topics.items()}
        if any(name in ids and ids[name] != log_id for name, log_id in self._log_ids.items()):
            self.records = LiveRecords()
            self._positions.clear()
        self._log_ids |= ids  # also of topics that a new log does not have yet

    async def _seek(self, bus: Bus, consumer: Consumer) -> None:
        for topic in sorted({tp.topic for tp in consumer.assignment}):
            for tp, held in (await bus.offsets(topic)).items():
                newest = max(held.start, held.end - KEPT[topic])
                consumer.seek(tp, max(newest, min(self._positions.get(tp, newest), held.end)))

    async def _read(self, bus: Bus, consumer: Consumer, topics: dict[str, TopicInfo], stopping: asyncio.Event) -> None:
        """Until ``stopping`` is set, or there are other topics."""
        clock = asyncio.get_running_loop().time
        look_at = topics_at = clock() + _TOPICS_S
        while not stopping.is_set():
            try:
                batches = await consumer.fetch(timeout_s=_FETCH_S)
            except OffsetOutOfRange:  # retention went past it: as at the start
                self._positions.clear()
                return
            self.records.take(batches)
            for batch in batches:
                self._positions[batch.tp] = batch.next_offset
            now = clock()
            if now >= look_at and RATINGS in topics:
                await self._look(bus)
                look_at = now + _LOOK_S
            if now >= topics_at:
                topics_at = now + _TOPICS_S
                if await self._topics(bus) != topics:
                    return

    async def _topics(self, bus: Bus) -> dict[str, TopicInfo]:
        there = await self._answer(bus.topics())
        return {name: info for name, info in there.items() if name in (*WATCHED, RATINGS)}

    async def _look(self, bus: Bus) -> None:
        held = await self._answer(bus.offsets(RATINGS))
        self._ends = {tp.partition: one.end for tp, one in held.items()}
        self._ends_at = self._heard_at

    async def _answer(self, asked: Awaitable[T]) -> T:
        """Raises BusUnavailable where it does not come in time; letting go of such a bus takes a while, too."""
        try:
            answer = await asyncio.wait_for(asked, _ANSWER_S)
        except TimeoutError:
            problem = f"bus {self.bus_url}: no answer within {_ANSWER_S:g} s"
            self._lost(problem)
            raise BusUnavailable(problem) from None
        self._heard_at = self._wall_s()
        return answer

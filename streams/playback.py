"""Chunks sent when they are due: the loop that holds a schedule against the clock, and takes requests in between."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import numpy as np

from streams.chunks import Chunk
from streams.clock import Clock
from streams.events import Tick
from streams.pacing import Pacer, Schedule
from streams.publisher import RatingsPublisher

__all__ = ["HEARTBEAT_S", "Playback"]

HEARTBEAT_S = 0.25
"""Wall time between heartbeats, which tell event time while no day ends."""
_SHORTEST_WAIT_S = 0.004
"""What falls due within it is sent together: a wake-up per rating would cost a core at 10 k events/s."""
_LONGEST_WAIT_S = 1.0
_SLICE_PER_PARTITION = 8_000


class Playback:
    """Plays chunks in order, as fast as possible until :meth:`go_live`, then at a pace.

    position: the ordinal of the last rating sent; event_time: when it arrived, None before the first.
    """

    def __init__(self, clock: Clock, live_pace: float, report: Callable[[], None]) -> None:
        self._clock = clock
        self.live_pace = live_pace
        self._report = report
        self._live = False
        self._wake = asyncio.Event()
        self._reached = 0.0
        self._last_tick = -1
        self._next_heartbeat = -math.inf
        self.pacer = Pacer(clock, math.inf)
        self.position = 0
        self.event_time: int | None = None
        self.stopped = False

    def start_at(self, position: int, event_time: int | None) -> None:
        """Where an earlier replay left off."""
        self.position = position
        self.event_time = event_time

    def stop(self) -> None:
        self.stopped = True
        self._wake.set()

    def pause(self) -> None:
        self.pacer.pause(self._reached)
        self._wake.set()

    def resume(self) -> None:
        self.pacer.resume()
        self._wake.set()

    def set_live_pace(self, pace: float) -> None:
        """Of the live part, now or once it begins; ``math.inf`` for as fast as possible."""
        self.live_pace = pace
        if self._live:
            self.pacer.set_pace(pace, self._reached)
        self._wake.set()

    def go_live(self) -> None:
        """What is played from here on has a schedule that begins now."""
        paused = self.pacer.paused
        self.pacer = Pacer(self._clock, self.live_pace)
        self._live = True
        self._reached = 0.0
        if paused:
            self.pacer.pause(0.0)

    async def play(self, publisher: RatingsPublisher, chunk: Chunk, schedule: Schedule) -> None:
        """Send all of ``chunk``, each part when it is due; returns early when stopped."""
        n, places = len(chunk), chunk.ticks.position
        most = _SLICE_PER_PARTITION * publisher.partitions
        sent = ticked = 0
        while sent < n and not self.stopped:
            self._wake.clear()
            self.pacer.limit_lag(schedule.next_due(sent, ticked))
            now = self.pacer.now()
            n_due, k_due = (sent, ticked) if self.pacer.paused else schedule.count_due(now)
            n_due = min(n_due, sent + most)
            k_due = min(k_due, int(np.searchsorted(places, n_due, "right")))
            if n_due > sent or k_due > ticked:
                await publisher.publish(chunk, sent, n_due, range(ticked, k_due))
                self._note_sent(chunk, schedule, n_due, k_due)
                sent, ticked = n_due, k_due
            self._report()
            if sent < n:
                await self._beat(publisher, chunk, schedule.event_time(now), sent, ticked)
                await self._wait(schedule.next_due(sent, ticked))

    def _note_sent(self, chunk: Chunk, schedule: Schedule, sent: int, ticked: int) -> None:
        if ticked:
            self._last_tick = int(chunk.ticks.event_time[ticked - 1])
        if sent:
            self._reached = float(schedule.due[sent - 1])
            self.event_time = int(chunk.ratings.arrives[sent - 1])
            self.position = chunk.first_ordinal - 1 + sent

    async def _beat(self, publisher: RatingsPublisher, chunk: Chunk, event_time: int, sent: int, ticked: int) -> None:
        """A heartbeat if it is time for one and event time has moved; always before the next rating and boundary."""
        at = self._clock.monotonic()
        if not self._live or math.isinf(self.pacer.pace) or self.pacer.paused or at < self._next_heartbeat:
            return
        self._next_heartbeat = at + HEARTBEAT_S
        event_time = min(event_time, int(chunk.ratings.arrives[sent]))
        if ticked < len(chunk.ticks.event_time):
            event_time = min(event_time, int(chunk.ticks.event_time[ticked]) - 1)
        if event_time > self._last_tick:
            self._last_tick = event_time
            await publisher.tick(Tick(event_time, publisher.source, self.position, heartbeat=True))

    async def _wait(self, next_due: float) -> None:
        """Until something is due, or somebody asks for something."""
        if math.isinf(self.pacer.pace) and not self.pacer.paused:
            await asyncio.sleep(0)  # requests and signals get their turn
            return
        seconds = min(self.pacer.wait_s(next_due), _LONGEST_WAIT_S)
        if self._live and not self.pacer.paused:
            seconds = min(seconds, self._next_heartbeat - self._clock.monotonic())
        await self._clock.wait(self._wake, max(seconds, _SHORTEST_WAIT_S))

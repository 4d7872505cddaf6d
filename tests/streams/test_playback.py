import math
from dataclasses import replace

import numpy as np
import pytest

from streams.chunks import Chunk, chunk_of
from streams.clock import ManualClock
from streams.dataset import Ratings
from streams.events import DAY_S, Tick
from streams.pacing import schedule
from streams.playback import Playback


class Notes:
    """What a publisher would have been given: (ratings sent, ticks sent) and heartbeats."""

    source = "run"
    partitions = 1

    def __init__(self) -> None:
        self.ratings: list[int] = []
        self.beats: list[Tick] = []

    async def publish(self, chunk: Chunk, start: int, stop: int, ticks: range) -> None:
        self.ratings += range(start, stop)

    async def tick(self, tick: Tick) -> None:
        self.beats.append(tick)


def chunk(n: int) -> Chunk:
    ids = np.arange(n)
    return chunk_of(Ratings(ids, ids, np.full(n, 3.0), 12_000 * DAY_S + ids * 10), 1, None, 1)


async def play(playback: Playback, n: int = 100) -> Notes:
    notes = Notes()
    records = chunk(n)
    gaps = np.full(n, 10.0)
    plan = schedule(records.ratings.timestamp, gaps, records.ticks, previous=None, previous_due=0.0)
    await playback.play(notes, records, plan)  # type: ignore[arg-type]
    return notes


async def test_a_pause_asked_for_in_the_training_part_holds_when_the_live_part_begins() -> None:
    playback = Playback(ManualClock(), 1.0, lambda: None)
    playback.pause()
    playback.go_live()
    assert playback.pacer.paused
    playback.resume()
    assert not playback.pacer.paused


async def test_a_speed_asked_for_in_the_training_part_is_that_of_the_live_part() -> None:
    playback = Playback(ManualClock(), 1.0, lambda: None)
    playback.set_live_pace(50.0)
    assert math.isinf(playback.pacer.pace)
    playback.go_live()
    assert playback.pacer.pace == 50.0


async def test_training_takes_no_time_and_has_no_heartbeats() -> None:
    clock = ManualClock(autojump=True)
    notes = await play(Playback(clock, 1.0, lambda: None))
    assert notes.ratings == list(range(100))
    assert (clock.monotonic(), notes.beats) == (0.0, [])


async def test_the_live_part_beats_four_times_a_second() -> None:
    clock = ManualClock(autojump=True)
    playback = Playback(clock, 100.0, lambda: None)
    playback.go_live()
    notes = await play(playback)
    assert notes.ratings == list(range(100))
    assert clock.monotonic() == pytest.approx(10.0, abs=0.02)
    assert len(notes.beats) == pytest.approx(39, abs=2)
    assert all(beat.heartbeat and beat.event_id is not None for beat in notes.beats)


async def test_a_stopped_playback_sends_nothing_more() -> None:
    playback = Playback(ManualClock(), 1.0, lambda: None)
    playback.stop()
    assert (await play(playback)).ratings == []


async def test_a_heartbeat_never_takes_the_place_of_a_boundary_that_is_about_to_be_due() -> None:
    """A replayer killed then would believe, from its tail, that the boundary is on the log."""
    midnight = 12_001 * DAY_S
    ids = np.arange(2)
    records = chunk_of(Ratings(ids, ids, np.full(2, 3.0), np.array([midnight - 100, midnight + 300])), 1, None, 1)
    plan = schedule(records.ratings.timestamp, np.array([0.0, 1.0]), records.ticks, previous=None, previous_due=0.0)
    assert (plan.event_time(0.25), plan.tick_due[1]) == (midnight, 0.25)
    plan = replace(plan, tick_due=np.array([0.0, np.nextafter(0.25, 1.0)]))  # as rounding may have it
    playback = Playback(ManualClock(autojump=True), 1.0, lambda: None)
    playback.go_live()
    notes = Notes()
    await playback.play(notes, records, plan)  # type: ignore[arg-type]
    assert [beat.event_time - midnight for beat in notes.beats] == [-100, -1, 100, 200]

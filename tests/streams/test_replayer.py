import asyncio
import json
import math
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batch import decode_ratings
from streams.bus import Bus, open_bus
from streams.clock import Clock, ManualClock, SystemClock
from streams.control import ask
from streams.dataset import Movie, Ratings
from streams.errors import BusError, BusUnavailable, ConfigError, DataError, PartitionMismatch
from streams.events import CONTROL, DAY_S, DEADLETTER, RATINGS, Control, Rating
from streams.murmur2 import partition_for
from streams.replayer import Replayer, ReplayOptions, ReplayProgress, ReplaySummary

DAY_0 = 12_000 * DAY_S
AT_ONCE = ReplayOptions(week=1, speed=math.inf)
RUN = "0123456789ab"


@dataclass
class MemoryDataset:
    """Ratings held in memory, in the order given."""

    rows: list[tuple[int, int, float, int]]
    name: str = "memory"
    fingerprint: str = "f"
    chunk_size: int = 100_000
    ratings: Ratings = field(init=False)

    def __post_init__(self) -> None:
        columns = np.array(self.rows, np.float64).reshape(-1, 4)
        user, movie, stamp = (columns[:, i].astype(np.int64) for i in (0, 1, 3))
        self.ratings = Ratings(user, movie, columns[:, 2], stamp)

    @property
    def n_ratings(self) -> int:
        return len(self.ratings)

    @property
    def first_timestamp(self) -> int:
        return self.timestamp_at(0)

    @property
    def last_timestamp(self) -> int:
        return self.timestamp_at(-1)

    def timestamp_at(self, position: int) -> int:
        return int(self.ratings.timestamp[position])

    def position_of(self, timestamp: int) -> int:
        return int(np.searchsorted(self.ratings.timestamp, timestamp))

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        size = min(size, self.chunk_size)
        for begin in range(start, self.n_ratings, size):
            yield self.ratings.slice(begin, begin + size)

    def movies(self) -> dict[int, Movie]:
        return {}


def random_dataset(n: int, days: float, seed: int = 0) -> MemoryDataset:
    rng = np.random.default_rng(seed)
    times = DAY_0 + np.sort(rng.integers(0, max(int(days * DAY_S), 1), n))
    rows = zip(times.tolist(), rng.integers(1, 40, n).tolist(), rng.integers(1, 99, n).tolist(), strict=True)
    return MemoryDataset([(user, movie, 0.5 + (user + movie) % 10 / 2, at) for at, user, movie in sorted(rows)])


class WatchedBus:
    """A bus whose producers are observed record by record, and can be made to die after ``die_after`` of them."""

    def __init__(self, bus: Bus, clock: Clock, die_after: int | None = None, producer: Any = None) -> None:
        self._bus = bus
        self._producer = producer or WatchedProducer
        self.clock = clock
        self.left = math.inf if die_after is None else die_after
        self.sent: list[tuple[float, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    @asynccontextmanager
    async def producer(self) -> Any:
        async with self._bus.producer() as inner:
            yield self._producer(self, inner)


class WatchedProducer:
    def __init__(self, bus: WatchedBus, inner: Any) -> None:
        self.bus, self.inner = bus, inner

    async def send_batch(self, topic: str, partition: int, lines: bytes, *, count: int, keys: bytes) -> Any:
        for value, key in zip(lines.split(b"\n"), keys.split(b"\n"), strict=True):
            if self.bus.left <= 0:
                raise BusUnavailable("the log died, as planned")
            self.bus.left -= 1
            self.bus.sent.append((self.bus.clock.monotonic(), json.loads(value)))
            sent = await self.inner.send_batch(topic, partition, value, count=1, keys=key)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


async def replay(
    bus: Any,
    dataset: MemoryDataset,
    options: ReplayOptions = AT_ONCE,
    *,
    clock: Clock | None = None,
    run_id: str = RUN,
    append: bool = False,
) -> ReplaySummary:
    clock = clock or ManualClock(autojump=True)
    return await Replayer(dataset, bus, options, run_id=run_id, clock=clock, append=append).replay()


async def log_of(bus: Bus, topic: str = RATINGS, *, heartbeats: bool = True) -> list[list[bytes]]:
    """Each partition's values."""
    ranges = await bus.offsets(topic)
    values: list[list[bytes]] = [[] for _ in ranges]
    async with await bus.consumer(topic) as consumer:
        while any(consumer.position(tp) < end for tp, (_, end) in ranges.items()):
            for batch in await consumer.fetch():
                values[batch.partition] += batch.values
    return [[v for v in part if heartbeats or b'"heartbeat":true' not in v] for part in values]


async def replayed(dataset: MemoryDataset, options: ReplayOptions = AT_ONCE) -> list[list[bytes]]:
    async with open_bus("memory://") as bus:
        await replay(bus, dataset, options)
        return await log_of(bus, heartbeats=False)


def ratings_in(log: list[list[bytes]]) -> list[dict[str, Any]]:
    return sorted((r for part in log for v in part if "user_id" in (r := json.loads(v))), key=lambda r: r["event_id"])


def ticks_in(values: list[bytes]) -> list[dict[str, Any]]:
    return [r for v in values if (r := json.loads(v)).get("type") == "tick"]


async def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.001)


# What is published


async def test_every_rating_once_in_the_total_order_with_its_ordinal() -> None:
    dataset = random_dataset(2_000, days=30)
    log = await replayed(dataset)
    records = ratings_in(log)
    assert [r["event_id"] for r in records] == list(range(1, 2_001))
    assert {r["source"] for r in records} == {RUN}
    assert [(r["user_id"], r["movie_id"], r["rating"], r["timestamp"]) for r in records] == dataset.rows
    assert all(
        [r["event_id"] for r in ratings_in([part])] == [r["event_id"] for r in map(json.loads, part) if "user_id" in r]
        for part in log
    )


async def test_wire_format_and_keys_are_those_of_the_schema() -> None:
    async with open_bus("memory://") as bus:
        await replay(bus, MemoryDataset([(12, 34, 4.5, DAY_0 + 5)]))
        async with await bus.consumer(RATINGS) as consumer:
            batches = await consumer.fetch()
    partition = partition_for(b"12", 4)
    by_partition = {b.partition: b for b in batches}
    assert by_partition[partition].values == [
        b'{"type":"tick","event_time":1036800000,"source":"0123456789ab","event_id":0}',
        msgspec.json.encode(Rating(12, 34, 4.5, DAY_0 + 5, RUN, 1)),
        b'{"type":"tick","event_time":1036886400,"source":"0123456789ab","event_id":1,"end_of_run":true}',
    ]
    assert [k or None for k in by_partition[partition].keys] == [None, b"12", None]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6 * DAY_S), min_size=1, max_size=40),
    st.integers(1, 8),
    st.sampled_from([math.inf, 86_400.0, 1e6]),
)
def test_ticks_and_ratings_of_any_stream(offsets: list[int], partitions: int, speed: float) -> None:
    rows = sorted((DAY_0 + at, i % 7, i) for i, at in enumerate(offsets))
    dataset = MemoryDataset([(user, movie, 3.0, at) for at, user, movie in rows])

    async def run() -> list[list[bytes]]:
        async with open_bus("memory://") as bus:
            await replay(bus, dataset, ReplayOptions(week=1, speed=speed, partitions=partitions))
            return await log_of(bus)

    log = asyncio.run(run())
    assert len(log) == partitions
    days = sorted({at // DAY_S * DAY_S for at, _, _ in rows})
    for partition, values in enumerate(log):
        closed = clock = last_id = -1
        for record in map(json.loads, values):
            if record.get("type") == "tick":
                assert record["event_time"] > clock
                clock = record["event_time"]
                closed = closed if record.get("heartbeat") else clock
                assert record["event_id"] == sum(at < clock for at, _, _ in rows) or record.get("heartbeat")
            else:
                assert max(closed, clock) <= record["timestamp"] < closed + DAY_S
                assert record["event_id"] > last_id
                assert partition_for(str(record["user_id"]).encode(), partitions) == partition
                last_id = record["event_id"]
        boundaries = [t["event_time"] for t in ticks_in(values) if not t.get("heartbeat")]
        assert boundaries == [*days, days[-1] + DAY_S]
        assert [t.get("end_of_run", False) for t in ticks_in(values)][-1]
    assert len(ratings_in(log)) == len(rows)


async def test_what_is_published_is_valid_to_its_consumer() -> None:
    async with open_bus("memory://") as bus:
        await replay(bus, random_dataset(500, days=5), clock=SystemClock())
        async with await bus.consumer(RATINGS) as consumer:
            decoded = [decode_ratings(batch) for batch in await consumer.fetch()]
    assert sum(len(d) for d in decoded) == 500
    assert not any(d.invalid for d in decoded)
    assert all(d.end_of_run for d in decoded)


async def test_equal_timestamps_keep_their_order() -> None:
    rows = [(user, movie, 1.0, DAY_0) for user in range(1, 30) for movie in range(1, 30)]
    log = await replayed(MemoryDataset(rows), ReplayOptions(week=1, speed=math.inf, partitions=1))
    assert [(r["user_id"], r["movie_id"]) for r in map(json.loads, log[0]) if "user_id" in r] == [r[:2] for r in rows]


async def test_two_runs_are_identical_byte_for_byte() -> None:
    dataset = random_dataset(3_000, days=60)
    assert await replayed(dataset) == await replayed(dataset)


async def test_speed_and_arrival_change_nothing_that_is_published() -> None:
    dataset = random_dataset(300, days=20)
    expected = await replayed(dataset)
    for options in (
        ReplayOptions(week=2, speed=86_400),
        ReplayOptions(week=1, rate=50.0),
        ReplayOptions(week=1, rate=50.0, arrival="steady"),
        ReplayOptions(week=1, rate=50.0, arrival="poisson"),
        ReplayOptions(week=1, rate=50.0, arrival="bursty", seed=3),
    ):
        assert await replayed(dataset, options) == expected


@pytest.mark.parametrize("size", [1, 7, 299])
async def test_chunk_size_changes_nothing_that_is_published(size: int) -> None:
    dataset = random_dataset(300, days=20)
    assert await replayed(MemoryDataset(dataset.rows, chunk_size=size)) == await replayed(dataset)


async def test_no_send_is_larger_than_what_one_fetch_takes() -> None:
    counts: list[int] = []

    class CountingProducer(WatchedProducer):
        async def send_batch(self, topic: str, partition: int, lines: bytes, *, count: int, keys: bytes) -> Any:
            counts.append(count)
            return await self.inner.send_batch(topic, partition, lines, count=count, keys=keys)

    dataset = MemoryDataset([(1, movie, 3.0, DAY_0 + movie * 40) for movie in range(45_000)])
    async with open_bus("memory://") as inner:
        bus = WatchedBus(inner, ManualClock(), producer=CountingProducer)
        await replay(bus, dataset)
        log = await log_of(inner)
    assert max(counts) == 10_000
    assert [r["event_id"] for r in ratings_in(log)] == list(range(1, 45_001))
    positions = [r.get("event_time", r.get("timestamp")) for r in map(json.loads, log[partition_for(b"1", 4)])]
    assert positions == sorted(positions)


async def test_heartbeats_rise_and_say_nothing_twice_when_event_time_is_slow() -> None:
    rows = [(1, 1, 3.0, DAY_0 + 1), (1, 2, 3.0, DAY_0 + 6), (1, 3, 3.0, DAY_0 + 6)]
    async with open_bus("memory://") as bus:
        await replay(bus, MemoryDataset(rows), ReplayOptions(week=1, speed=1.0, partitions=1))
        beats = [t["event_time"] - DAY_0 for t in ticks_in((await log_of(bus))[0]) if t.get("heartbeat")]
    assert beats == [1, 2, 3, 4, 5]


async def test_heartbeats_never_overtake_what_is_due_but_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.playback._SLICE_PER_PARTITION", 1)
    rows = [(1, 1, 3.0, DAY_0 + i * DAY_S // 7) for i in range(700)]
    async with open_bus("memory://") as bus:
        await replay(bus, MemoryDataset(rows), ReplayOptions(week=1, speed=60.0 * DAY_S, partitions=1))
        log = (await log_of(bus))[0]
    assert any(b"heartbeat" in value for value in log)
    times = [r.get("event_time", r.get("timestamp")) for r in map(json.loads, log)]
    assert times == sorted(times)


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_cutting_sends_keeps_ticks_in_their_places(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    dataset = random_dataset(60, days=20)
    expected = await replayed(dataset)
    monkeypatch.setattr("streams.publisher._MAX_LINES", most)
    assert await replayed(dataset) == expected


# Bounds


async def test_limit_counts_live_ratings_and_ends_the_run() -> None:
    dataset = random_dataset(1_000, days=100)
    async with open_bus("memory://") as bus:
        options = ReplayOptions(week=10, speed=math.inf, limit=5)
        summary = await replay(bus, dataset, options)
        training = dataset.position_of(dataset.first_timestamp + 63 * DAY_S)
        assert summary.position == summary.total == training + 5
        assert summary.completed
        log = await log_of(bus)
    assert len(ratings_in(log)) == training + 5
    assert all(ticks_in(part)[-1]["end_of_run"] for part in log)


async def test_until_is_exclusive() -> None:
    dataset = MemoryDataset([(1, m, 3.0, DAY_0 + m * DAY_S) for m in range(10)])
    day_3 = np.datetime_as_string(np.datetime64(DAY_0 + 3 * DAY_S, "s"))
    log = await replayed(dataset, ReplayOptions(week=1, speed=math.inf, until=str(day_3)))
    assert [r["movie_id"] for r in ratings_in(log)] == [0, 1, 2]


async def test_an_empty_dataset_is_refused() -> None:
    async with open_bus("memory://") as bus:
        with pytest.raises(DataError, match="expected ratings, found none"):
            await replay(bus, MemoryDataset([]))


async def test_a_run_without_ratings_still_ends() -> None:
    log = await replayed(random_dataset(5, days=1), ReplayOptions(week=1, speed=math.inf, limit=0))
    assert [[t["end_of_run"] for t in ticks_in(part)] for part in log] == [[True]] * 4


async def test_until_before_the_live_part_is_refused() -> None:
    async with open_bus("memory://") as bus:
        with pytest.raises(ConfigError, match=r"until: expected a date after .* when week 10 begins"):
            await replay(bus, random_dataset(50, days=100), ReplayOptions(until="1999-01-01"))


async def test_another_partition_count_is_refused() -> None:
    async with open_bus("memory://") as bus:
        await replay(bus, random_dataset(10, days=1))
        with pytest.raises(PartitionMismatch):
            await replay(bus, random_dataset(10, days=1), ReplayOptions(partitions=2))


# Time


async def test_the_training_part_is_published_at_once_and_the_live_part_in_time() -> None:
    rows = [(1, day, 3.0, DAY_0 + day * DAY_S) for day in range(14)]
    clock = ManualClock(autojump=True)
    async with open_bus("memory://") as inner:
        bus = WatchedBus(inner, clock)
        await replay(bus, MemoryDataset(rows), ReplayOptions(week=2, speed=DAY_S), clock=clock)
    at = {r["movie_id"]: when for when, r in bus.sent if "movie_id" in r}
    assert [at[day] for day in range(7)] == [0.0] * 7
    assert [at[day] for day in range(7, 14)] == pytest.approx([0, 1, 2, 3, 4, 5, 6], abs=0.02)


async def test_a_long_gap_takes_its_time_and_heartbeats_tell_event_time_meanwhile() -> None:
    rows = [(1, 1, 3.0, DAY_0 + 100), (1, 2, 3.0, DAY_0 + 10 * DAY_S + 100)]
    clock = ManualClock(autojump=True)
    async with open_bus("memory://") as inner:
        bus = WatchedBus(inner, clock)
        await replay(bus, MemoryDataset(rows), ReplayOptions(week=1, speed=DAY_S, partitions=1), clock=clock)
    second = next(when for when, r in bus.sent if r.get("movie_id") == 2)
    assert second == pytest.approx(10.0, abs=0.02)
    beats = [(when, r["event_time"] - DAY_0 - 100) for when, r in bus.sent if r.get("heartbeat")]
    assert len(beats) == pytest.approx(40, abs=2)
    assert all(event_s == pytest.approx(when * DAY_S, abs=2) for when, event_s in beats)
    boundaries = [
        (when, r["event_time"] - DAY_0) for when, r in bus.sent if "event_time" in r and not r.get("heartbeat")
    ]
    assert [b for _, b in boundaries] == [0, 10 * DAY_S, 11 * DAY_S]
    assert boundaries[1][0] == pytest.approx(10.0 - 100 / DAY_S, abs=0.02)


@pytest.mark.parametrize(
    ("arrival", "tolerance"), [("recorded", 0.01), ("steady", 0.01), ("poisson", 0.1), ("bursty", 0.5)]
)
async def test_a_rate_is_kept_on_average(arrival: str, tolerance: float) -> None:
    clock = ManualClock(autojump=True)
    async with open_bus("memory://") as bus:
        options = ReplayOptions(week=1, rate=200.0, arrival=arrival, seed=1)
        summary = await replay(bus, random_dataset(2_000, days=300), options, clock=clock)
    assert summary.elapsed_s == pytest.approx(10.0, rel=tolerance)
    assert summary.shifted_s == 0


async def test_a_steady_schedule_does_not_drift() -> None:
    clock = ManualClock(autojump=True)
    async with open_bus("memory://") as inner:
        bus = WatchedBus(inner, clock)
        options = ReplayOptions(week=1, rate=1_000.0, arrival="steady")
        await replay(bus, random_dataset(5_000, days=3), options, clock=clock)
    late = [when - r["event_id"] / 1_000 for when, r in bus.sent if "user_id" in r]
    assert min(late) >= -1e-6
    assert max(late) < 0.01


async def test_ratings_of_one_second_are_spread_evenly_over_a_rate() -> None:
    clock = ManualClock(autojump=True)
    async with open_bus("memory://") as bus:
        dataset = MemoryDataset([(u, 1, 3.0, DAY_0) for u in range(1, 101)])
        assert (await replay(bus, dataset, ReplayOptions(week=1, rate=10.0), clock=clock)).elapsed_s == pytest.approx(
            10
        )


class Running:
    """A replay that runs beside the test, on a clock the test moves."""

    def __init__(self, bus: Bus, dataset: MemoryDataset, options: ReplayOptions) -> None:
        self.clock = ManualClock()
        self.bus = bus
        self.last = ReplayProgress(0, 0, 0, None, 0.0, False, 0.0)
        self.replayer = Replayer(dataset, bus, options, run_id=RUN, clock=self.clock, on_progress=self._note)
        self.task = asyncio.create_task(self.replayer.replay())

    def _note(self, progress: ReplayProgress) -> None:
        self.last = progress

    async def settled(self) -> None:
        """Until all that is due was sent and the replay waits for the clock."""
        await until(lambda: self.clock.waiting == 1 or self.task.done())

    async def advance(self, seconds: float, step_s: float = 0.5) -> int:
        """Move the clock in steps; the position reached."""
        for _ in range(round(seconds / step_s)):
            await self.settled()
            self.clock.advance(step_s)
            await asyncio.sleep(0)
        await self.settled()
        return self.last.position

    async def ask(self, action: str, speed: float | None = None, run: str = RUN) -> None:
        """As a foreign program might, whatever the replayer thinks of it."""
        async with self.bus.producer() as producer:
            await producer.send(CONTROL, msgspec.json.encode(Control(run, action, speed)), key=run.encode())


@asynccontextmanager
async def running(rate: float = 100.0, n: int = 100_000) -> Any:
    async with open_bus("memory://") as bus:
        run = Running(bus, random_dataset(n, days=300), ReplayOptions(week=1, rate=rate, arrival="steady"))
        yield run
        run.replayer.stop()
        await run.task


async def test_pause_and_resume_through_control() -> None:
    async with running() as run:
        assert await run.advance(2.0) == 200
        await run.ask("pause")
        await until(lambda: run.replayer.paused)
        assert await run.advance(1_000.0, step_s=100) == 200
        assert run.last.paused
        await run.ask("resume")
        await until(lambda: not run.replayer.paused)
        assert await run.advance(1.0) == 300


async def test_speed_through_control() -> None:
    async with running() as run:
        assert await run.advance(1.0) == 100
        await run.ask("speed", 1_000.0)
        await until(lambda: run.replayer.speed == 1_000)
        assert await run.advance(1.0) == 1_100
        await run.ask("speed")
        summary = await run.task
        assert summary.completed
        assert summary.position == 100_000


async def test_stop_through_control_and_going_on_later() -> None:
    async with running(n=1_000) as run:
        await run.advance(2.0)
        await run.ask("stop", run="*")
        summary = await run.task
        assert (summary.position, summary.completed) == (200, False)
        assert len(ratings_in(await log_of(run.bus))) == 200
        again = await replay(run.bus, random_dataset(1_000, days=300))
        assert (again.resumed_from, again.n_ratings, again.completed) == (200, 800, True)
        assert await log_of(run.bus, heartbeats=False) == await replayed(random_dataset(1_000, days=300))


async def test_requests_for_other_runs_are_left_alone_and_garbage_is_dead_lettered() -> None:
    async with running() as run:
        await run.advance(1.0)
        await run.ask("stop", run="another")
        await run.ask("dance")
        await run.ask("speed", -1.0)
        async with run.bus.producer() as producer:
            await producer.send(CONTROL, b"\xff{", key=b"x")
        await run.ask("pause")
        await until(lambda: run.replayer.paused)
        letters = [json.loads(v) for part in await log_of(run.bus, DEADLETTER) for v in part]
        assert Counter(letter["reason"].split(":")[0] for letter in letters) == {
            "action": 1,
            "speed": 1,
            "not a control record": 1,
        }
        assert {letter["topic"] for letter in letters} == {CONTROL}
        await run.ask("resume")
        await until(lambda: not run.replayer.paused)
        assert await run.advance(1.0) == 200


@pytest.mark.parametrize(("action", "speed"), [("dance", None), ("speed", math.inf), ("speed", math.nan), ("speed", 0)])
async def test_what_the_replayer_would_refuse_is_not_even_asked(action: str, speed: float | None) -> None:
    async with running() as run:
        with pytest.raises(ConfigError, match=f"{'action' if speed is None else 'speed'}: expected"):
            await ask(run.bus, RUN, action, speed)


async def test_what_was_asked_before_the_replay_began_is_over() -> None:
    async with open_bus("memory://") as bus:
        dataset = random_dataset(50, days=3)
        await replay(bus, dataset, run_id="earlier")
        async with bus.producer() as producer:
            await producer.send(CONTROL, msgspec.json.encode(Control("*", "stop")))
        assert (await replay(bus, dataset, append=True)).completed


class AskingBus(WatchedBus):
    """A bus on which somebody asks for something just when the replayer begins to look for where it stopped."""

    action = "stop"

    async def offsets(self, topic: str) -> Any:
        if topic == RATINGS:
            async with self._bus.producer() as producer:
                await producer.send(CONTROL, msgspec.json.encode(Control(RUN, self.action)))
        return await self._bus.offsets(topic)


async def test_what_is_asked_while_the_replay_looks_for_its_place_is_heard() -> None:
    dataset = random_dataset(2_000, days=30)
    options = ReplayOptions(week=1, rate=100.0, arrival="steady")
    async with open_bus("memory://") as inner:
        bus = AskingBus(inner, SystemClock())
        summary = await asyncio.wait_for(replay(bus, dataset, options, clock=SystemClock()), 10)
        assert not summary.completed
        bus.action = "pause"
        run = Running(bus, dataset, options)
        await until(lambda: run.replayer.paused)
        run.replayer.stop()
        assert not (await run.task).completed


async def test_stopping_while_paused_ends_the_replay_and_resuming_goes_on_without_a_jump() -> None:
    async with running() as run:
        assert await run.advance(2.0) == 200
        await run.ask("pause")
        await until(lambda: run.replayer.paused)
        run.clock.advance(10_000.0)
        await run.ask("speed", 50.0)
        await until(lambda: run.replayer.speed == 50)
        await run.ask("resume")
        await until(lambda: not run.replayer.paused)
        assert await run.advance(1.0) == 250
        await run.ask("pause")
        await until(lambda: run.replayer.paused)
        await run.ask("stop")
        summary = await run.task
        assert (summary.position, summary.completed, summary.shifted_s) == (250, False, 0)


async def test_a_process_held_up_for_a_minute_floods_nobody() -> None:
    async with running() as run:
        assert await run.advance(2.0) == 200
        run.clock.advance(60.0)
        await asyncio.sleep(0)
        await run.settled()
        assert run.last.position <= 202
        assert await run.advance(1.0) <= 303
        run.replayer.stop()
        assert (await run.task).shifted_s == pytest.approx(60.0, abs=0.1)


async def test_stop_flushes_and_says_where_it_stopped() -> None:
    async with running() as run:
        await run.advance(3.0)
        run.replayer.stop()
        summary = await run.task
        assert not summary.completed
        assert summary.position == summary.n_ratings == 300
        assert summary.event_time == random_dataset(100_000, days=300).timestamp_at(299)
        assert len(ratings_in(await log_of(run.bus))) == 300


async def test_progress_tells_phase_position_and_rate() -> None:
    seen: list[ReplayProgress] = []
    dataset = MemoryDataset(random_dataset(2_000, days=100).rows, chunk_size=500)
    async with open_bus("memory://") as bus:
        clock = ManualClock(autojump=True)
        options = ReplayOptions(week=8, rate=100.0, arrival="steady")
        replayer = Replayer(dataset, bus, options, run_id=RUN, clock=clock, on_progress=seen.append)
        await replayer.replay()
    assert seen[0].phase == "training"
    assert {p.phase for p in seen if p.position >= replayer.plan.n_training} == {"live"}
    assert [p.position for p in seen] == sorted(p.position for p in seen)
    assert seen[-1].position == seen[-1].total == 2_000
    assert seen[-1].event_time == dataset.last_timestamp
    assert seen[-2].events_per_s == pytest.approx(100.0, rel=0.1)


# Resuming


async def test_a_complete_run_publishes_nothing_more() -> None:
    dataset = random_dataset(200, days=9)
    async with open_bus("memory://") as bus:
        await replay(bus, dataset)
        before = await log_of(bus)
        summary = await replay(bus, dataset)
        assert summary.already_complete
        assert summary.position == 200
        assert await log_of(bus) == before


@pytest.mark.parametrize("partitions", [1, 4])
async def test_killed_after_any_record_and_resumed_is_the_same_log(partitions: int) -> None:
    dataset = random_dataset(24, days=6)
    options = ReplayOptions(week=1, speed=math.inf, partitions=partitions)
    expected = await replayed(dataset, options)
    for n in range(sum(map(len, expected))):
        async with open_bus("memory://") as bus:
            clock = ManualClock(autojump=True)
            with pytest.raises(BusUnavailable, match="as planned"):
                await replay(WatchedBus(bus, clock, die_after=n), dataset, options, clock=clock)
            summary = await replay(bus, dataset, options)
            assert summary.completed
            assert await log_of(bus) == expected


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    deaths=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    partitions=st.integers(1, 8),
    speed=st.sampled_from([math.inf, 40_000.0, 200_000.0]),
    days=st.sampled_from([0, 1, 30]),
)
def test_killed_again_and_again_at_any_speed_is_the_same_log(
    seed: int, deaths: list[int], partitions: int, speed: float, days: int
) -> None:
    dataset = random_dataset(60, days=days, seed=seed)
    options = ReplayOptions(week=1, speed=speed, partitions=partitions)

    async def run() -> None:
        async with open_bus("memory://") as bus:
            clock = ManualClock(autojump=True)
            for n in deaths:
                try:
                    await replay(WatchedBus(bus, clock, die_after=n), dataset, options, clock=clock)
                except BusUnavailable:
                    continue
            assert (await replay(bus, dataset, options, clock=clock)).completed
            assert await log_of(bus, heartbeats=False) == await replayed(dataset, options)

    asyncio.run(run())


@pytest.mark.parametrize("fails_at", range(0, 39, 3))
async def test_a_partition_that_fails_after_the_send_stops_the_replay_with_its_error(fails_at: int) -> None:
    class FailingProducer(WatchedProducer):
        """Acknowledges later, as real ones do: partition 1 fails from a record on and then refuses everything."""

        n_sent = 0
        failed = False
        lost: asyncio.Future[Any] | None = None

        async def send_batch(self, topic: str, partition: int, lines: bytes, *, count: int, keys: bytes) -> Any:
            if partition != 1:
                return await self.inner.send_batch(topic, partition, lines, count=count, keys=keys)
            if self.failed:
                raise BusError("an earlier send failed, nothing may overtake it")
            room = max(fails_at - self.n_sent, 0)
            self.n_sent += count
            if self.n_sent <= fails_at:
                return await self.inner.send_batch(topic, partition, lines, count=count, keys=keys)
            for value, key in zip(lines.split(b"\n")[:room], keys.split(b"\n"), strict=False):
                await self.inner.send_batch(topic, partition, value, count=1, keys=key)
            self.failed = True
            self.lost = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self.lost.set_exception, BusUnavailable("disk full"))
            return self.lost

        async def flush(self) -> None:
            await self.inner.flush()
            if self.lost is not None:
                await self.lost

    dataset = random_dataset(200, days=15)
    options = ReplayOptions(week=2, speed=500_000.0)
    async with open_bus("memory://") as inner:
        bus = WatchedBus(inner, ManualClock(), producer=FailingProducer)
        with pytest.raises(BusUnavailable, match="disk full"):
            await replay(bus, dataset, options)
        assert (await replay(inner, dataset, options)).completed
        assert await log_of(inner, heartbeats=False) == await replayed(dataset, options)


async def test_what_others_publish_in_between_does_not_hide_the_tail() -> None:
    dataset = random_dataset(400, days=9)
    async with open_bus("memory://") as bus:
        with pytest.raises(BusUnavailable):
            await replay(WatchedBus(bus, ManualClock(), die_after=150), dataset)
        async with bus.producer() as producer:
            for partition in range(4):
                foreign = [msgspec.json.encode(Rating(1, i, 3.0, DAY_0, "page/1", i)) for i in range(6_000)]
                foreign[17] = b"garbage"
                await producer.send_batch(RATINGS, partition, b"\n".join(foreign), count=6_000)
        await replay(bus, dataset)
        own = [[v for v in part if RUN.encode() in v] for part in await log_of(bus)]
    assert own == await replayed(dataset)


async def test_two_runs_on_one_log_do_not_disturb_each_other() -> None:
    dataset = random_dataset(100, days=9)
    async with open_bus("memory://") as bus:
        first, second = await asyncio.gather(
            replay(bus, dataset, run_id="aaaaaaaaaaaa"), replay(bus, dataset, run_id="bbbbbbbbbbbb")
        )
        log = await log_of(bus)
    assert first.completed
    assert second.completed
    for run_id in (b"aaaaaaaaaaaa", b"bbbbbbbbbbbb"):
        own = [[v.replace(run_id, RUN.encode()) for v in part if run_id in v] for part in log]
        assert own == await replayed(dataset)


CHILD = """
import asyncio, sys
sys.path.insert(0, {folder!r})
from test_replayer import RUN, open_bus, random_dataset
from streams.replayer import Replayer, ReplayOptions

async def main():
    async with open_bus({url!r}) as bus:
        options = ReplayOptions(week=3, rate=2000.0, arrival="bursty")
        await Replayer(random_dataset(20_000, days=60), bus, options, run_id=RUN).replay()

asyncio.run(main())
"""


async def test_sigkill_at_random_moments_loses_and_doubles_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    dataset = random_dataset(20_000, days=60)
    rng = random.Random(7)
    async with open_bus(url) as bus:

        async def size() -> int:
            return sum(end for _, end in (await bus.offsets(RATINGS)).values())

        for _ in range(5):
            before = await size() if RATINGS in await bus.topics() else 0
            code = CHILD.format(folder=str(Path(__file__).parent), url=url)
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
            target = before + rng.randrange(1, 400)
            deadline = time.monotonic() + 60
            while RATINGS not in await bus.topics() or await size() < target:
                assert child.returncode is None, "the child ended by itself"
                assert time.monotonic() < deadline
                await asyncio.sleep(0.001)
            child.send_signal(signal.SIGKILL)
            await child.wait()
        summary = await replay(bus, dataset, ReplayOptions(week=3, speed=math.inf))
        assert summary.completed
        assert summary.resumed_from > 0
        assert await log_of(bus, heartbeats=False) == await replayed(dataset, ReplayOptions(week=3, speed=math.inf))


async def test_the_live_part_goes_on_where_the_training_part_was_read() -> None:
    """A dataset may have to make anew what lies before the place where it is to begin."""
    dataset = random_dataset(2_000, days=100)
    begun: list[int] = []
    chunks = dataset.chunks

    def watched(*, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        begun.append(start)
        return chunks(start=start, size=size)

    dataset.chunks = watched  # type: ignore[method-assign]
    async with open_bus("memory://") as bus:
        replayer = Replayer(dataset, bus, ReplayOptions(week=5, speed=math.inf), run_id=RUN)
        assert 0 < replayer.plan.n_training < 2_000
        assert (await replayer.replay()).n_ratings == 2_000
    assert begun == [0]

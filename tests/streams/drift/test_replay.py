"""Drift on the log: where it is and where it is not, through kills, and as the feature store counts it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from featurestore.view_settings import ViewSettings
from featurestore.writer import AppliedBatch, FeatureWriter
from streams.batch import decode_ratings
from streams.bus import Bus, open_bus
from streams.clock import ManualClock
from streams.drift import DriftedDataset
from streams.drift.malformed import SORTS
from streams.drift.spec import KINDS, STRENGTHS
from streams.errors import BusUnavailable, ConfigError
from streams.events import DAY_S, RATINGS
from streams.replayer import Replayer, ReplayOptions, ReplaySummary, plan_replay, with_drift
from streams.split import WEEK_S

Hold = Callable[..., Any]
Log = list[list[bytes]]
RUN = "0123456789ab"
WEEKS = 8
FAULTS = tuple(f"{kind}@{week}:high" for week in (2, 4) for kind in ("late", "malformed") for _ in range(6))
"""Together they strike most of the records."""


class DyingBus:
    """A bus that takes ``left`` records from its producers, one by one, and no more; tells when each was sent."""

    def __init__(self, bus: Bus, clock: ManualClock, left: float = math.inf) -> None:
        self._bus, self._clock, self.left = bus, clock, left
        self.sent: list[tuple[float, bytes]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    @asynccontextmanager
    async def producer(self) -> Any:
        async with self._bus.producer() as inner:
            self.inner = inner
            yield self

    async def flush(self) -> None:
        await self.inner.flush()

    async def send_batch(self, topic: str, partition: int, lines: bytes, *, count: int, keys: bytes) -> Any:
        for value, key in zip(lines.split(b"\n"), keys.split(b"\n"), strict=True):
            if self.left <= 0:
                raise BusUnavailable("the log died, as planned")
            self.left -= 1
            self.sent.append((self._clock.monotonic(), value))
            sent = await self.inner.send_batch(topic, partition, value, count=1, keys=key)
        return sent


async def replay(bus: Any, data: Any, options: ReplayOptions, clock: ManualClock | None = None) -> ReplaySummary:
    clock = clock or ManualClock(autojump=True, time=time.time())
    return await Replayer(data, bus, options, run_id=RUN, clock=clock).replay()


async def log_of(bus: Bus) -> Log:
    """Each partition's values, heartbeats left out."""
    ranges = await bus.offsets(RATINGS)
    values: Log = [[] for _ in ranges]
    async with await bus.consumer(RATINGS) as consumer:
        while any(consumer.position(tp) < end for tp, (_, end) in ranges.items()):
            for batch in await consumer.fetch():
                values[batch.partition] += [v for v in batch.values if b'"heartbeat":true' not in v]
    return values


async def replayed(data: Any, options: ReplayOptions) -> Log:
    async with open_bus("memory://") as bus:
        assert (await replay(bus, data, options)).completed
        return await log_of(bus)


def asked(*drift: str, **options: Any) -> ReplayOptions:
    return ReplayOptions(**{"week": 2, "speed": math.inf, **options}, drift=drift)


def identity(value: bytes) -> int:
    """The ordinal of a record, malformed or not."""
    return int(value.split(b'"event_id":')[1].split(b",")[0].rstrip(b"}"))


# What is published


@pytest.mark.parametrize("kind", KINDS)
async def test_before_its_week_the_log_is_that_of_a_run_without_drift(held: Hold, kind: str) -> None:
    data = held(4_000, days=7 * WEEKS)
    n_before = data.position_of(data.first_timestamp + 3 * WEEK_S)

    def until_then(log: Log) -> Log:
        # A tick carries the ordinal of the rating before it; the one that follows the last of them may be later.
        return [[v for v in part if identity(v) + (b'"type":"tick"' in v) <= n_before] for part in log]

    plain, drifted = await replayed(data, asked()), await replayed(data, asked(f"{kind}@4:high"))
    assert until_then(drifted) == until_then(plain)
    assert sum(map(len, until_then(plain))) > n_before
    assert drifted != plain


@settings(max_examples=15, deadline=None)
@given(
    drifts=st.lists(
        st.builds("{}@{}:{}".format, st.sampled_from(KINDS), st.integers(2, 6), st.sampled_from(STRENGTHS)), max_size=3
    ),
    seed=st.integers(0, 9),
)
def test_the_log_holds_the_drifted_data_in_its_order(held: Hold, drifts: list[str], seed: int) -> None:
    data = held(600, days=7 * WEEKS, seed=seed, seconds=3_600)
    options = asked(*drifts, seed=seed)
    log = asyncio.run(replayed(data, options))
    found = {identity(v): v for part in log for v in part if b'"type":"tick"' not in v}
    assert sorted(found) == list(range(1, len(found) + 1))
    at = 0
    for chunk in with_drift(data, options).chunks():
        for i in range(len(chunk)):
            at += 1
            if chunk.malformed is None or not chunk.malformed[i]:
                record = json.loads(found[at])
                assert [record[c] for c in ("user_id", "movie_id", "rating", "timestamp")] == [
                    getattr(chunk, c)[i] for c in ("user_id", "movie_id", "rating", "timestamp")
                ]
    assert at == len(found)


async def test_ticks_and_pace_follow_arrival(held: Hold) -> None:
    data = held(3_000, days=7 * WEEKS)
    clock = ManualClock(autojump=True, time=time.time())
    options = asked("late@3:high", speed=float(DAY_S))
    async with open_bus("memory://") as inner:
        bus = DyingBus(inner, clock)
        await replay(bus, data, options, clock)
        log = await log_of(inner)
    arrives = [int(t) for chunk in with_drift(data, options).chunks() for t in chunk.arrives]
    begins = data.first_timestamp + WEEK_S
    first = next(t for t in arrives if t >= begins)
    sent = {identity(v): when for when, v in bus.sent if b'"type":"tick"' not in v}
    for at, moment in enumerate(arrives, 1):
        assert sent[at] == pytest.approx(max(moment - first, 0) / DAY_S, abs=0.02)
    n_late = 0
    for part in log:
        closed = 0
        for value in map(json.loads, part):
            if value.get("type") == "tick":
                assert value["event_time"] > closed
                closed = value["event_time"]
            else:
                assert closed <= arrives[value["event_id"] - 1] < closed + DAY_S
                n_late += value["timestamp"] < closed - DAY_S
    assert n_late == with_drift(data, options).injected()[0].n_records > 50


async def test_every_sort_of_malformed_record_begins_with_its_identity_and_has_its_users_key(held: Hold) -> None:
    data = held(4_000, days=7 * WEEKS)
    drifted = with_drift(data, asked("malformed@2:high"))
    chunks = list(drifted.chunks())
    (chunk,) = [c for c in chunks if c.malformed is not None]
    first = drifted.n_ratings - len(chunk)
    seen = set()
    async with open_bus("memory://") as bus:
        await replay(bus, data, asked("malformed@2:high"))
        async with await bus.consumer(RATINGS) as consumer:
            for batch in await consumer.fetch():
                for value, key in zip(batch.values, batch.keys, strict=True):
                    if b'"type":"tick"' in value:
                        continue
                    at = identity(value) - 1 - first
                    if at >= 0 and chunk.malformed[at]:
                        assert value.startswith(b'{"source":"%s","event_id":%d,' % (RUN.encode(), at + 1 + first))
                        assert key == b"%d" % chunk.user_id[at]
                        seen.add(SORTS[chunk.malformed[at] - 1])
    assert seen == set(SORTS)


# Killed and resumed


@pytest.mark.parametrize("drift", [FAULTS, ("new-user-flood@2:middle", *FAULTS[:4]), ("volume-drop@3:high",)])
@pytest.mark.parametrize("partitions", [1, 3])
async def test_killed_after_any_record_and_resumed_is_the_same_log(
    held: Hold, drift: tuple[str, ...], partitions: int
) -> None:
    data = held(30, days=7 * WEEKS, users=5)
    options = asked(*drift, partitions=partitions)
    expected = await replayed(data, options)
    assert any(not v.endswith(b"}") for part in expected for v in part) == (drift == FAULTS)  # some are cut short
    for n in range(sum(map(len, expected))):
        async with open_bus("memory://") as bus:
            with pytest.raises(BusUnavailable, match="as planned"):
                await replay(DyingBus(bus, ManualClock(), left=n), data, options)
            assert (await replay(bus, data, options)).completed
            assert await log_of(bus) == expected


@settings(max_examples=30, deadline=None)
@given(
    drifts=st.lists(
        st.builds("{}@{}:{}".format, st.sampled_from(KINDS), st.integers(2, 6), st.sampled_from(STRENGTHS)), max_size=3
    ),
    seed=st.integers(0, 100),
    deaths=st.lists(st.integers(0, 90), min_size=1, max_size=4),
    speed=st.sampled_from([math.inf, 200_000.0]),
    chunk_size=st.sampled_from([1, 10, 1_000]),
    seconds=st.sampled_from([1, DAY_S]),
)
def test_killed_again_and_again_at_any_speed_is_the_same_log(
    held: Hold, drifts: list[str], seed: int, deaths: list[int], speed: float, chunk_size: int, seconds: int
) -> None:
    data = held(60, days=7 * WEEKS, seed=seed, users=8, seconds=seconds)
    options = asked(*drifts, *FAULTS[:8], speed=speed, seed=seed)

    async def run() -> None:
        expected = await replayed(data, asked(*drifts, *FAULTS[:8], seed=seed))
        data.chunk_size = chunk_size
        async with open_bus("memory://") as bus:
            for n in deaths:
                try:
                    await replay(DyingBus(bus, ManualClock(), left=n), data, options)
                except BusUnavailable:
                    continue
            assert (await replay(bus, data, options)).completed
            assert await log_of(bus) == expected

    try:
        with_drift(data, options)
    except ConfigError:
        reject()  # of 60 ratings, a drop may leave too few to flip
    asyncio.run(run())


async def test_garbage_of_others_is_not_taken_for_the_replayers_own(held: Hold) -> None:
    data = held(400, days=7 * WEEKS)
    options = asked("malformed@2:high")
    async with open_bus("memory://") as bus:
        with pytest.raises(BusUnavailable):
            await replay(DyingBus(bus, ManualClock(), left=150), data, options)
        garbage = [
            b'{"source":"another","event_id":399,"user_id":',
            b'{"source":"","event_id":399,"user_id":',
            b'{"source":"%s","event_id":' % RUN.encode(),
            b'{"source":"%s","event_id":-5,"x' % RUN.encode(),
            b'{"x":"%s","event_id":399,"x' % RUN.encode(),
        ]
        async with bus.producer() as producer:
            for partition in range(4):
                await producer.send_batch(RATINGS, partition, b"\n".join(garbage), count=len(garbage))
        assert (await replay(bus, data, options)).completed
        own = [[v for v in part if v not in garbage] for part in await log_of(bus)]
    assert own == await replayed(data, options)


# As the feature store counts it


async def applied(bus: Bus, folder: Path, lateness_s: int = DAY_S) -> list[AppliedBatch]:
    """What the features agent's writer makes of the log."""
    url = f"sqlite:///{folder}/features.db"
    with FeatureWriter(
        url, agent="features", topic=RATINGS, run_id=RUN, views=ViewSettings(lateness_s=lateness_s)
    ) as writer:
        ranges = await bus.offsets(RATINGS)
        writer.assign((await bus.topics())[RATINGS], ranges)
        done = []
        async with await bus.consumer(RATINGS) as consumer:
            while any(consumer.position(tp) < end for tp, (_, end) in ranges.items()):
                done.append(writer.apply(list(map(decode_ratings, await consumer.fetch()))))
        letters = [row for row in writer.outbox(limit=10**6) if row.topic == "deadletter"]
        assert len(letters) == sum(batch.invalid for batch in done)
    return done


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("lateness_s", [0, DAY_S, 3 * DAY_S + 17])
async def test_the_feature_store_counts_exactly_what_was_injected(
    held: Hold, tmp_path: Path, strength: str, lateness_s: int
) -> None:
    data = held(12_000, days=7 * WEEKS, users=200)
    options = asked(f"late@2:{strength}", f"malformed@3:{strength}", "new-user-flood@4:low", lateness_s=lateness_s)
    drifted = with_drift(data, options)
    assert isinstance(drifted, DriftedDataset)
    late, malformed, _ = drifted.injected()
    async with open_bus("memory://") as bus:
        await replay(bus, data, options)
        counted = await applied(bus, tmp_path, lateness_s)
    assert late.n_records > 0
    assert malformed.n_records > 0
    assert sum(b.late for b in counted) == late.n_records
    assert sum(b.invalid for b in counted) == malformed.n_records
    assert sum(b.duplicates for b in counted) == 0
    assert sum(b.ratings for b in counted) == drifted.n_ratings - malformed.n_records


@pytest.mark.parametrize("bound", [{"limit": 5_000}, {"until": "2002-12-20T12:34:56"}])
async def test_the_ground_truth_of_a_bounded_run_is_of_what_it_published(
    held: Hold, tmp_path: Path, bound: dict[str, Any]
) -> None:
    data = held(12_000, days=7 * WEEKS, users=200)
    options = asked("late@2:high", "malformed@3:high", "rating-bias@3:low", "volume-drop@3:low", **bound)
    drifted = with_drift(data, options)
    assert isinstance(drifted, DriftedDataset)
    plan = plan_replay(drifted, options)
    assert plan.n_training < plan.n_total < drifted.n_ratings
    late, malformed, bias, drop = drifted.injected(plan.n_total)
    assert late.n_records < drifted.injected()[0].n_records
    async with open_bus("memory://") as bus:
        await replay(bus, data, options)
        counted = await applied(bus, tmp_path)
        last = max(identity(v) for part in await log_of(bus) for v in part)
    assert last == plan.n_total
    assert sum(b.late for b in counted) == late.n_records
    assert sum(b.invalid for b in counted) == malformed.n_records
    assert bias.n_records < plan.n_total
    assert 0 < drop.n_records < drifted.injected()[3].n_records


# The plan


async def test_weeks_count_in_the_data_as_it_is(held: Hold) -> None:
    data = held(5_000, days=500)  # over a year: the automatic start depends on how many ratings there are
    plain = plan_replay(data, ReplayOptions())
    for kind in ("new-user-flood", "volume-drop", "late"):
        options = ReplayOptions(drift=(f"{kind}@11:high",))
        split = plan_replay(with_drift(data, options), options).split
        assert (split.start, split.cutoff, split.n_training) == (
            plain.split.start,
            plain.split.cutoff,
            plain.n_training,
        )


def test_a_drift_after_the_end_of_the_run_is_refused(held: Hold) -> None:
    data = held(5_000, days=7 * WEEKS)
    options = asked("late@6:low", limit=100)
    with pytest.raises(ConfigError, match=r"drift late@6:low: expected a week that begins before the run ends") as no:
        plan_replay(with_drift(data, options), options)
    assert "\n" not in str(no.value)
    day = "2002-11-20"
    with pytest.raises(ConfigError, match="begins before the run ends"):
        plan_replay(with_drift(data, asked("late@6:low", until=day)), asked("late@6:low", until=day))

"""Made-up users answer a log of slates with the same bytes whatever the batches and restarts, and prefer what fits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.reactive_steps import ReactiveSteps
from agents.reactive_store import ReactiveWriter
from agents.reactive_users import ReactiveUsers
from agents.reactive_worker import ReactiveOptions, ReactiveWorker, users_of
from agents.variant_difference import UserSums, ratio_difference
from agents.variants import Experiment, Variant
from models.bootstrap import Interval
from models.interactions import Histories, Interactions
from models.kinds import make_model
from models.slates import SESSION_GAP_S
from streamlens.reactive_status import reactive_status
from streams.bus import Bus, OffsetRange, TopicInfo, open_bus
from streams.dataset import open_dataset
from streams.errors import ConfigError
from streams.events import DAY_S, FEEDBACK, IMPRESSIONS, METRICS, Feedback, Metric, Slate, Tick
from streams.records import RecordBatch, TopicPartition
from streams.testing import collect, eventually
from streams.topics import run_topics
from tests.agents.at_work import at_work
from tests.agents.monitored import batch_of

WORLD = "synthetic:users=300,ratings=15000,movies=500,seed=3"
LOG = TopicInfo(IMPRESSIONS, 2, None, "log-1")
T0 = 1_500_000_000 // DAY_S * DAY_S
DAYS = 4
STRANGER = 301
GARBAGE = (b"", b"{}", b'{"type":"slate"}', b"\xff\xfe", b'{"type":"feedback","slate_id":1}')

Log = dict[int, list[bytes]]


@pytest.fixture(scope="module")
def users() -> ReactiveUsers:
    return users_of(WORLD)


def impressions() -> Log:
    """Days of slates over two partitions; ticks, heartbeats, garbage, a stranger, and records that come twice."""
    random = np.random.default_rng(0)
    log: Log = {0: [], 1: []}
    ids = {0: 0, 1: 0}

    def put(partition: int, record: Slate | Tick, *, again: bool = False) -> None:
        ids[partition] += 1
        named = msgspec.structs.replace(record, source=f"run/loop/ratings/{partition}", event_id=ids[partition])
        log[partition] += [msgspec.json.encode(named)] * (1 + again)

    for day in range(DAYS):
        for partition in log:
            put(partition, Tick(T0 + day * DAY_S), again=day == 1)
        for n in range(120):
            user = STRANGER if n == 50 else int(random.integers(1, 301))
            at = T0 + day * DAY_S + 60 * n
            movies = random.choice(500, 10, replace=False) + 1
            slate = Slate(f"{user}-{at}-0", f"{user}-{at}", user, "ab"[user % 2], "v1", movies.tolist(), at)
            put(user % 2, slate, again=n % 40 == 0)
            if n % 30 == 0:
                log[user % 2].append(GARBAGE[n // 30])
                put(user % 2, Tick(at, heartbeat=True))
    for partition in log:
        put(partition, Tick(T0 + DAYS * DAY_S, end_of_run=True), again=True)
    return log


def batches_of(log: Log, size: int, since: dict[int, int] | None = None) -> list[RecordBatch]:
    """In turns, ``size`` records each."""
    found = []
    for first in range(0, max(map(len, log.values())), size):
        for partition, values in log.items():
            begin = max(first, (since or {}).get(partition, 0))
            if part := values[begin : first + size]:
                found.append(batch_of(TopicPartition(IMPRESSIONS, partition), begin, part))
    return found


def started(folder: Path, users: ReactiveUsers, log: Log) -> ReactiveSteps:
    steps = ReactiveSteps(ReactiveWriter(f"sqlite:///{folder}/features.db"), users, run_id="run")
    ranges = {TopicPartition(IMPRESSIONS, p): OffsetRange(0, len(values)) for p, values in log.items()}
    steps.assign(LOG, ranges)
    return steps


def published(steps: ReactiveSteps) -> Log:
    found: Log = {0: [], 1: []}
    for row in steps.writer.outgoing(1 << 40):
        assert row.topic == FEEDBACK
        found[row.partition] += row.lines.split(b"\n")
    return found


def answered_in_one_go(folder: Path, users: ReactiveUsers, log: Log) -> Log:
    steps = started(folder, users, log)
    steps.apply(batches_of(log, 100_000))
    found = published(steps)
    steps.close()
    return found


def test_each_slate_is_answered_once_and_ticks_follow_what_came_before_them(
    tmp_path: Path, users: ReactiveUsers
) -> None:
    log = impressions()
    for partition, lines in answered_in_one_go(tmp_path, users, log).items():
        told = [msgspec.json.decode(line, type=Feedback | Tick) for line in lines]
        assert [one.event_id for one in told] == list(range(1, len(told) + 1))
        assert {one.source for one in told} == {f"run/reactive/impressions/{partition}"}
        wanted: list[str | int] = []
        for value in log[partition]:
            if value in GARBAGE:
                continue
            record = msgspec.json.decode(value, type=Slate | Tick)
            name = record.event_time if isinstance(record, Tick) else record.slate_id
            known = not isinstance(record, Tick) and record.user_id != STRANGER
            if name not in wanted and (known or (isinstance(record, Tick) and not record.heartbeat)):
                wanted.append(name)
        assert [one.event_time if isinstance(one, Tick) else one.slate_id for one in told] == wanted
        assert all(one.simulated for one in told if isinstance(one, Feedback))
        assert [one.end_of_run for one in told if isinstance(one, Tick)] == [False] * DAYS + [True]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_batches_and_restarts_change_no_byte(tmp_path: Path, users: ReactiveUsers, size: int) -> None:
    log = impressions()
    (tmp_path / "first").mkdir()
    expected = answered_in_one_go(tmp_path / "first", users, log)
    steps = started(tmp_path, users, log)
    for number, batch in enumerate(batches_of(log, size)):
        steps.apply([batch])
        if number % 10 == 3:  # a successor reads something again, and leaves it alone
            steps.close()
            steps = started(tmp_path, users, log)
            steps.apply([batch])
    assert published(steps) == expected
    steps.close()


def test_a_commit_whose_answer_was_lost_is_not_made_again(tmp_path: Path, users: ReactiveUsers) -> None:
    log = impressions()
    steps = started(tmp_path, users, log)
    first, second = batches_of(log, 200)[:2], batches_of(log, 200)[2:]
    before = steps.writer.cursors, steps._tallies
    steps.apply(first)
    expected, tallies = published(steps), steps.tallies
    steps.writer.moved(before[0])  # as if it had never heard of it
    steps._tallies = before[1]
    steps.apply(first)
    assert (published(steps), steps.tallies) == (expected, tallies)
    steps.apply(second)
    assert sum(map(len, published(steps).values())) == sum(tally.slates for tally in steps.tallies.values()) + 10
    steps.close()


def test_strangers_and_garbage_are_counted_and_stop_nothing(tmp_path: Path, users: ReactiveUsers) -> None:
    log = impressions()
    steps = started(tmp_path, users, log)
    steps.apply(batches_of(log, 100_000))
    assert steps.strangers == DAYS
    assert sum(cursor.invalid for cursor in steps.writer.cursors.values()) == 4 * DAYS
    assert sum(cursor.duplicates for cursor in steps.writer.cursors.values()) == 3 * DAYS
    assert sum(tally.slates for tally in steps.tallies.values()) == DAYS * 119
    held = {TopicPartition(IMPRESSIONS, p): OffsetRange(0, len(values)) for p, values in log.items()}
    found = reactive_status(f"sqlite:///{tmp_path}/features.db", held)
    assert found is not None
    assert (found["lag"], found["strangers"], found["invalid"], found["simulated"]) == (0, DAYS, 4 * DAYS, True)
    assert found["variants"]["a"]["ctr"] == steps.tallies["a"].clicks / steps.tallies["a"].shown
    steps.close()


# On a bus


async def publish(bus: Bus, log: Log) -> None:
    async with bus.producer() as producer:
        for partition, values in log.items():
            for value in values:
                await producer.send(IMPRESSIONS, value, partition=partition)
        await producer.flush()


def working(options: ReactiveOptions) -> AbstractAsyncContextManager[ReactiveWorker]:
    return at_work(ReactiveWorker(options))


@pytest.mark.streamlens_bus("memory", "sqlite")
async def test_a_worker_goes_on_where_the_last_one_stopped(
    streamlens_bus_url: str, tmp_path: Path, users: ReactiveUsers
) -> None:
    log = impressions()
    (tmp_path / "direct").mkdir()
    expected = answered_in_one_go(tmp_path / "direct", users, log)
    options = ReactiveOptions(streamlens_bus_url, f"sqlite:///{tmp_path}/features.db", WORLD, "run", partitions=2)
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(2))
        await publish(bus, {p: values[:100] for p, values in log.items()})
        async with working(options) as worker:
            first = worker.ingest.steps.writer
            await eventually(lambda: [c.next_offset for c in first.cursors.values()] == [100, 100])
        await publish(bus, {p: values[100:] for p, values in log.items()})
        async with working(options) as worker:
            second = worker.ingest.steps.writer
            await eventually(lambda: [c.end_of_run for c in second.cursors.values()] == [True, True])
        told = await collect(bus, FEEDBACK, sum(held.end for held in (await bus.offsets(FEEDBACK)).values()))
        metrics = [msgspec.json.decode(value, type=Metric) for value in await collect(bus, METRICS, 10)]
    # Each record at least once, as everywhere: what is published again has its id, and is the same.
    assert set(told) == {line for lines in expected.values() for line in lines}
    clicks = [metric for metric in metrics if metric.name in ("reactive.ctr", "reactive.clicks")]
    assert {metric.labels["variant"] for metric in clicks} == {"a", "b"}
    assert all(metric.labels["simulated"] == "true" for metric in clicks)


@pytest.mark.parametrize("data", [None, "ml-latest-small"])
def test_only_a_world_whose_taste_is_known_has_users(data: str | None) -> None:
    with pytest.raises(ConfigError, match="expected a run on synthetic data"):
        users_of(data)


# What a better model does

EFFECT_WORLD = "synthetic:users=1200,ratings=60000,movies=800,seed=11"


@pytest.fixture(scope="module")
def lists() -> dict[str, list[list[int]]]:
    """What EASE and popularity show each user in the middle of the world's time."""
    world = open_dataset(EFFECT_WORLD)
    ratings = Interactions.concat(Interactions.of_ratings(chunk) for chunk in world.chunks())
    now = world.timestamp_at(world.n_ratings * 4 // 5)
    known = ratings.before(now)
    histories = Histories.of_users(known, np.arange(1, 1201))
    models = {kind: make_model(kind).fit(known) for kind in ("ease", "popularity")}
    return {kind: m.recommend_for_history(histories, 10).movie_ids.tolist() for kind, m in models.items()}


def difference(folder: Path, lists: dict[str, list[list[int]]], kinds: Sequence[str], rounds: int = 3) -> Interval:
    """Simulated CTR of the first variant less that of the second, told by the agent of slates that show ``kinds``."""
    experiment = Experiment("effect", (Variant("first", 1, "champion"), Variant("second", 1, "other")))
    world = open_dataset(EFFECT_WORLD)
    now = world.timestamp_at(world.n_ratings * 4 // 5)
    shown = dict(zip(("first", "second"), kinds, strict=True))
    log: Log = {0: [], 1: []}
    for user in range(1, 1201):
        variant = experiment.variant_of(user).name
        movies = lists[shown[variant]][user - 1]
        for number in range(rounds):
            at = now + number * 2 * SESSION_GAP_S
            slate = Slate(f"{user}-{at}-0", f"{user}-{at}", user, variant, shown[variant], movies, at)
            log[user % 2].append(msgspec.json.encode(slate))
    folder.mkdir()
    told = answered_in_one_go(folder, users_of(EFFECT_WORLD), log)
    sums = {"first": UserSums(), "second": UserSums()}
    for line in (line for lines in told.values() for line in lines):
        one = msgspec.json.decode(line, type=Feedback)
        sums[one.variant].add(np.array([one.user_id]), np.array([len(one.clicked)]), np.array([one.n_shown]))
    found = ratio_difference(sums["first"].sums, sums["second"].sums)
    assert found is not None
    return found


def test_a_better_model_is_clicked_more_and_the_same_one_is_not(
    tmp_path: Path, lists: dict[str, list[list[int]]]
) -> None:
    better = difference(tmp_path / "better", lists, ("ease", "popularity"))
    same = [difference(tmp_path / kind, lists, (kind, kind)) for kind in ("ease", "popularity")]
    assert better.low > 0
    assert better.value > 3 * max(abs(one.value) for one in same)
    assert all(one.low < 0 < one.high for one in same)

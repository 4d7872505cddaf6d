"""Batched delivery, seen from an agent: every record once and in order, and no commit beyond what is done."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport import base
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message
from hypothesis import given
from hypothesis import strategies as st

from streams.app import BatchedApp
from streams.bus import Bus, TopicSpec, open_bus
from streams.delivery import MAX_BATCH_RECORDS, BatchedDelivery, batched_topic
from streams.errors import GroupBusy, StoreAheadOfLog
from streams.gather import gather_batches
from streams.ledger import Ledger
from streams.records import RecordBatch, TopicPartition
from streams.testing import eventually

pytestmark = pytest.mark.streamlens_bus("memory", "sqlite", pytest.param("kafka", marks=pytest.mark.broker))

PARTITIONS = 3
DEADLINE_S = 20


@pytest.fixture
async def bus(streamlens_bus_url: str) -> AsyncIterator[Bus]:
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(TopicSpec("ratings", PARTITIONS))
        yield bus


async def has_committed(bus: Bus, offsets: Mapping[TopicPartition, int]) -> bool:
    return await bus.committed("features") == offsets


async def publish(bus: Bus, *, records: int, each: int = 10, partitions: Iterable[int] = range(PARTITIONS)) -> None:
    """``records`` to each partition, ``each`` to a log batch; a value is its offset."""
    start = {tp.partition: r.end for tp, r in (await bus.offsets("ratings")).items()}
    async with bus.producer() as producer:
        for partition in partitions:
            for first in range(start[partition], start[partition] + records, each):
                count = min(each, start[partition] + records - first)
                lines = b"\n".join(b"%d" % offset for offset in range(first, first + count))
                await producer.send_batch("ratings", partition, lines, count=count)
        await producer.flush()


async def ends(bus: Bus) -> dict[TopicPartition, int]:
    return {tp: r.end for tp, r in (await bus.offsets("ratings")).items()}


class Seen:
    """What an agent has been given: the values of each partition in order, and the batches."""

    def __init__(self) -> None:
        self.values: dict[int, list[int]] = defaultdict(list)
        self.batches: list[RecordBatch] = []

    def add(self, batch: RecordBatch) -> None:
        self.batches.append(batch)
        self.values[batch.partition].extend(map(int, batch.values))

    @property
    def total(self) -> int:
        return sum(map(len, self.values.values()))

    def each_once_in_order(self, per_partition: int) -> bool:
        return self.values == {p: list(range(per_partition)) for p in range(PARTITIONS)}


def app_of(
    bus: Bus, agent: Callable[[RecordBatch], Any], *, group: str = "features", maxsize: int = 8, **options: Any
) -> BatchedApp:
    """An app whose agent awaits ``agent`` for each batch."""
    app = BatchedApp(group, broker=bus.url, **options)

    @app.agent(batched_topic(app, "ratings", maxsize=maxsize))
    async def features(stream: Any) -> None:
        async for batches in gather_batches(stream, max_records=1):
            for batch in batches:
                await agent(batch)

    return app


@asynccontextmanager
async def running(app: BatchedApp) -> AsyncIterator[BatchedApp]:
    async with asyncio.timeout(DEADLINE_S):
        await app.start()
        try:
            yield app
        finally:
            await app.stop()


def taking(seen: Seen) -> Callable[[RecordBatch], Any]:
    async def take(batch: RecordBatch) -> None:
        seen.add(batch)

    return take


# -- every record, once, in order


async def test_each_record_reaches_the_agent_once_and_in_order(bus: Bus) -> None:
    await publish(bus, records=500)
    seen = Seen()
    async with running(app_of(bus, taking(seen))):
        await publish(bus, records=100, each=1)
        await eventually(lambda: seen.total >= 600 * PARTITIONS)
    assert seen.each_once_in_order(600)
    assert await bus.committed("features") == await ends(bus)


async def test_a_fetch_of_a_partition_is_one_event_of_bounded_size(bus: Bus) -> None:
    await publish(bus, records=25_000, each=5_000)
    seen = Seen()
    async with running(app_of(bus, taking(seen))):
        await eventually(lambda: seen.total >= 25_000 * PARTITIONS)
    assert seen.each_once_in_order(25_000)
    assert max(map(len, seen.batches)) <= MAX_BATCH_RECORDS
    assert len(seen.batches) <= 5 * PARTITIONS


async def test_apps_run_one_after_another_and_leave_no_tasks(bus: Bus) -> None:
    seen, before = Seen(), asyncio.all_tasks()
    for _ in range(3):
        await publish(bus, records=20)
        expected = seen.total + 20 * PARTITIONS
        async with running(app_of(bus, taking(seen))):
            await eventually(lambda n=expected: seen.total >= n)  # type: ignore[misc]
    assert seen.each_once_in_order(60)
    assert asyncio.all_tasks() == before


async def test_a_rebalance_loses_and_repeats_nothing(bus: Bus) -> None:
    await bus.create_topics(TopicSpec("more", 1))
    await publish(bus, records=50)
    seen = Seen()
    async with running(app_of(bus, taking(seen))) as app:
        await eventually(lambda: seen.total >= 50 * PARTITIONS)
        for topics in (["ratings"], ["ratings", "more"]):
            generation = app.consumer_generation_id
            await app.consumer.subscribe(topics)
            await eventually(lambda g=generation: app.consumer_generation_id > g)  # type: ignore[misc]
            await eventually(lambda: not app.rebalancing)
        await publish(bus, records=50)
        await eventually(lambda: seen.total >= 100 * PARTITIONS)
    assert seen.each_once_in_order(100)


async def test_gathered_batches_are_all_that_waits(bus: Bus) -> None:
    await publish(bus, records=40)
    steps: list[list[RecordBatch]] = []
    app = BatchedApp("features", broker=bus.url)

    @app.agent(batched_topic(app, "ratings"))
    async def features(stream: Any) -> None:
        async for batches in gather_batches(stream):
            steps.append(batches)  # noqa: PERF401

    async with running(app):
        await eventually(lambda: sum(len(b) for step in steps for b in step) >= 40 * PARTITIONS)
    assert {batch.partition for batch in steps[0]} == set(range(PARTITIONS))
    assert await bus.committed("features") == await ends(bus)


async def test_a_gathered_step_ends_early_where_records_are_large(bus: Bus) -> None:
    """Else memory would be bounded by a number of records only, however many megabytes each of them is."""
    large, records = b"x" * (3 << 20), 12
    async with bus.producer() as producer:
        for n in range(records * PARTITIONS):
            await producer.send("ratings", large, partition=n % PARTITIONS)
        await producer.flush()
    steps: list[int] = []
    app = BatchedApp("features", broker=bus.url)

    @app.agent(batched_topic(app, "ratings", maxsize=2 * records * PARTITIONS))
    async def features(stream: Any) -> None:
        async for batches in gather_batches(stream):
            steps.append(sum(batch.n_bytes for batch in batches))  # noqa: PERF401

    async with running(app):
        await eventually(lambda: sum(steps) == records * PARTITIONS * len(large))
    assert max(steps) <= 20 << 20


# -- the commit rule


def _message(first: int, next_offset: int) -> Message:
    batch: Any = SimpleNamespace(first_offset=first, next_offset=next_offset)
    return ConsumerMessage("ratings", 0, next_offset - 1, 0.0, 0, None, None, batch, None, 0, 0, TP("ratings", 0))


@given(st.data())
def test_any_order_of_acks_commits_exactly_the_acked_prefix(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=12))
    bounds = [0]
    for size in sizes:
        bounds.append(bounds[-1] + size)
    messages = [_message(a, b) for a, b in pairwise(bounds)]
    ledger, delivered = Ledger(), 0
    ledger.fetched([cast(RecordBatch, m.value) for m in messages])
    for index in data.draw(st.permutations(range(len(messages)))):
        while delivered <= index:  # a batch is acked after it is delivered, whenever that is
            assert ledger.deliver(messages[delivered])
            delivered += 1
        messages[index].acked = True
        if data.draw(st.booleans()):
            prefix = next((i for i, m in enumerate(messages) if not m.acked), len(messages))
            assert ledger.committable() == (bounds[prefix] if prefix else None)
    assert ledger.committable() == bounds[-1]


async def test_an_unfinished_batch_holds_back_the_commit_and_is_delivered_again(bus: Bus) -> None:
    await publish(bus, records=30, partitions=[0])
    held = asyncio.Event()
    app = BatchedApp("features", broker=bus.url, drain_timeout_s=0.05)
    events: list[Any] = []

    @app.agent(batched_topic(app, "ratings"))
    async def features(stream: Any) -> None:
        async for event in stream.noack().events():
            events.append(event)
            if len(events) > 1:
                await stream.ack(event)
                held.set()

    async with running(app):
        await eventually(lambda: len(events) == 1)
        await publish(bus, records=30, partitions=[0])
        await held.wait()
        await app.consumer.commit()
        assert await bus.committed("features") == {}
    seen = Seen()
    async with running(app_of(bus, taking(seen))):
        await eventually(lambda: len(seen.values[0]) >= 60)
    assert seen.values[0] == list(range(60))


async def test_an_agent_that_raises_stops_the_app_with_its_error_and_commits_nothing(bus: Bus) -> None:
    await publish(bus, records=20, partitions=[1])
    error, seen = ValueError("the store is gone"), Seen()

    async def fail(batch: RecordBatch) -> None:
        seen.add(batch)
        raise error

    app = app_of(bus, fail)
    with pytest.raises(ValueError, match="the store is gone") as raised:
        async with asyncio.timeout(DEADLINE_S):
            await app.serve(asyncio.Event())
    assert raised.value is error
    assert app.fatal is error
    assert await bus.committed("features") == {}


async def test_nothing_overtakes_a_failed_batch_until_the_app_is_stopped(bus: Bus) -> None:
    await publish(bus, records=3 * MAX_BATCH_RECORDS, each=MAX_BATCH_RECORDS)
    seen = Seen()

    async def fail(batch: RecordBatch) -> None:
        seen.add(batch)
        raise ValueError("the store is gone")

    app = app_of(bus, fail)
    async with running(app):
        await eventually(lambda: app.fatal is not None)
        for _ in range(20):  # whoever runs the app may be slow to stop it
            await asyncio.sleep(0.005)
    assert len(seen.batches) == 1


async def test_a_plain_faust_agent_that_raises_commits_nothing_either(bus: Bus) -> None:
    await publish(bus, records=20, partitions=[1])
    app = BatchedApp("features", broker=bus.url)

    @app.agent(batched_topic(app, "ratings"))
    async def features(stream: Any) -> None:
        async for _ in stream:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with asyncio.timeout(DEADLINE_S):
            await app.serve(asyncio.Event())
    assert await bus.committed("features") == {}


async def test_a_gathered_step_that_raises_is_not_committed(bus: Bus) -> None:
    await publish(bus, records=20)
    app = BatchedApp("features", broker=bus.url, broker_commit_interval=0.01)
    steps = 0

    @app.agent(batched_topic(app, "ratings"))
    async def features(stream: Any) -> None:
        nonlocal steps
        async for _ in gather_batches(stream):
            steps += 1
            if steps == 2:
                raise ValueError("broken")

    async with asyncio.timeout(DEADLINE_S):
        stopping = asyncio.Event()
        serving = asyncio.create_task(app.serve(stopping))
        done = await ends(bus)
        await eventually(lambda: has_committed(bus, done))
        await publish(bus, records=20)
        with pytest.raises(ValueError, match="broken"):
            await serving
    assert await bus.committed("features") == done


# -- start offsets


async def test_start_offsets_win_over_committed_ones_and_are_committed(bus: Bus) -> None:
    await publish(bus, records=30)
    async with running(app_of(bus, taking(Seen()), group="other")) as app:
        await eventually(lambda: app.monitor is not None)
    async with await bus.consumer("ratings", group="features") as consumer:
        await consumer.commit(dict.fromkeys(consumer.assignment, 25))
    asked: list[set[TP]] = []

    async def start_offsets(assigned: set[TP]) -> Mapping[TP, int]:
        asked.append(assigned)
        return {TP("ratings", 0): 10, TP("ratings", 1): 30}

    seen = Seen()
    async with running(app_of(bus, taking(seen), start_offsets=start_offsets)):
        await eventually(lambda: seen.total >= 25)
        committed = await bus.committed("features")
    assert asked == [{TP("ratings", p) for p in range(PARTITIONS)}]
    assert seen.values == {0: list(range(10, 30)), 2: list(range(25, 30))}
    assert committed[TopicPartition("ratings", 1)] == 30  # the lost commit is made good without a new record
    assert await bus.committed("features") == await ends(bus)


async def test_start_offsets_that_raise_stop_the_app_with_that_error(bus: Bus) -> None:
    await publish(bus, records=5)
    error, seen = StoreAheadOfLog("the store has applied 7, the log ends at 5"), Seen()

    async def start_offsets(assigned: set[TP]) -> Mapping[TP, int]:
        raise error

    app = app_of(bus, taking(seen), start_offsets=start_offsets)
    with pytest.raises(StoreAheadOfLog) as raised:
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
    assert raised.value is error
    assert app.fatal is error
    assert seen.total == 0
    async with running(app_of(bus, taking(seen))):  # the group is free again
        await eventually(lambda: seen.total == 5 * PARTITIONS)


# -- one member, kills


@pytest.mark.streamlens_bus("memory", "sqlite")  # on Kafka they share the partitions
async def test_a_second_app_of_a_group_is_refused_and_the_first_goes_on(bus: Bus) -> None:
    seen = Seen()
    async with running(app_of(bus, taking(seen))):
        with pytest.raises(GroupBusy):
            async with asyncio.timeout(DEADLINE_S):
                await app_of(bus, taking(Seen())).start()
        await publish(bus, records=10)
        await eventually(lambda: seen.total == 10 * PARTITIONS)
    assert seen.each_once_in_order(10)


KILLED = """
import asyncio, sys
from streams.app import BatchedApp
from streams.delivery import batched_topic
from streams.gather import gather_batches
from streams.ledger import Ledger

app = BatchedApp("features", broker=sys.argv[1], broker_commit_interval=0.01)

@app.agent(batched_topic(app, "ratings"))
async def features(stream):
    async for batches in gather_batches(stream, max_records=1):
        for batch in batches:
            print(batch.partition, batch.first_offset, batch.next_offset, flush=True)
        if batches[0].first_offset > 0:
            await asyncio.Event().wait()

asyncio.run(app.serve(asyncio.Event()))
"""


async def test_after_a_kill_the_next_app_goes_on_from_what_was_committed(tmp_path: Path) -> None:
    async with open_bus(f"sqlite:///{tmp_path}/bus.db") as bus, asyncio.timeout(DEADLINE_S):
        await bus.create_topics(TopicSpec("ratings", PARTITIONS))
        await publish(bus, records=10, partitions=[0])
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, bus.url, stdout=PIPE)
        try:
            assert worker.stdout is not None
            assert await worker.stdout.readline() == b"0 0 10\n"
            await eventually(lambda: has_committed(bus, {TopicPartition("ratings", 0): 10}))
            await publish(bus, records=10, partitions=[0])
            assert await worker.stdout.readline() == b"0 10 20\n"
        finally:
            worker.kill()
            await worker.wait()
        seen = Seen()
        async with running(app_of(bus, taking(seen))):
            await eventually(lambda: seen.total >= 10)
        assert seen.values == {0: list(range(10, 20))}


# -- back-pressure, pausing, stopping


async def test_a_slow_agent_bounds_what_is_fetched(bus: Bus) -> None:
    per_partition = 20 * MAX_BATCH_RECORDS
    await publish(bus, records=per_partition, each=MAX_BATCH_RECORDS)
    seen, go = Seen(), asyncio.Event()

    async def slow(batch: RecordBatch) -> None:
        await go.wait()
        seen.add(batch)

    maxsize = 4
    async with running(app_of(bus, slow, maxsize=maxsize)) as app:
        tps = app.consumer.assignment()

        async def fetched() -> int:
            return sum([await app.consumer.position(tp) or 0 for tp in tps])

        most = before = 0
        for _ in range(50):  # long enough for a fetcher that is not held back to read it all
            await asyncio.sleep(0.01)
            before, most = most, max(most, await fetched())
        assert 0 < before == most <= (maxsize + 2 * PARTITIONS) * MAX_BATCH_RECORDS
        go.set()
        await eventually(lambda: seen.total >= per_partition * PARTITIONS)
    assert seen.each_once_in_order(per_partition)


async def test_a_paused_partition_waits_and_goes_on_where_it_was(bus: Bus) -> None:
    seen, paused = Seen(), TP("ratings", 0)
    async with running(app_of(bus, taking(seen))) as app:
        app.consumer.pause_partitions([paused])
        await publish(bus, records=40)
        await eventually(lambda: seen.total >= 40 * (PARTITIONS - 1))
        assert 0 not in seen.values
        app.consumer.resume_partitions([paused])
        await eventually(lambda: seen.total >= 40 * PARTITIONS)
    assert seen.each_once_in_order(40)


async def test_pausing_in_the_middle_of_a_fetch_loses_nothing(bus: Bus) -> None:
    await publish(bus, records=15 * 1000, each=1000)
    seen, arrived = Seen(), asyncio.Event()
    app: BatchedApp

    async def pause_all(batch: RecordBatch) -> None:
        seen.add(batch)
        app.consumer.pause_partitions(app.consumer.assignment())
        arrived.set()

    app = app_of(bus, pause_all)
    async with running(app):
        while seen.total < 15_000 * PARTITIONS:
            await arrived.wait()
            arrived.clear()
            app.consumer.resume_partitions(app.consumer.assignment())
    assert seen.each_once_in_order(15_000)


async def test_stopping_the_flow_and_resuming_it_loses_and_repeats_nothing(bus: Bus) -> None:
    await publish(bus, records=15_000, each=1000)
    seen = Seen()
    async with running(app_of(bus, taking(seen), maxsize=2)) as app:
        for _ in range(5):
            app.consumer.stop_flow()
            await asyncio.sleep(0)
            app.consumer.resume_flow()
            await publish(bus, records=100)
        await eventually(lambda: seen.total >= 15_500 * PARTITIONS)
    assert seen.each_once_in_order(15_500)


async def test_a_flow_stopped_during_a_fetch_goes_on_where_it_was(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, fetching, sought = Seen(), asyncio.Event(), asyncio.Event()
    async with running(app_of(bus, taking(seen), broker_commit_interval=60.0)) as app:
        await publish(bus, records=50)
        await eventually(lambda: seen.total == 50 * PARTITIONS)
        getmany, perform_seek = app.consumer._getmany, app.consumer.perform_seek

        async def fetched(**options: Any) -> Any:
            fetching.set()
            return await getmany(**options)

        async def spied() -> None:
            await perform_seek()
            sought.set()

        monkeypatch.setattr(app.consumer, "_getmany", fetched)
        monkeypatch.setattr(app.consumer, "perform_seek", spied)
        await fetching.wait()
        app.consumer.stop_flow()
        await publish(bus, records=50)
        await sought.wait()  # Faust goes back to the committed offsets: the start, in this test
        app.consumer.resume_flow()
        await eventually(lambda: seen.total >= 100 * PARTITIONS)
    assert seen.each_once_in_order(100)


async def test_stopping_finishes_the_batch_at_hand_commits_it_and_returns(bus: Bus) -> None:
    await publish(bus, records=10, partitions=[0])
    seen, begun, go = Seen(), asyncio.Event(), asyncio.Event()

    async def slow(batch: RecordBatch) -> None:
        begun.set()
        await go.wait()
        seen.add(batch)

    app, stopping = app_of(bus, slow), asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        serving = asyncio.create_task(app.serve(stopping))
        await begun.wait()
        await publish(bus, records=10, partitions=[0])
        stopping.set()
        await eventually(lambda: app.should_stop)
        assert not serving.done()
        go.set()
        await serving
    assert seen.values[0] == list(range(10))
    assert await bus.committed("features") == {TopicPartition("ratings", 0): 10}


async def test_stopping_does_not_wait_for_ever_for_an_agent(bus: Bus) -> None:
    await publish(bus, records=10, partitions=[0])
    begun = asyncio.Event()

    async def stuck(batch: RecordBatch) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(app_of(bus, stuck, drain_timeout_s=0.05)):
        await begun.wait()
    assert await bus.committed("features") == {}


async def test_a_cancelled_app_stops_all_the_same(bus: Bus) -> None:
    await publish(bus, records=10, partitions=[0])
    before, begun = asyncio.all_tasks(), asyncio.Event()

    async def stuck(batch: RecordBatch) -> None:
        begun.set()
        await asyncio.Event().wait()

    app = app_of(bus, stuck, drain_timeout_s=3600)
    async with asyncio.timeout(DEADLINE_S):
        serving = asyncio.create_task(app.serve(asyncio.Event()))
        await begun.wait()
        serving.cancel()  # asyncio.run does this on Ctrl-C
        await eventually(lambda: app.should_stop)
        serving.cancel()  # the second Ctrl-C
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert asyncio.all_tasks() == before
    assert await bus.committed("features") == {}


# -- over a driver that fetches record by record, as aiokafka does


class _Driver(base.Consumer):
    """Fetches what a test puts into ``script``."""

    script: list[dict[TP, list[SimpleNamespace]]]
    sought: list[tuple[TP, int]]

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, Any]:
        return self.script.pop(0)

    async def _seek(self, partition: TP, offset: int) -> None:
        self.sought.append((partition, offset))

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("not part of this test")

    _commit = seek_to_committed = _new_topicpartition = _to_message = _unused
    subscribe = assignment = position = seek_wait = highwater = topic_partitions = _unused
    earliest_offsets = highwaters = key_partition = create_topic = _unused


class _ScriptedConsumer(BatchedDelivery, _Driver):
    pass


TP0 = TP("ratings", 0)


def _scripted(*fetches: list[int]) -> tuple[_ScriptedConsumer, list[Message]]:
    app = BatchedApp("features", broker="memory://")
    app.topics.acking_topics.add(batched_topic(app, "ratings").get_topic_name())
    delivered: list[Message] = []

    async def on_message(message: Message) -> None:
        message.incref()
        delivered.append(message)

    async def ignore(tps: set[TP], generation_id: int = 0) -> None: ...

    consumer = _ScriptedConsumer(app.transport, on_message, on_partitions_revoked=ignore, on_partitions_assigned=ignore)
    consumer.script = [
        {TP0: [SimpleNamespace(offset=o, timestamp=o * 1000, key=None, value=b"%d" % o) for o in offsets]}
        for offsets in fetches
    ]
    consumer.sought = []
    return consumer, delivered


async def _fetch(consumer: _ScriptedConsumer) -> None:
    for tp, batches in (await consumer._getmany(None, 1.0)).items():
        for batch in batches:
            await consumer.callback(consumer._to_message(tp, batch))


async def test_offsets_with_gaps_are_committed_past_the_last_one() -> None:
    consumer, delivered = _scripted([0, 1, 5, 9], [20, 22])
    await _fetch(consumer)
    await _fetch(consumer)
    first, second = delivered
    batch: Any = first.value
    assert (batch.offsets.tolist(), batch.values, batch.next_offset) == ([0, 1, 5, 9], [b"0", b"1", b"5", b"9"], 10)
    second.ack(consumer)
    assert consumer._new_offset(TP0) is None
    first.ack(consumer)
    assert consumer._new_offset(TP0) == 23


async def test_a_long_fetch_is_cut_into_batches() -> None:
    consumer, delivered = _scripted(list(range(2 * MAX_BATCH_RECORDS + 1)))
    await _fetch(consumer)
    assert [len(m.value) for m in delivered] == [MAX_BATCH_RECORDS, MAX_BATCH_RECORDS, 1]  # type: ignore[arg-type]


async def test_a_seek_forgets_what_was_delivered_and_a_late_ack_of_it_counts_for_nothing() -> None:
    consumer, delivered = _scripted([0, 1], [2, 3], [0, 1, 2, 3])
    await _fetch(consumer)
    await _fetch(consumer)
    delivered[1].ack(consumer)
    await consumer.seek(TP0, 0)
    assert consumer._new_offset(TP0) is None
    await _fetch(consumer)
    delivered[0].ack(consumer)
    assert consumer._new_offset(TP0) is None
    delivered[2].ack(consumer)
    assert consumer._new_offset(TP0) == 4


async def test_a_revocation_forgets_what_was_delivered() -> None:
    consumer, delivered = _scripted([0, 1], [0, 1])
    consumer._commit_offsets = consumer._handle_attached = _nothing  # type: ignore[method-assign,assignment]
    await _fetch(consumer)
    consumer.app.on_rebalance_start()
    await consumer.on_partitions_revoked({TP0})
    await _fetch(consumer)
    delivered[0].ack(consumer)
    assert consumer._new_offset(TP0) is None
    delivered[1].ack(consumer)
    assert consumer._new_offset(TP0) == 2


async def test_what_was_fetched_and_not_delivered_is_fetched_again() -> None:
    consumer, delivered = _scripted([0, 1], [2, 3], [2, 3])
    await _fetch(consumer)
    await consumer._getmany(None, 1.0)  # Faust drops what it fetched of a partition that was paused meanwhile
    await _fetch(consumer)
    assert consumer.sought == [(TP0, 2)]
    assert [m.value.first_offset for m in delivered] == [0, 2]  # type: ignore[union-attr]


async def test_a_delivery_that_a_seek_overtook_does_not_make_faust_drop_what_follows() -> None:
    consumer, delivered = _scripted([0, 1], [2, 3], [0, 1])
    await _fetch(consumer)
    await _fetch(consumer)
    await consumer.seek(TP0, 0)
    consumer._read_offset[TP0] = 3  # Faust, when the delivery of offset 3 returns: "all up to here is read"
    await _fetch(consumer)
    assert delivered[-1].offset >= (consumer._read_offset[TP0] or 0)


async def test_a_delivery_that_is_cancelled_before_an_agent_has_it_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer, delivered = _scripted([0, 1], [0, 1])

    async def cancelled(message: Message) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_on_message", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await _fetch(consumer)
    await _fetch(consumer)
    assert consumer.sought == [(TP0, 0)]
    delivered[0].ack(consumer)
    assert consumer._new_offset(TP0) == 2


async def test_a_seek_during_a_fetch_drops_what_it_brings() -> None:
    consumer, delivered = _scripted([0, 1], [2, 3], [0, 1, 2, 3])
    await _fetch(consumer)
    late = await consumer._getmany(None, 1.0)
    await consumer.seek(TP0, 0)
    for batch in late[TP0]:
        await consumer.callback(consumer._to_message(TP0, batch))
    await _fetch(consumer)
    assert [m.value.first_offset for m in delivered] == [0, 0]  # type: ignore[union-attr]
    assert consumer.sought[-1] == (TP0, 0)


async def _nothing(*args: Any, **kwargs: Any) -> bool:
    return True

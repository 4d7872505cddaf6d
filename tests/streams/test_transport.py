"""Faust on the embedded bus as stock Faust users know it: one event per record, sends, topics, errors at start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.types import TP

from streams.app import BatchedApp
from streams.bus import Bus, TopicSpec, open_bus
from streams.delivery import batched_topic
from streams.errors import BusUnavailable, ConfigError, StreamLensError, UnknownTopic
from streams.gather import gather_batches
from streams.murmur2 import partition_for
from streams.records import TopicPartition
from streams.shared_bus import SharedBus
from streams.testing import eventually

pytestmark = pytest.mark.streamlens_bus("memory", "sqlite", pytest.param("kafka", marks=pytest.mark.broker))

DEADLINE_S = 20


@pytest.fixture
async def bus(streamlens_bus_url: str, tmp_path: Path) -> AsyncIterator[Bus]:
    """A bus whose URL has what Faust's handling of URLs might change: capitals, a space."""
    url = streamlens_bus_url.replace("memory://", "memory://Bus-").replace("/bus.db", "/run 1/bus.db")
    (tmp_path / "run 1").mkdir()
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec("control", 3))
        yield bus


@asynccontextmanager
async def running(app: faust.App) -> AsyncIterator[None]:
    async with asyncio.timeout(DEADLINE_S):
        await app.start()
        try:
            yield
        finally:
            await app.stop()


def recording(app: faust.App, topic: Any) -> list[Any]:
    """An agent's events, in order."""
    events: list[Any] = []

    @app.agent(topic)
    async def record(stream: Any) -> None:
        async for event in stream.events():
            events.append(event)  # noqa: PERF401

    return events


async def test_stock_topics_deliver_one_event_per_record_and_commit(bus: Bus) -> None:
    app = BatchedApp("loop", broker=bus.url)
    events = recording(app, app.topic("control", key_type=str))
    async with bus.producer() as producer:
        for n in range(20):
            await producer.send(
                "control", b'{"n":%d}' % n, key=b"run" if n % 2 else None, partition=n % 3, timestamp_ms=n * 1000
            )
        await producer.flush()
    async with running(app):
        await eventually(lambda: len(events) == 20)
    assert {p: [e.value["n"] for e in events if e.message.partition == p] for p in range(3)} == {
        p: list(range(p, 20, 3)) for p in range(3)
    }
    seventh = next(e for e in events if e.value["n"] == 7)
    assert (seventh.key, seventh.message.offset, seventh.message.timestamp) == ("run", 2, 7.0)
    assert await bus.committed("loop") == {tp: r.end for tp, r in (await bus.offsets("control")).items()}


async def test_stock_topics_beside_batched_ones(bus: Bus) -> None:
    await bus.create_topics(TopicSpec("ratings", 2))
    app = BatchedApp("loop", broker=bus.url)
    events = recording(app, app.topic("control", value_serializer="raw"))
    batches: list[bytes] = []

    @app.agent(batched_topic(app, "ratings"))
    async def take(stream: Any) -> None:
        async for taken in gather_batches(stream):
            batches.extend(value for batch in taken for value in batch.values)

    async with running(app), bus.producer() as producer:
        for n in range(30):
            await producer.send("control", b"c%d" % n, partition=0)
            await producer.send("ratings", b"r%d" % n, partition=1)
        await eventually(lambda: len(events) == 30 and len(batches) == 30)
    assert [e.value for e in events] == [b"c%d" % n for n in range(30)]
    assert batches == [b"r%d" % n for n in range(30)]
    assert await bus.committed("loop") == {TopicPartition("control", 0): 30, TopicPartition("ratings", 1): 30}


async def test_a_restarted_app_goes_on_after_what_it_committed(bus: Bus) -> None:
    values: list[Any] = []
    for first in (0, 5):
        async with bus.producer() as producer:
            for n in range(first, first + 5):
                await producer.send("control", b"%d" % n, partition=1)
            await producer.flush()
        app = BatchedApp("loop", broker=bus.url)
        events = recording(app, app.topic("control"))
        async with running(app):
            await eventually(lambda events=events: len(events) == 5)  # type: ignore[misc]
        values += [e.value for e in events]
    assert values == list(range(10))


async def test_a_new_group_may_start_at_the_end(bus: Bus) -> None:
    app = BatchedApp("pages", broker=bus.url, consumer_auto_offset_reset="latest")
    events = recording(app, app.topic("control", value_serializer="raw"))
    async with bus.producer() as producer:
        await (await producer.send("control", b"before", partition=0))
        async with running(app):
            await producer.send("control", b"after", partition=0)
            await eventually(lambda: len(events) > 0)
    assert [e.value for e in events] == [b"after"]


async def test_a_send_tells_where_the_record_went_and_keys_choose_partitions_as_kafka_does(bus: Bus) -> None:
    app = BatchedApp("loop", broker=bus.url)
    topic = app.topic("control", value_serializer="raw")
    events = recording(app, topic)
    async with running(app):
        sent = await topic.send(key=b"user 7", value=b"one", timestamp=12.5)
        where: Any = await sent
        pinned: Any = await app.producer.send_and_wait("control", None, b"two", 2, None, None)
        key_partition = app.producer.key_partition("control", b"user 7")
        await eventually(lambda: len(events) == 2)
    expected = TP("control", partition_for(b"user 7", 3))
    assert (where.topic_partition, where.offset) == (expected, 0)
    assert key_partition == expected
    assert pinned.topic_partition == TP("control", 2)
    assert {(e.value, e.message.partition) for e in events} == {(b"one", expected.partition), (b"two", 2)}
    assert next(e for e in events if e.value == b"one").message.timestamp == 12.5


async def test_what_an_agent_sends_is_published_before_the_app_has_stopped(bus: Bus) -> None:
    await bus.create_topics(TopicSpec("alerts", 1))
    app = BatchedApp("loop", broker=bus.url, producer_linger=0.05)
    alerts = app.topic("alerts", value_serializer="raw")
    sent = asyncio.Event()

    @app.agent(app.topic("control", value_serializer="raw"))
    async def alert(stream: Any) -> None:
        async for value in stream:
            await alerts.send(value=value)
            sent.set()

    async with running(app), bus.producer() as producer:
        await producer.send("control", b"drift", partition=0)
        await sent.wait()
    offsets = await bus.offsets("alerts")
    assert offsets[TopicPartition("alerts", 0)].end == 1


async def test_offsets_are_committed_only_after_what_was_sent_is_durable(bus: Bus) -> None:
    await bus.create_topics(TopicSpec("alerts", 1))
    app = BatchedApp("loop", broker=bus.url, producer_linger=3.0, broker_commit_interval=60.0)
    alerts = app.topic("alerts", value_serializer="raw")
    done = asyncio.Event()

    @app.agent(app.topic("control", value_serializer="raw"))
    async def alert(stream: Any) -> None:
        async for event in stream.noack().events():
            await alerts.send(value=event.value)
            await stream.ack(event)
            done.set()

    async with running(app), bus.producer() as producer:
        await producer.send("control", b"drift", partition=0)
        await done.wait()
        await app.consumer.commit()
        assert await bus.committed("loop") == {TopicPartition("control", 0): 1}
        assert (await bus.offsets("alerts"))[TopicPartition("alerts", 0)].end == 1


async def test_a_send_that_fails_says_so(bus: Bus) -> None:
    app = BatchedApp("loop", broker=bus.url)
    recording(app, app.topic("control"))
    async with running(app):
        with pytest.raises(UnknownTopic, match="nowhere"):
            await app.producer.send_and_wait("nowhere", None, b"x", None, None, None)
        with pytest.raises(UnknownTopic, match="nowhere"):
            app.producer.key_partition("nowhere", b"key")


async def test_declaring_a_topic_creates_it_once_and_leaves_an_existing_one_alone(bus: Bus) -> None:
    app = BatchedApp("loop", broker=bus.url)
    recording(app, app.topic("control"))
    async with running(app):
        await app.topic("alerts", partitions=2, retention=60.0).declare()
        await app.topic("control", partitions=8).declare()
        assert app.consumer.topic_partitions("alerts") == 2
    topics = await bus.topics()
    assert (topics["alerts"].partitions, topics["alerts"].retention_ms) == (2, 60_000)
    assert topics["control"].partitions == 3


async def test_offsets_and_positions_are_the_logs(bus: Bus) -> None:
    async with bus.producer() as producer:
        for n in range(4):
            await producer.send("control", b"%d" % n, partition=1)
        await producer.flush()
    app = BatchedApp("loop", broker=bus.url)
    events = recording(app, app.topic("control"))
    tp = TP("control", 1)
    async with running(app):
        await eventually(lambda: len(events) == 4)
        consumer = app.consumer
        assert consumer.assignment() == {TP("control", p) for p in range(3)}
        assert await consumer.earliest_offsets(tp) == {tp: 0}
        assert await consumer.highwaters(tp) == {tp: 4}
        assert consumer.highwater(tp) == 4
        assert await consumer.position(tp) == 4
        await consumer.seek(tp, 2)
        await eventually(lambda: len(events) == 6)
    assert [e.value for e in events] == [0, 1, 2, 3, 2, 3]


async def test_an_unknown_topic_is_reported_at_start(bus: Bus) -> None:
    app = BatchedApp("loop", broker=bus.url)
    recording(app, app.topic("no-such-topic"))
    with pytest.raises(UnknownTopic, match="no-such-topic"):
        async with asyncio.timeout(DEADLINE_S):
            await app.start()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and "faust" in repr(task)]


async def test_a_bus_that_cannot_be_opened_is_reported_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    app = BatchedApp("loop", broker=f"sqlite:///{tmp_path}/file/bus.db")
    recording(app, app.topic("control"))
    with pytest.raises(StreamLensError, match="file"):
        async with asyncio.timeout(DEADLINE_S):
            await app.start()


@pytest.mark.streamlens_bus("memory", "sqlite")  # what is left of them would be a thread
async def test_a_bus_that_fails_while_it_is_opened_is_closed_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, before = SharedBus(bus.url), set(threading.enumerate())

    async def broken() -> None:
        assert set(threading.enumerate()) > before  # its appender
        raise BusUnavailable("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(shared, "refresh", broken)
        with pytest.raises(BusUnavailable):
            await shared.open()
    assert not {t for t in set(threading.enumerate()) - before if t.name == "bus-append"}
    await shared.open()  # and it may be tried again
    await shared.close()


async def test_tables_are_refused(bus: Bus) -> None:
    app = BatchedApp("loop", broker=bus.url)
    app.Table("counts", default=int)
    recording(app, app.topic("control"))
    with pytest.raises(ConfigError, match="counts"):
        async with asyncio.timeout(DEADLINE_S):
            await app.start()


async def test_a_bus_that_breaks_while_reading_stops_the_app_with_its_error(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = BusUnavailable("the disk is gone")
    app = BatchedApp("loop", broker=bus.url)
    events = recording(app, app.topic("control"))

    async def broken(**_: Any) -> Any:
        raise error

    serving = asyncio.create_task(app.serve(asyncio.Event()))
    async with bus.producer() as producer:
        await producer.send("control", b"1", partition=0)
        await eventually(lambda: len(events) == 1)
        monkeypatch.setattr(app.consumer, "_getmany", broken)
        with pytest.raises(BusUnavailable) as raised:
            async with asyncio.timeout(DEADLINE_S):
                await serving
    assert raised.value is error


@pytest.mark.parametrize("url", ["memory://plain", "sqlite:///{}/bus.db"])  # in lower case, as Faust makes them
async def test_a_plain_faust_app_runs_on_the_bus_too(url: str, tmp_path: Path) -> None:
    url = url.format(tmp_path)
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec("control", 3))
        app = faust.App(
            "plain", broker=url, web_enabled=False, store="memory://", topic_disable_leader=True, datadir=str(tmp_path)
        )
        events = recording(app, app.topic("control", value_serializer="raw"))
        async with bus.producer() as producer:
            await producer.send("control", b"hello", partition=2)
            async with running(app):
                await eventually(lambda: len(events) == 1)
        assert await bus.committed("plain") == {TopicPartition("control", 2): 1}

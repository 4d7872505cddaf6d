"""What every bus does, whatever it runs on. Nothing here knows which one it is: a new bus must pass unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streams.bus import Bus, Consumer, OffsetRange, TopicSpec, open_bus
from streams.errors import BusError, OffsetOutOfRange, PartitionMismatch, UnknownTopic
from streams.murmur2 import partition_for
from streams.records import RecordBatch, TopicPartition

pytestmark = pytest.mark.streamlens_bus("memory", "sqlite", pytest.param("kafka", marks=pytest.mark.broker))

T0 = TopicPartition("ratings", 0)
T1 = TopicPartition("ratings", 1)


@pytest.fixture
async def bus(streamlens_bus_url: str) -> AsyncIterator[Bus]:
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
        yield bus


async def publish(bus: Bus, values: list[bytes], partition: int = 0, **options: int) -> None:
    async with bus.producer() as producer:
        for value in values:
            await producer.send("ratings", value, partition=partition, **options)
        await producer.flush()


async def drain(consumer: Consumer, count: int, **options: int) -> list[RecordBatch]:
    """Batches until ``count`` records came; fails after ten seconds."""
    batches: list[RecordBatch] = []
    async with asyncio.timeout(10):
        while sum(map(len, batches)) < count:
            batches += await consumer.fetch(timeout_s=0.5, **options)  # type: ignore[arg-type]
    return batches


async def read_into(batches: list[RecordBatch], consumer: Consumer) -> None:
    """Fetch until a fetch raises."""
    while True:
        batches += await consumer.fetch(timeout_s=5)


def values_of(batches: list[RecordBatch], tp: TopicPartition = T0) -> list[bytes]:
    return [value for batch in batches if batch.tp == tp for value in batch.values]


async def test_records_come_back_whole_in_order_with_their_offsets(bus: Bus) -> None:
    sent = [b"a", b"", b"two\nlines", b"\xff\x00", b"z" * 100_000]
    async with bus.producer() as producer:
        acks = [
            await producer.send("ratings", v, key=b"k\n%d" % i, partition=0, timestamp_ms=1_000 + i)
            for i, v in enumerate(sent)
        ]
        assert [(await ack).offset for ack in acks] == [0, 1, 2, 3, 4]
    async with await bus.consumer("ratings") as consumer:
        batch = RecordBatch.concat(await drain(consumer, 5))
    assert batch.values == sent
    assert batch.keys == [b"k\n%d" % i for i in range(5)]
    assert batch.timestamps_ms.tolist() == [1_000, 1_001, 1_002, 1_003, 1_004]
    assert batch.offsets.tolist() == [0, 1, 2, 3, 4]
    assert batch.next_offset == 5


async def test_a_batch_of_lines_is_as_good_as_single_sends(bus: Bus) -> None:
    async with bus.producer() as producer:
        ack = await producer.send_batch("ratings", 1, b"x\ny\nz", count=3, keys=b"1\n\n3", timestamp_ms=7)
        assert (await ack).offset == 0
        with pytest.raises(ValueError, match="expected 2 lines, found 3"):
            await producer.send_batch("ratings", 1, b"x\ny\nz", count=2)
    async with await bus.consumer("ratings") as consumer:
        batch = RecordBatch.concat(await drain(consumer, 3))
    assert (batch.tp, batch.values, batch.keys) == (T1, [b"x", b"y", b"z"], [b"1", None, b"3"])


async def test_keys_choose_partitions_as_every_kafka_client_does(bus: Bus) -> None:
    async with bus.producer() as producer:
        for user in range(50):
            where = await (await producer.send("ratings", b"v", key=b"%d" % user))
            assert where.partition == partition_for(b"%d" % user, 2)


async def test_topics_are_made_once_and_keep_their_partition_count(bus: Bus) -> None:
    before = await bus.topics()
    await bus.create_topics(TopicSpec("ratings", 2), TopicSpec("metrics", 1, retention_ms=1_000))
    after = await bus.topics()
    assert after["ratings"] == before["ratings"]
    assert after["metrics"].log_id != after["ratings"].log_id
    with pytest.raises(PartitionMismatch, match="2"):
        await bus.create_topics(TopicSpec("ratings", 8))


async def test_unknown_topics_are_refused(bus: Bus) -> None:
    with pytest.raises(UnknownTopic):
        await bus.consumer("nothing")
    with pytest.raises(UnknownTopic):
        await bus.offsets("nothing")
    async with bus.producer() as producer:
        with pytest.raises(UnknownTopic):
            await producer.send("nothing", b"v", key=b"k")


async def test_fetch_takes_no_more_than_asked_and_goes_on_in_the_middle(bus: Bus) -> None:
    await publish(bus, [b"%d" % i for i in range(25)])
    async with await bus.consumer("ratings") as consumer:
        batches = await drain(consumer, 25, max_records=10)
        assert [len(batch) for batch in batches] == [10, 10, 5]
        assert values_of(batches) == [b"%d" % i for i in range(25)]
        consumer.seek(T0, 13)
        assert values_of(await drain(consumer, 5, max_records=5)) == [b"13", b"14", b"15", b"16", b"17"]
        assert consumer.position(T0) == 18


async def test_no_partition_starves(bus: Bus) -> None:
    await publish(bus, [b"a"] * 30, partition=0)
    await publish(bus, [b"b"] * 30, partition=1)
    async with await bus.consumer("ratings") as consumer:
        seen = await drain(consumer, 20, max_records=10)
        assert {batch.tp for batch in seen} == {T0, T1}


async def test_seeking_outside_the_log_is_an_error_at_the_fetch(bus: Bus) -> None:
    await publish(bus, [b"a"])
    async with await bus.consumer("ratings") as consumer:
        consumer.seek(T0, 5)
        with pytest.raises(OffsetOutOfRange):
            await consumer.fetch(timeout_s=5)
        await consumer.seek_to_end(T0)
        assert consumer.position(T0) == 1
        await consumer.seek_to_beginning(T0)
        assert values_of(await drain(consumer, 1)) == [b"a"]


async def test_an_error_of_one_partition_loses_nothing_of_the_others(bus: Bus) -> None:
    await publish(bus, [b"a", b"b"], partition=0)
    await publish(bus, [b"c"], partition=1)
    async with await bus.consumer("ratings") as consumer:
        for _ in range(2):  # whichever partition has its turn first
            await consumer.seek_to_beginning()
            seen: list[RecordBatch] = []
            consumer.seek(T1, 5)
            with pytest.raises(OffsetOutOfRange):  # at once, or after what there is of the other partition
                await read_into(seen, consumer)
            consumer.seek(T1, 0)
            seen += await drain(consumer, 3 - sum(map(len, seen)))
            assert (values_of(seen), values_of(seen, T1)) == ([b"a", b"b"], [b"c"])


async def test_a_paused_partition_waits_and_a_limited_fetch_leaves_the_others(bus: Bus) -> None:
    await publish(bus, [b"a"], partition=0)
    await publish(bus, [b"b"], partition=1)
    async with await bus.consumer("ratings") as consumer:
        consumer.pause(T0)
        assert {b.tp for b in await drain(consumer, 1)} == {T1}
        assert await consumer.fetch(timeout_s=0.05) == []
        consumer.resume(T0)
        assert {b.tp for b in await drain(consumer, 1)} == {T0}
        await publish(bus, [b"c"], partition=0)
        assert await consumer.fetch(timeout_s=0.05, partitions=[T1]) == []


async def test_a_waiting_consumer_gets_what_is_published_later(bus: Bus) -> None:
    async with await bus.consumer("ratings") as consumer:
        waiting = asyncio.create_task(drain(consumer, 1))
        await asyncio.sleep(0)
        await publish(bus, [b"late"])
        assert values_of(await waiting) == [b"late"]


async def test_a_group_goes_on_where_it_committed(bus: Bus) -> None:
    await publish(bus, [b"a", b"b", b"c"])
    async with await bus.consumer("ratings", group="g") as consumer:
        await drain(consumer, 3)
        await consumer.commit({T0: 2})
    assert (await bus.committed("g"))[T0] == 2
    assert "g" in await bus.groups()
    async with await bus.consumer("ratings", group="g") as consumer:
        assert values_of(await drain(consumer, 1)) == [b"c"]
        await consumer.commit()
    assert (await bus.committed("g"))[T0] == 3


async def test_only_members_of_a_group_commit_and_only_what_exists(bus: Bus) -> None:
    async with await bus.consumer("ratings") as consumer:
        with pytest.raises(BusError):
            await consumer.commit()
    async with await bus.consumer("ratings", group="g") as consumer:
        with pytest.raises(BusError):
            await consumer.commit({T0: 99})


async def test_retention_drops_old_batches_keeps_offsets_and_spares_topics_without_it(bus: Bus) -> None:
    await bus.create_topics(TopicSpec("metrics", 1, retention_ms=1_000))
    async with bus.producer() as producer:
        for topic in ("metrics", "ratings"):
            await (await producer.send(topic, b"old", partition=0, timestamp_ms=1_000))
            await (await producer.send(topic, b"new", partition=0, timestamp_ms=9_000))
    assert await bus.enforce_retention(now_ms=9_500) == 1
    assert (await bus.offsets("metrics"))[TopicPartition("metrics", 0)] == OffsetRange(1, 2)
    assert (await bus.offsets("ratings"))[T0] == OffsetRange(0, 2)
    assert await bus.enforce_retention(now_ms=99_000) == 1
    assert (await bus.offsets("metrics"))[TopicPartition("metrics", 0)] == OffsetRange(2, 2)
    async with bus.producer() as producer:
        assert (await (await producer.send("metrics", b"next", partition=0))).offset == 2


async def test_back_pressure_bounds_what_is_pending(bus: Bus) -> None:
    """Sends of more than the limit wait for room, and all arrive in order."""
    async with bus.producer(max_pending_bytes=1_000) as producer:
        acks = []
        for i in range(200):
            acks.append(await producer.send("ratings", b"%0100d" % i, partition=0))
            assert sum(not ack.done() for ack in acks) * 100 <= 1_000
        await producer.flush()
    async with await bus.consumer("ratings") as consumer:
        assert values_of(await drain(consumer, 200)) == [b"%0100d" % i for i in range(200)]

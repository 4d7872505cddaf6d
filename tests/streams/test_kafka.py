"""The Kafka bus beside the contract: foreign clients, transactions, recreated topics, logins, outages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from agents.worker import FeatureWorker, WorkerOptions
from streams.bus import Bus, Consumer, TopicSpec, open_bus
from streams.errors import BusDenied, BusError, BusUnavailable, UnknownTopic
from streams.kafka import KafkaBus
from streams.kafka_cluster import PATIENCE_S
from streams.kafka_consumer import Membership
from streams.kafka_producer import KafkaProducer
from streams.kafka_settings import KafkaSettings, use_kafka_settings
from streams.murmur2 import partition_for
from streams.records import RecordBatch, TopicPartition
from tests.local_kafka import LocalKafka, free_ports, guarded

pytestmark = [pytest.mark.broker, pytest.mark.streamlens_bus("kafka")]

T0 = TopicPartition("ratings", 0)
T1 = TopicPartition("ratings", 1)


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    yield
    use_kafka_settings(None)


@pytest.fixture
async def bus(streamlens_bus_url: str) -> AsyncIterator[KafkaBus]:
    async with KafkaBus(streamlens_bus_url) as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
        yield bus


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    kafka = LocalKafka(tmp_path / "kafka")
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.remove()


async def drain(consumer: Consumer, count: int, limit_s: float = 20) -> list[RecordBatch]:
    batches: list[RecordBatch] = []
    async with asyncio.timeout(limit_s):
        while sum(map(len, batches)) < count:
            batches += await consumer.fetch(timeout_s=0.5)
    return batches


def values_of(batches: list[RecordBatch], tp: TopicPartition = T0) -> list[bytes]:
    return [value for batch in batches if batch.tp == tp for value in batch.values]


async def test_a_member_reads_nothing_of_a_partition_before_it_was_told_where_to_start(bus: KafkaBus) -> None:
    """Not even where the group has committed: whoever has a store of its own begins where that is."""

    async def revoked(_: set[TopicPartition]) -> None: ...
    async def assigned(_: set[TopicPartition], generation: int) -> None: ...

    async with bus.producer() as producer:
        await producer.send_batch("ratings", 0, b"a\nb\nc", count=3)
        await producer.flush()
    async with await bus.consumer("ratings", group="g") as before:
        await before.commit({T0: 1})
    membership = Membership(starting=lambda: None, revoked=revoked, assigned=assigned)
    async with await bus.member("ratings", group="g", membership=membership) as member:
        await member.admitted()
        assert await member.fetch(timeout_s=1.0) == []
        member.seek(T0, 2)
        assert values_of(await drain(member, 1)) == [b"c"]


# -- other clients


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_foreign_client_reads_what_is_published_here(streamlens_broker: str, bus: KafkaBus, compression: str) -> None:
    """Synchronous, as librdkafka is; the bus works in a loop of its own."""
    use_kafka_settings(KafkaSettings(compression=compression))
    long = b"a" * 1_000  # worth compressing
    wire = bus.address.wire("ratings")

    async def publish() -> None:
        async with open_bus(bus.url) as own, own.producer() as producer:
            await producer.send_batch("ratings", 0, long + b"\nb", count=2, keys=b"1\n", timestamp_ms=1_234)
            await producer.send("ratings", b"two\nlines", key=b"k\n", partition=0, timestamp_ms=5_678)
            await producer.flush()

    asyncio.run(publish())
    reader = confluent_kafka.Consumer({"bootstrap.servers": streamlens_broker, "group.id": wire})
    reader.assign([confluent_kafka.TopicPartition(wire, 0, 0)])
    found = reader.consume(3, timeout=20)
    reader.close()
    assert [(m.key(), m.value(), m.timestamp()[1], m.offset()) for m in found] == [
        (b"1", long, 1_234, 0),
        (None, b"b", 1_234, 1),
        (b"k\n", b"two\nlines", 5_678, 2),
    ]


async def test_a_foreign_clients_records_are_read_and_its_partitioner_agrees(
    streamlens_broker: str, bus: KafkaBus
) -> None:
    writer = confluent_kafka.Producer(
        {"bootstrap.servers": streamlens_broker, "partitioner": "murmur2_random", "compression.type": "lz4"}
    )
    for user in range(20):
        writer.produce(bus.address.wire("ratings"), b"v%d" % user, key=b"%d" % user, timestamp=user + 1)
    assert writer.flush(20) == 0
    async with await bus.consumer("ratings") as consumer:
        batches = await drain(consumer, 20)
    for batch in batches:
        assert {partition_for(key or b"", 2) for key in batch.keys} == {batch.partition}
    read = {(k, v, t) for b in batches for k, v, t in zip(b.keys, b.values, b.timestamps_ms.tolist(), strict=True)}
    assert read == {(b"%d" % user, b"v%d" % user, user + 1) for user in range(20)}


async def test_what_a_transaction_aborts_is_never_seen_and_its_markers_are_gaps(
    streamlens_broker: str, bus: KafkaBus
) -> None:
    wire = bus.address.wire("ratings")
    writer = confluent_kafka.Producer({"bootstrap.servers": streamlens_broker, "transactional.id": wire})
    writer.init_transactions(20)
    for values, ends in ((b"ab", "commit"), (b"xy", "abort"), (b"c", "commit")):
        writer.begin_transaction()
        for value in values:
            writer.produce(wire, bytes([value]), partition=0)
        writer.flush(20)
        writer.commit_transaction(20) if ends == "commit" else writer.abort_transaction(20)
    end = (await bus.offsets("ratings"))[T0].end
    assert end == 8  # five records, three markers
    async with await bus.consumer("ratings") as consumer:
        batch = RecordBatch.concat(await drain(consumer, 3))
        assert batch.values == [b"a", b"b", b"c"]
        assert batch.offsets.tolist() == [0, 1, 6]
        assert batch.next_offset in (7, end)  # behind its last record, or behind the marker after it
        await consumer.fetch(timeout_s=0.2)
        assert consumer.position(T0) == end
        consumer.seek(T0, 2)
        assert values_of(await drain(consumer, 1)) == [b"c"]


# -- topics


async def test_a_topic_made_anew_has_another_log_id(streamlens_broker: str, bus: KafkaBus) -> None:
    before = (await bus.topics())["ratings"]
    admin = AdminClient({"bootstrap.servers": streamlens_broker})
    for deleted in admin.delete_topics([bus.address.wire("ratings")]).values():
        deleted.result(20)
    async with asyncio.timeout(20):
        while "ratings" in await bus.topics():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await bus.create_topics(TopicSpec("ratings", 2))
    after = (await bus.topics())["ratings"]
    assert after.partitions == before.partitions
    assert after.log_id != before.log_id


async def test_reading_and_asking_never_make_a_topic(bus: KafkaBus) -> None:
    async with bus.producer() as producer:
        with pytest.raises(UnknownTopic):
            await producer.send("nothing", b"v", partition=0)
    with pytest.raises(UnknownTopic):
        await bus.consumer("nothing")
    assert set(await bus.topics()) == {"ratings"}


async def test_a_prefix_hides_what_belongs_to_others(streamlens_broker: str, bus: KafkaBus) -> None:
    async with open_bus(f"{bus.url}-other") as other:
        await other.create_topics(TopicSpec("ratings", 3))
        async with other.producer() as producer:
            await (await producer.send("ratings", b"theirs", partition=0))
        async with await other.consumer("ratings", group="g") as consumer:
            await consumer.commit({T0: 1})
        assert await bus.groups() == []
        assert (await bus.topics())["ratings"].partitions == 2
        assert await other.groups() == ["g"]
    async with await bus.consumer("ratings") as consumer:
        assert await consumer.fetch(timeout_s=0.2) == []


async def test_retention_spares_the_topics_of_others(streamlens_broker: str, bus: KafkaBus) -> None:
    async with open_bus(f"kafka://{streamlens_broker}") as theirs, bus.producer() as producer:
        await bus.create_topics(TopicSpec("metrics", 1, retention_ms=1_000))
        await (await producer.send("metrics", b"old", partition=0, timestamp_ms=1_000))
        assert await theirs.enforce_retention(now_ms=99_000) == 0
        assert await bus.enforce_retention(now_ms=99_000) == 1


# -- publishing


@pytest.mark.parametrize("compression", ["none", "lz4"])
async def test_large_sends_and_large_records_arrive_whole(streamlens_bus_url: str, compression: str) -> None:
    use_kafka_settings(KafkaSettings(compression=compression))
    lines = [b"%0200d" % i for i in range(20_000)]
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
        async with bus.producer() as producer:
            keys = b"\n".join(b"%d" % i for i in range(20_000))
            first = await producer.send_batch("ratings", 0, b"\n".join(lines), count=20_000, keys=keys)
            await producer.send("ratings", b"x" * (3 << 20), partition=1)
            await producer.flush()
            assert (await first).offset == 0
        async with await bus.consumer("ratings") as consumer:
            batches = await drain(consumer, 20_001)
    assert values_of(batches) == lines
    assert [key for b in batches if b.tp == T0 for key in b.keys] == [b"%d" % i for i in range(20_000)]
    assert values_of(batches, T1) == [b"x" * (3 << 20)]


async def test_a_record_that_the_topic_does_not_take_is_refused_and_ends_its_partition(bus: KafkaBus) -> None:
    async with bus.producer() as producer:
        too_large = await producer.send("ratings", b"x" * (9 << 20), partition=0)
        with pytest.raises(BusError, match=r"max\.message\.bytes"):
            await too_large
        with pytest.raises(BusError, match="refused"):
            await producer.send("ratings", b"next", partition=0)
        await (await producer.send("ratings", b"other partition", partition=1))
        with pytest.raises(BusError, match=r"max\.message\.bytes"):
            await producer.flush()
    async with bus.producer() as producer:  # a new one goes on
        assert (await (await producer.send("ratings", b"next", partition=0))).offset == 0


# -- who may


async def test_nobody_at_the_address_is_one_clear_error() -> None:
    began = time.monotonic()
    with pytest.raises(BusUnavailable, match="found none that answers"):
        async with open_bus(f"kafka://127.0.0.1:{free_ports(1)[0]}"):
            pass
    assert time.monotonic() - began < 10


@pytest.fixture(scope="module")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with guarded(tmp_path_factory.mktemp("guarded") / "kafka") as address:
        yield f"kafka://{address}"


def login(user: str, password: str) -> KafkaSettings:
    return KafkaSettings(security_protocol="SASL_PLAINTEXT", username=user, password=password)


async def test_a_login_opens_the_bus(guarded_kafka: str) -> None:
    use_kafka_settings(login("admin", "admin-secret"))
    async with open_bus(guarded_kafka) as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
        async with bus.producer() as producer:
            await (await producer.send("ratings", b"v", partition=0))
        async with await bus.consumer("ratings", group="g") as consumer:
            assert values_of(await drain(consumer, 1)) == [b"v"]
            await consumer.commit()


async def test_a_wrong_password_is_told_at_once_and_never_shown(
    guarded_kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    use_kafka_settings(login("admin", "hunter2-wrong"))
    began = time.monotonic()
    with caplog.at_level(logging.DEBUG), pytest.raises(BusDenied, match="user and password") as raised:
        async with open_bus(guarded_kafka):
            pass
    assert time.monotonic() - began < 5
    assert "hunter2" not in str(raised.value) + caplog.text


async def test_without_a_login_or_with_the_wrong_protocol_the_hint_names_the_protocol(guarded_kafka: str) -> None:
    with pytest.raises(BusUnavailable, match="PLAINTEXT"):
        async with open_bus(guarded_kafka):
            pass


async def test_what_a_user_may_not_do_is_named(guarded_kafka: str) -> None:
    use_kafka_settings(login("admin", "admin-secret"))
    async with open_bus(guarded_kafka) as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
    use_kafka_settings(login("reader", "reader-secret"))
    async with open_bus(guarded_kafka) as bus:
        with pytest.raises(BusDenied, match="create topic"):
            await bus.create_topics(TopicSpec("other", 1))
        with pytest.raises(UnknownTopic):  # what may not even be described does not exist, as for every Kafka client
            await bus.consumer("ratings")


async def test_a_worker_that_may_not_join_its_group_ends_and_says_so(guarded_kafka: str, tmp_path: Path) -> None:
    use_kafka_settings(login("loner", "loner-secret"))
    options = WorkerOptions(f"{guarded_kafka}/lonely", f"sqlite:///{tmp_path}/features.db")
    with pytest.raises(BusDenied, match=r"join the group as group lonely\.features: expected the permission"):
        async with asyncio.timeout(30):
            await FeatureWorker(options).run(asyncio.Event())


# -- outages


async def publish_each(producer: KafkaProducer, first: int, count: int) -> None:
    for i in range(first, first + count):
        await producer.send("ratings", b"%d" % i, partition=0)


@pytest.mark.slow
async def test_an_outage_costs_little_and_is_survived_without_loss_or_repetition(
    own_kafka: LocalKafka, caplog: pytest.LogCaptureFixture
) -> None:
    async with KafkaBus(f"kafka://{own_kafka.address}") as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
        async with bus.producer() as producer, await bus.consumer("ratings") as consumer:
            await publish_each(producer, 0, 100)
            seen = await drain(consumer, 100)
            await asyncio.to_thread(own_kafka.crash)
            await publish_each(producer, 100, 100)
            reading = asyncio.create_task(drain(consumer, 200, limit_s=60))
            await asyncio.sleep(1)  # what is noticed at once is over
            caplog.clear()
            cpu_s, wall_s = time.process_time(), time.monotonic()
            await asyncio.sleep(5)
            cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
            lines = len([record for record in caplog.records if record.levelno >= logging.INFO])
            await asyncio.to_thread(own_kafka.restart)
            await publish_each(producer, 200, 100)
            await producer.flush()
            seen += await reading
    assert values_of(seen) == [b"%d" % i for i in range(300)]
    assert cpu_s / wall_s < 0.1
    assert lines / wall_s < 10


@pytest.mark.slow
async def test_a_broker_that_crashes_in_the_middle_of_a_rebalance_is_waited_for(
    own_kafka: LocalKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than a request is repeated."""
    committed, crashed = KafkaBus.committed, asyncio.Event()

    async def crash_first(bus: KafkaBus, group: str) -> dict[TopicPartition, int]:
        if not crashed.is_set():
            await asyncio.to_thread(own_kafka.crash)
            crashed.set()
        return await committed(bus, group)

    monkeypatch.setattr(KafkaBus, "committed", crash_first)
    worker = FeatureWorker(WorkerOptions(f"kafka://{own_kafka.address}/run", f"sqlite:///{tmp_path}/features.db"))
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    async with asyncio.timeout(90):
        await crashed.wait()
        await asyncio.sleep(PATIENCE_S + 2)
        await asyncio.to_thread(own_kafka.restart)
        while len(worker.ingest.writer.cursors) < 4:
            assert not running.done()
            await asyncio.sleep(0.05)
        stopping.set()
        await running


@pytest.mark.slow
async def test_what_cannot_be_delivered_in_time_fails_and_nothing_overtakes_it(own_kafka: LocalKafka) -> None:
    async with KafkaBus(f"kafka://{own_kafka.address}") as bus:
        await bus.create_topics(TopicSpec("ratings", 2))
        producer = KafkaProducer(
            bus._cluster, bus._partitions_of, [], linger_s=0, max_pending_bytes=1 << 20, delivery_timeout_s=2
        )
        await (await producer.send("ratings", b"0", partition=0))
        await asyncio.to_thread(own_kafka.crash)
        lost, after = [await producer.send("ratings", b"%d" % i, partition=0) for i in (1, 2)]
        with pytest.raises(BusUnavailable, match="acknowledgement within 2 s"):
            await lost
        with pytest.raises(BusUnavailable):
            await after
        with pytest.raises(BusUnavailable, match="nothing may overtake it"):
            await producer.send("ratings", b"3", partition=0)
        await producer.close()
        began = time.monotonic()
        with pytest.raises(BusUnavailable, match="is it up"):
            await asked(bus)
        assert time.monotonic() - began < 20


async def asked(bus: Bus) -> None:
    await bus.topics()

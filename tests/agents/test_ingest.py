"""Store errors are waited out, a poisonous record is found and dead-lettered, everything around it is applied."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.ingest import FeatureIngest
from agents.outbox import drain_outbox
from featurestore.reader import FeatureReader
from featurestore.writer import FeatureWriter
from streams.batch import KEPT_BYTES, RatingBatch, decode_ratings
from streams.bus import OffsetRange, TopicInfo, TopicSpec, open_bus
from streams.errors import StoreError, StoreUnavailable, WriterFenced
from streams.events import DEADLETTER, DeadLetter, Rating
from streams.records import RecordBatch, TopicPartition

LOG = TopicInfo("ratings", 2, None, "log-1")
POISON = 666


def record_batch(movies: list[int], partition: int = 0, first: int = 0) -> RecordBatch:
    lines = b"\n".join(msgspec.json.encode(Rating(1, m, 3.0, 1_000_000_000)) for m in movies)
    offsets = np.arange(first, first + len(movies))
    return RecordBatch("ratings", partition, offsets, np.full(len(movies), 2 * 10**12), first + len(movies), lines)


def decode_or_fail(batch: RecordBatch) -> RatingBatch:
    """Stands for a defect of the core that one record sets off."""
    decoded = decode_ratings(batch)
    if POISON in decoded.movie_id:
        raise ZeroDivisionError("movie 666")
    return decoded


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/features.db"


@pytest.fixture
def ingest(store_url: str) -> Iterator[FeatureIngest]:
    writer = FeatureWriter(store_url, agent="features", topic="ratings", run_id="run")
    writer.assign(LOG, {TopicPartition("ratings", p): OffsetRange(0, 1_000) for p in (0, 1)})
    ingest = FeatureIngest(writer, store_patience_s=0.3, decode=decode_or_fail)
    yield ingest
    ingest.close()


async def test_the_guilty_record_is_dead_lettered_and_all_others_are_applied(
    ingest: FeatureIngest, store_url: str
) -> None:
    await ingest.apply([record_batch([1, 2, 3]), record_batch([4, POISON, 5, 6, POISON], partition=1)])
    with FeatureReader(store_url) as reader:
        assert sorted(reader.history(1).movie_id.tolist()) == [1, 2, 3, 4, 5, 6]
        assert {row.partition: (row.next_offset, row.invalid) for row in reader.applied()} == {0: (3, 0), 1: (5, 2)}
    letters = [msgspec.json.decode(row.value, type=DeadLetter) for row in await ingest.outbox()]
    assert [(letter.partition, letter.offset, letter.event_id) for letter in letters] == [(1, 1, 1), (1, 4, 2)]
    assert "ZeroDivisionError('movie 666')" in letters[0].reason


async def test_a_locked_store_is_waited_for_and_nothing_is_dead_lettered(
    ingest: FeatureIngest, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, failures = ingest.writer.apply, [StoreUnavailable("locked")] * 2
    monkeypatch.setattr(ingest.writer, "apply", lambda b: _raise(failures.pop()) if failures else apply(b))
    await ingest.apply([record_batch([1, 2])])
    assert ingest.stats.store_errors == 2
    assert ingest.stats.waiting_for_store == ""
    assert (ingest.stats.ratings, await ingest.outbox()) == (2, [])


def _raise(error: Exception) -> None:
    raise error


async def test_a_store_that_stays_away_stops_the_worker_with_its_own_error(
    ingest: FeatureIngest, store_url: str, tmp_path: Path
) -> None:
    ingest.writer.database.connection.execute("PRAGMA busy_timeout = 10")
    blocker = sqlite3.connect(tmp_path / "features.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another process"):
        await ingest.apply([record_batch([1, 2])])
    blocker.execute("ROLLBACK")
    blocker.close()
    await ingest.apply([record_batch([1, 2])])  # nothing was lost, nothing was counted twice
    assert (ingest.stats.ratings, await ingest.outbox()) == (2, [])


async def test_what_is_tried_again_is_left_alone_once_its_partitions_were_released(
    ingest: FeatureIngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor may go on from before it, where the store has lost its last transactions."""
    apply, away = ingest.writer.apply, True
    monkeypatch.setattr(ingest.writer, "apply", lambda b: _raise(StoreUnavailable("away")) if away else apply(b))
    trying = asyncio.create_task(ingest.apply([record_batch([3, 4], first=2)]))
    while not ingest.stats.store_errors:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await ingest.release([0, 1])
    await ingest.assign(LOG, {TopicPartition("ratings", 0): OffsetRange(0, 1_000)})
    away = False
    await trying
    assert ingest.writer.cursors[0].next_offset == 0
    await ingest.apply([record_batch([1, 2, 3, 4])])
    assert ingest.stats.ratings == 4


async def test_a_full_disk_stops_the_worker_and_dead_letters_nothing(ingest: FeatureIngest, store_url: str) -> None:
    connection = ingest.writer.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk full"):
        await ingest.apply([record_batch(list(range(1_000, 5_000)))])
    connection.execute("PRAGMA max_page_count = 100000")
    await ingest.apply([record_batch(list(range(1_000, 5_000)))])
    assert await ingest.outbox() == []
    with FeatureReader(store_url) as reader:
        assert len(reader.history(1)) == 4_000


async def test_a_store_that_is_gone_dead_letters_nothing(ingest: FeatureIngest, tmp_path: Path) -> None:
    (tmp_path / "features.db").unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        await ingest.apply([record_batch([1, 2])])
    assert ingest.stats.invalid == 0


async def test_a_folder_that_cannot_be_looked_at_for_a_while_is_waited_for(
    ingest: FeatureIngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(5, "Input/output error")] * 2
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **more: _raise(failures.pop()) if failures else stat(path, **more))
    await ingest.apply([record_batch([1, 2])])
    assert ingest.stats.store_errors == 2
    assert (ingest.stats.ratings, await ingest.outbox()) == (2, [])


async def test_a_dropped_table_is_the_stores_error_not_the_records(ingest: FeatureIngest) -> None:
    ingest.writer.database.connection.execute("DROP TABLE items")
    with pytest.raises(StoreError, match="no such table"):
        await ingest.apply([record_batch([1, 2])])
    assert ingest.stats.invalid == 0


async def test_large_dead_letters_leave_the_outbox_a_few_at_a_time_and_in_order(ingest: FeatureIngest) -> None:
    """A thousand of them at once would be 256 MiB of memory."""
    count = 80
    lines = b"\n".join([b"?" * (300 << 10)] * count)
    times = np.full(count, 2 * 10**12)
    await ingest.apply([RecordBatch("ratings", 0, np.arange(count), times, count, lines)])
    looks: list[list[int]] = []
    while rows := await ingest.outbox():
        assert sum(len(row.value) for row in rows) < 9 << 20
        looks.append([msgspec.json.decode(row.value, type=DeadLetter).offset for row in rows])
        await ingest.published(rows)
    assert len(looks) >= 3
    assert [offset for look in looks for offset in look] == list(range(count))


async def test_a_huge_record_of_control_characters_holds_up_nothing(ingest: FeatureIngest, store_url: str) -> None:
    """In JSON it would take six times its size: more than any bus takes, so the outbox would wait for ever."""
    huge = b"\x01" * (12 << 20)
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(DEADLETTER, 1))
        await ingest.apply([RecordBatch("ratings", 0, np.array([0]), np.array([2 * 10**12]), 1, huge)])
        assert await drain_outbox(bus, ingest) == 1
        await ingest.apply([record_batch([1, POISON], first=1)])
        assert await drain_outbox(bus, ingest) == 1
        async with await bus.consumer(DEADLETTER) as consumer:
            (batch,) = await consumer.fetch()
    assert max(map(len, batch.values)) < 1_000_000  # what a Kafka broker takes unless told otherwise
    letter, second = (msgspec.json.decode(value, type=DeadLetter) for value in batch.values)
    assert (letter.offset, letter.size, letter.encoding) == (0, len(huge), "base64")
    assert base64.b64decode(letter.payload) == huge[:KEPT_BYTES]
    assert (second.offset, second.size) == (2, None)
    with FeatureReader(store_url) as reader:
        assert reader.history(1).movie_id.tolist() == [1]


async def test_the_reason_in_a_dead_letter_is_bounded(ingest: FeatureIngest) -> None:
    value = msgspec.json.encode({"type": "x" * 2_000_000})
    await ingest.apply([RecordBatch("ratings", 0, np.array([0]), np.array([2 * 10**12]), 1, value)])
    (row,) = await ingest.outbox()
    letter = msgspec.json.decode(row.value, type=DeadLetter)
    assert letter.reason.startswith("type: expected rating or tick, found 'xxx")
    assert len(letter.reason) < 2_000
    assert len(row.value) < 1_000_000


async def test_a_fenced_writer_stops_at_once(ingest: FeatureIngest, store_url: str) -> None:
    with FeatureWriter(store_url, agent="features", topic="ratings") as successor:
        successor.assign(LOG, {TopicPartition("ratings", 0): OffsetRange(0, 1_000)})
        with pytest.raises(WriterFenced):
            await ingest.apply([record_batch([1, 2])])
    assert ingest.stats.ratings == 0

"""`verify` is clean on a right store, finds every fault planted in a wrong one, and disturbs nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Table

from featurestore.catalogue import Catalogue
from featurestore.schema import (
    HISTORY_BLOCK_SIZE,
    HISTORY_DTYPE,
    TASTE_DTYPE,
    applied,
    item_days,
    item_hours,
    items,
    sources,
    user_history,
    users,
)
from featurestore.verify import VerifyReport, verify
from featurestore.view_settings import ViewSettings
from featurestore.writer import FeatureWriter
from streams.batch import decode_ratings
from streams.bus import Bus, TopicSpec, open_bus
from streams.dataset import Movie
from streams.errors import ConfigError, StoreError
from streams.events import DAY_S, DEADLETTER, RATINGS, DeadLetter, Rating, Tick
from streams.records import RecordBatch, TopicPartition

T0 = 1_000_000_800  # 2001-09-09T02:00:00Z, a whole hour
NOW_MS = 1_700_000_000_000
PARTITIONS = 2

Record = tuple[int, bytes]

CATALOGUE = Catalogue(
    [
        Movie(10, "Ten (1990)", 1990, ("Comedy", "Drama")),
        Movie(11, "Élève (2001)", 2001, ("Drama",)),
        Movie(12, "No genre", None, ()),  # 13 is not in it at all
        *(Movie(100 + n, f"Number {n}", None, ("Comedy", "War")[: n % 3]) for n in range(7)),
    ]
)


def rating(
    user: int, movie: int, stars: float, timestamp: int, source: str | None = None, n: int | None = None
) -> bytes:
    return msgspec.json.encode(Rating(user, movie, stars, timestamp, source, n))


def tick(event_time: int, **more: bool) -> bytes:
    return msgspec.json.encode(Tick(event_time, "run", 0, **more))


def small_log() -> list[Record]:
    """Two partitions with all that a log can hold: identities, facts, duplicates, late ratings, garbage, sessions."""
    in_0 = [
        tick(T0),
        rating(2, 10, 4.5, T0 + 10, "run", 1),
        rating(2, 11, 0.5, T0 + 1_809, "run", 2),  # 1,799 s later: the same session
        rating(2, 10, 3.0, T0 + 3_609, "run", 5),  # 1,800 s later: a new one, in the next hour
        rating(2, 12, 5.0, T0 + 3_609, "page", 1),
        rating(2, 13, 5.0, T0 + 3_700, "run", 5),  # a duplicate
        b'{"user_id":2,"movie_id":13,"rating":4.7,"timestamp":1000000800}',
        b"not json \xff",
        rating(4, 10, 2.0, T0 + 20),
        rating(4, 10, 2.0, T0 + 20),  # the same fact again: without identity it counts twice
        tick(T0 + 3 * DAY_S),
        tick(T0 + DAY_S),  # ticks are applied as a maximum: this one changes nothing
        rating(4, 11, 1.0, T0 + 2 * DAY_S, "run", 7),  # exactly at the bound: in time
        rating(4, 11, 1.0, T0 + 2 * DAY_S - 1, "run", 8),  # late
        tick(T0 + 9 * DAY_S, heartbeat=True),
        rating(4, 12, 1.0, T0 + 3 * DAY_S, "run", 9),  # heartbeats make nothing late
    ]
    in_1 = [
        tick(T0),
        *(rating(3, 100 + n % 7, 0.5 + n % 10 / 2, T0 + n, "run", n) for n in range(HISTORY_BLOCK_SIZE + 6)),
        b"",
        tick(T0 + 3 * DAY_S, end_of_run=True),
        tick(T0 + 3 * DAY_S),
    ]
    return [(0, value) for value in in_0] + [(1, value) for value in in_1]


class World:
    """A log and the feature store that the real writer makes of it."""

    def __init__(self, bus: Bus, path: Path) -> None:
        self.bus = bus
        self.path = path
        self.url = f"sqlite:///{path}"

    async def publish(self, records: Iterable[Record], topic: str = RATINGS) -> None:
        async with self.bus.producer() as producer:
            for partition, value in records:
                await producer.send(topic, value, partition=partition, timestamp_ms=NOW_MS)
            await producer.flush()

    async def fetch(self, start: int = 0) -> list[RecordBatch]:
        batches: list[RecordBatch] = []
        async with await self.bus.consumer(RATINGS) as consumer:
            for tp, held in (await self.bus.offsets(RATINGS)).items():
                consumer.seek(tp, start)
                while consumer.position(tp) < held.end:
                    batches += await consumer.fetch(timeout_s=1, partitions=[tp])
        return batches

    async def writer(self, **options: Any) -> FeatureWriter:
        options = {"catalogue": CATALOGUE} | options
        writer = FeatureWriter(self.url, agent="features", topic=RATINGS, run_id="run", **options)
        writer.assign((await self.bus.topics())[RATINGS], await self.bus.offsets(RATINGS))
        return writer

    async def ingest(self, change: Callable[[RecordBatch], RecordBatch] = lambda batch: batch, **options: Any) -> None:
        with await self.writer(**options) as writer:
            writer.apply([decode_ratings(change(batch)) for batch in await self.fetch()])

    def sql(self, statement: str, *parameters: object) -> int:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, parameters).rowcount
        finally:
            connection.close()

    def query(self, statement: str) -> list[Any]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    async def verify(self, **options: Any) -> VerifyReport:
        return await verify(self.bus, self.url, **options)


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[World]:
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(RATINGS, PARTITIONS), TopicSpec(DEADLETTER, 1))
        yield World(bus, tmp_path / "features.db")


@pytest.fixture
async def world(empty: World) -> World:
    await empty.publish(small_log())
    await empty.ingest()
    return empty


def faulty(report: VerifyReport) -> dict[str, int]:
    return {name: view.mismatches for name, view in report.views.items() if view.mismatches}


# A right store


async def test_a_right_store_is_clean(world: World) -> None:
    report = await world.verify()
    assert faulty(report) == {}
    assert report.ok
    assert report.events == len(small_log())
    assert report.offsets == {0: 16, 1: HISTORY_BLOCK_SIZE + 10}
    assert report.views["user_history"].rows == 9 + HISTORY_BLOCK_SIZE + 6
    assert report.views["dead_letters"].rows == 3
    assert report.views["sources"].rows == 3
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


async def test_the_expected_rows_are_those_worked_out_by_hand(world: World) -> None:
    """Emptied tables make the report show what the log gives."""
    for table in ("users", "items", "item_hours", "item_days"):
        world.sql(f"DELETE FROM {table} WHERE partition = 0")
    views = (await world.verify()).views
    found = {name: [(e.key, e.expected) for e in views[name].examples] for name in ("users", "items")}
    user_2 = {"n": 4, "half_stars": 26, "first_rated": T0 + 10, "last_rated": T0 + 3_609}
    user_4 = {"n": 5, "half_stars": 14, "first_rated": T0 + 20, "last_rated": T0 + 3 * DAY_S}
    assert found["users"] == [
        ({"partition": 0, "user_id": 2}, user_2 | {"session_start": T0 + 3_609, "session_n": 2}),
        ({"partition": 0, "user_id": 4}, user_4 | {"session_start": T0 + 3 * DAY_S, "session_n": 1}),
    ]
    assert found["items"] == [
        (
            {"partition": 0, "movie_id": 10},
            {"n": 4, "half_stars": 23, "first_rated": T0 + 10, "last_rated": T0 + 3_609},
        ),
        (
            {"partition": 0, "movie_id": 11},
            {"n": 3, "half_stars": 5, "first_rated": T0 + 1_809, "last_rated": T0 + 2 * DAY_S},
        ),
        (
            {"partition": 0, "movie_id": 12},
            {"n": 2, "half_stars": 12, "first_rated": T0 + 3_609, "last_rated": T0 + 3 * DAY_S},
        ),
    ]
    hour = T0 // 3_600
    assert (views["item_hours"].examples[0].key, views["item_hours"].examples[0].expected) == (
        {"partition": 0, "hour": hour, "movie_id": 10},
        {"n": 3, "half_stars": 17},
    )
    assert views["item_hours"].mismatches == 7
    assert views["item_days"].examples[0].expected == {"n": 4, "half_stars": 23}


async def test_a_log_and_a_store_without_records_agree(empty: World) -> None:
    await empty.ingest()
    report = await empty.verify()
    assert report.ok
    assert report.events == 0


async def test_a_store_that_no_worker_was_assigned_to_yet_is_clean(empty: World) -> None:
    FeatureWriter(empty.url, agent="features", topic=RATINGS).close()
    await empty.publish(small_log())
    report = await empty.verify()
    assert report.ok
    assert report.offsets == {}


async def test_a_store_is_compared_up_to_what_it_has_applied(world: World) -> None:
    await world.publish(small_log())
    report = await world.verify()
    assert report.ok
    assert report.events == len(small_log())


async def test_a_batch_that_straddles_the_applied_offset_is_cut_there(empty: World) -> None:
    await empty.publish(small_log())
    await empty.ingest(lambda batch: batch.slice(0, len(batch) // 2))
    report = await empty.verify()
    assert report.ok
    assert report.offsets == {0: 8, 1: HISTORY_BLOCK_SIZE // 2 + 5}


async def test_lateness_and_session_gap_are_the_stores_own(empty: World) -> None:
    await empty.publish(small_log())
    await empty.ingest(views=ViewSettings(lateness_s=0, session_gap_s=60))
    assert (await empty.verify()).ok
    assert empty.query("SELECT late FROM applied WHERE partition = 0") == [(2,)]


# Faults

VIEWS: tuple[Table, ...] = (item_hours, item_days, items, users)
BESIDE = {"items": ("item_decay",), "users": ("user_taste",)}
"""Views that are other columns of the same table."""
FAULTS = [
    (table, column.name)
    for table in (*VIEWS, sources, applied)
    for column in table.columns
    if column.name not in ("agent", "topic", "epoch", "applied_ms", "source", "log_id", "decayed", "taste")
    and not (table is applied and column.name == "partition")
]


def one_row_of(table: Table) -> str:
    """The last row of partition 0, so that a key can be raised by one without meeting another row."""
    keys = ", ".join(column.name for column in table.primary_key)
    last = ", ".join(f"{column.name} DESC" for column in table.primary_key)
    return f"({keys}) IN (SELECT {keys} FROM {table.name} WHERE partition = 0 ORDER BY {last} LIMIT 1)"


@pytest.mark.parametrize(("table", "column"), FAULTS, ids=[f"{table.name}.{column}" for table, column in FAULTS])
async def test_a_wrong_value_is_found_in_each_column_of_each_view(world: World, table: Table, column: str) -> None:
    by = 100 if column == "partition" else 1
    assert world.sql(f"UPDATE {table.name} SET {column} = {column} + {by} WHERE {one_row_of(table)}") == 1
    report = await world.verify()
    assert not report.ok
    assert table.name in faulty(report)
    if table is not applied:  # a shifted key is a row too few and a row too many
        is_key = column in table.primary_key.columns
        assert faulty(report).pop(table.name) == (2 if is_key else 1)
        assert faulty(report).keys() == {table.name, *(BESIDE.get(table.name, ()) if is_key else ())}


@pytest.mark.parametrize("table", [*VIEWS, sources, user_history], ids=lambda table: table.name)
async def test_a_missing_row_is_found(world: World, table: Table) -> None:
    assert world.sql(f"DELETE FROM {table.name} WHERE {one_row_of(table)}") == 1
    report = await world.verify()
    assert faulty(report).keys() == {table.name, *BESIDE.get(table.name, ())}
    assert all(example.found is None for example in report.views[table.name].examples)


@pytest.mark.parametrize("table", VIEWS, ids=lambda table: table.name)
async def test_a_row_too_many_is_found_even_if_all_its_sums_are_zero(world: World, table: Table) -> None:
    zeros = ", ".join("0" for _ in table.columns)
    world.sql(f"INSERT INTO {table.name} VALUES ({zeros})")
    report = await world.verify()
    assert faulty(report).pop(table.name) == 1
    assert faulty(report).keys() == {table.name, *BESIDE.get(table.name, ())}
    assert report.views[table.name].examples[0].expected is None


async def test_a_decayed_sum_off_by_a_millionth_is_found_and_one_within_rounding_is_not(world: World) -> None:
    world.sql("UPDATE items SET decayed = decayed * (1 + 1e-12)")
    assert (await world.verify()).ok
    world.sql("UPDATE items SET decayed = decayed * (1 + 1e-6) WHERE movie_id = 10")
    assert faulty(await world.verify()) == {"item_decay": 1}


@pytest.mark.parametrize(
    "change", [lambda sums: sums * (1 + 1e-6), lambda sums: sums[::-1], lambda sums: sums * np.nan], ids=str
)
async def test_another_taste_is_found(world: World, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (taste,) = world.query("SELECT taste FROM users WHERE user_id = 3")[0]
    changed = change(np.frombuffer(taste, TASTE_DTYPE).reshape(-1, 2))
    world.sql("UPDATE users SET taste = ? WHERE user_id = 3", np.ascontiguousarray(changed).tobytes())
    assert faulty(await world.verify()).keys() == {"user_taste"}


async def test_a_damaged_taste_is_found_and_named(world: World) -> None:
    world.sql("UPDATE users SET taste = x'00' WHERE user_id = 2")
    view = (await world.verify()).views["user_taste"]
    assert view.examples[-1].key == {"partition": 0, "user_id": 2}
    assert "expected bytes=48, found bytes=1" in str(view.examples[-1])


async def test_other_movies_are_found(world: World) -> None:
    world.sql("UPDATE movies SET title = 'Eleven' WHERE movie_id = 11")
    assert faulty(await world.verify()) == {"movies": 1}
    world.sql("UPDATE movies SET genres = '[\"War\"]' WHERE movie_id = 11")
    assert faulty(await world.verify()).keys() == {"movies", "user_taste"}


async def test_a_source_too_many_is_found(world: World) -> None:
    digest = hashlib.sha256(b"ghost").digest()[:16]
    world.sql("INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?)", "features", "ratings", 0, digest, b"ghost", 1)
    report = await world.verify()
    assert [str(e) for e in report.views["sources"].examples] == [
        "partition=0, source=ghost: expected no row, found event_id=1"
    ]


async def test_a_replaced_log_is_found(world: World) -> None:
    world.sql("UPDATE applied SET log_id = 'other' WHERE partition = 1")
    report = await world.verify()
    assert faulty(report) == {"applied": 1}
    assert report.views["applied"].examples[0].found == {"log_id": "other"}


async def test_a_store_ahead_of_its_log_is_found(world: World) -> None:
    world.sql("UPDATE applied SET next_offset = 99 WHERE partition = 0")
    report = await world.verify()
    assert faulty(report) == {"applied": 1}
    assert "expected next_offset=0 to 16" in str(report.views["applied"].examples[0])


async def test_a_topic_that_is_gone_is_found(world: World) -> None:
    async with open_bus("memory://") as other:
        report = await verify(other, world.url)
    assert {"applied", "items", "user_history"} <= faulty(report).keys()


def history(world: World, user: int) -> np.ndarray:
    (blob,) = world.query(f"SELECT ratings FROM user_history WHERE user_id = {user} AND block = 0")[0]
    return np.frombuffer(blob, HISTORY_DTYPE).copy()


def put_history(world: World, user: int, ratings: bytes) -> None:
    assert world.sql("UPDATE user_history SET ratings = ? WHERE user_id = ? AND block = 0", ratings, user) == 1


@pytest.mark.parametrize("name", HISTORY_DTYPE.names or ())
async def test_each_field_of_the_history_is_compared(world: World, name: str) -> None:
    ratings = history(world, 2)
    ratings[name][1] ^= 1
    put_history(world, 2, ratings.tobytes())
    report = await world.verify()
    assert faulty(report) == {"user_history": 1}
    assert report.views["user_history"].examples[0].key == {"partition": 0, "user_id": 2, "position": 1}


async def test_two_ratings_swapped_in_the_history_are_found(world: World) -> None:
    ratings = history(world, 2)
    put_history(world, 2, ratings[[0, 2, 1, 3]].tobytes())
    assert faulty(await world.verify()) == {"user_history": 2}


async def test_a_history_cut_short_or_with_one_rating_twice_is_found(world: World) -> None:
    ratings = history(world, 2)
    put_history(world, 2, ratings[:-1].tobytes())
    assert faulty(await world.verify()) == {"user_history": 1}
    put_history(world, 2, ratings[[0, 1, 2, 3, 3]].tobytes())
    assert faulty(await world.verify()) == {"user_history": 1}


async def test_history_blocks_cut_at_another_place_are_found(world: World) -> None:
    """Readers count on full blocks: the same ratings in blocks of 1,000 and 30 are not the same view."""
    ratings = history(world, 3).tobytes()
    cut = 1_000 * HISTORY_DTYPE.itemsize
    world.sql("UPDATE user_history SET ratings = ? || ratings WHERE user_id = 3 AND block = 1", ratings[cut:])
    put_history(world, 3, ratings[:cut])
    assert "user_history" in faulty(await world.verify())


@pytest.mark.parametrize("damage", [b"", b"x" * 17], ids=["empty", "odd"])
async def test_a_damaged_history_block_is_found_and_named(world: World, damage: bytes) -> None:
    put_history(world, 2, damage)
    view = (await world.verify()).views["user_history"]
    assert view.mismatches == 4 + 1  # the four ratings of it, and the block
    assert view.examples[-1].key == {"partition": 0, "user_id": 2, "block": 0}


async def test_a_lost_event_is_found_in_every_view_that_misses_it(empty: World) -> None:
    def without_the_second(batch: RecordBatch) -> RecordBatch:
        return RecordBatch.concat([batch.slice(0, 1), batch.slice(2, len(batch))])

    await empty.publish(small_log())
    await empty.ingest(without_the_second)
    assert faulty(await empty.verify()).keys() >= {
        *("applied", "item_hours", "item_days", "items", "item_decay", "users", "user_taste", "user_history")
    }


async def test_an_event_applied_twice_is_found_in_every_view_that_has_it(empty: World) -> None:
    def with_a_fact_twice(batch: RecordBatch) -> RecordBatch:
        return RecordBatch.concat([batch.slice(0, 9), batch.slice(8, len(batch))])

    await empty.publish(small_log()[:16])
    await empty.ingest(with_a_fact_twice)
    assert faulty(await empty.verify()).keys() == {
        *("applied", "item_hours", "item_days", "items", "item_decay", "users", "user_taste", "user_history")
    }


async def test_mismatches_are_all_counted_and_a_few_shown(world: World) -> None:
    world.sql("UPDATE user_history SET ratings = zeroblob(length(ratings)) WHERE user_id = 3 AND block = 0")
    view = (await world.verify()).views["user_history"]
    assert view.mismatches == HISTORY_BLOCK_SIZE
    assert [example.key["position"] for example in view.examples] == [0, 1, 2, 3, 4]


# Dead letters


async def test_a_lost_dead_letter_is_found(world: World) -> None:
    assert world.sql("DELETE FROM outbox WHERE id = 2") == 1
    report = await world.verify()
    assert faulty(report) == {"dead_letters": 1}
    assert report.views["dead_letters"].examples[0].key == {"partition": 0, "log_offset": 7}


async def test_dead_letters_may_have_left_the_outbox_and_may_come_twice(world: World) -> None:
    letters = [(0, value) for (value,) in world.query("SELECT value FROM outbox ORDER BY id")]
    await world.publish([letters[0], *letters], DEADLETTER)
    world.sql("DELETE FROM outbox WHERE id <= 2")
    report = await world.verify()
    assert report.ok
    assert report.views["dead_letters"].rows == 3


async def test_a_dead_letter_about_a_valid_record_or_with_another_payload_is_found(world: World) -> None:
    letter = DeadLetter(RATINGS, 0, 1, "why", "{}")
    await world.publish([(0, msgspec.json.encode(letter))], DEADLETTER)
    assert faulty(await world.verify()) == {"dead_letters": 1}
    changed = msgspec.structs.replace(letter, offset=7, payload=base64.b64encode(b"?").decode(), encoding="base64")
    world.sql("UPDATE outbox SET value = ? WHERE id = 2", msgspec.json.encode(changed))
    assert faulty(await world.verify()) == {"dead_letters": 2}


async def test_of_a_large_record_the_letter_must_hold_the_first_part_and_the_size(empty: World) -> None:
    await empty.publish([(0, b"x" + "é".encode() * 150_000), (1, b"\x01" * 300_000)])
    await empty.ingest()
    assert (await empty.verify()).ok
    (value,) = (value for (value,) in empty.query("SELECT value FROM outbox WHERE id = 1"))
    letter = msgspec.json.decode(value, type=DeadLetter)
    for changed in ({"size": 300_000}, {"size": None}, {"payload": letter.payload[:-1]}):
        wrong = msgspec.structs.replace(letter, **changed)
        empty.sql("UPDATE outbox SET value = ? WHERE id = 1", msgspec.json.encode(wrong))
        assert faulty(await empty.verify()) == {"dead_letters": 1}


async def test_other_dead_letters_are_none_of_its_business(world: World) -> None:
    elsewhere = DeadLetter("feedback", 0, 1, "why", "{}")
    not_applied_yet = DeadLetter(RATINGS, 0, 10_000, "why", "{}")
    values = [msgspec.json.encode(elsewhere), msgspec.json.encode(not_applied_yet), b"garbage", b"[]", b'{"topic":1}']
    values.append(b'{"topic":"ratings","partition":0,"offset":99999999999999999999999,"payload":"","reason":""}')
    await world.publish([(0, value) for value in values], DEADLETTER)
    assert (await world.verify()).ok


# While others work


async def test_a_worker_may_write_while_it_runs(empty: World) -> None:
    log = small_log()
    await empty.publish(log)
    batches = [b.slice(at, at + 9) for b in await empty.fetch() for at in range(0, len(b), 9)]
    writer = await empty.writer()
    first_report, failures = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            for number, batch in enumerate(batches):
                if number == len(batches) // 2:
                    first_report.wait(timeout=30)
                writer.apply([decode_ratings(batch)])
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    reports = []
    while thread.is_alive() or len(reports) < 2:
        reports.append(await empty.verify())
        first_report.set()
    thread.join()
    writer.close()
    reports.append(await empty.verify())
    assert not failures
    assert [faulty(report) for report in reports] == [{}] * len(reports)
    assert reports[0].events < reports[-1].events == len(log)


async def test_it_holds_no_reader_on_the_store_while_it_recomputes(world: World) -> None:
    blocked: list[int] = []

    def checkpoint(_events: int, _total: int) -> None:
        world.sql("UPDATE applied SET applied_ms = applied_ms + 1")
        blocked.extend(busy for busy, *_ in world.query("PRAGMA wal_checkpoint(TRUNCATE)"))

    await world.verify(on_progress=checkpoint)
    assert blocked
    assert not any(blocked)


def folders_beside(world: World) -> list[Path]:
    return [path for path in world.path.parent.iterdir() if path.is_dir()]


async def test_it_leaves_nothing_behind(world: World) -> None:
    inside: list[Path] = []
    await world.verify(on_progress=lambda _events, _total: inside.extend(folders_beside(world)))
    assert inside
    assert folders_beside(world) == []


async def test_cancelled_it_leaves_nothing_behind(world: World) -> None:
    reading = asyncio.Event()
    task = asyncio.create_task(world.verify(on_progress=lambda _events, _total: reading.set()))
    await asyncio.wait_for(reading.wait(), timeout=30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert folders_beside(world) == []


# What cannot be verified


async def test_a_log_that_retention_has_shortened_cannot_be_verified(empty: World) -> None:
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(RATINGS, 1, retention_ms=1_000))
        short = World(bus, empty.path)
        await short.publish([(0, rating(1, 1, 1.0, T0))])
        await short.ingest()
        await bus.enforce_retention(NOW_MS + 10_000_000)
        assert (await bus.offsets(RATINGS))[TopicPartition(RATINGS, 0)].start == 1
        with pytest.raises(
            StoreError, match="cannot verify: retention removed the records of ratings/0 before offset 1"
        ):
            await short.verify()


async def test_dead_letters_that_retention_has_removed_are_not_asked_for(empty: World) -> None:
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(RATINGS, PARTITIONS), TopicSpec(DEADLETTER, 1, retention_ms=1_000))
        short = World(bus, empty.path)
        await short.publish(small_log())
        await short.ingest()
        await short.publish([(0, value) for (value,) in short.query("SELECT value FROM outbox")], DEADLETTER)
        short.sql("DELETE FROM outbox")
        await bus.enforce_retention(NOW_MS + 10_000_000)
        report = await short.verify()
        assert report.ok
        assert "retention removed records of topic deadletter" in report.notes[0]


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("mysql://host/db", ConfigError, "expected sqlite:///"),
        ("sqlite:////nowhere/at/all/features.db", StoreError, "not there yet"),
    ],
)
async def test_a_store_that_is_not_there_is_one_clear_error(
    empty: World, url: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await verify(empty.bus, url)


async def test_a_store_of_another_version_is_refused(world: World) -> None:
    world.sql("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(StoreError, match="expected schema version"):
        await world.verify()


async def test_a_value_that_is_no_integer_is_refused(world: World) -> None:
    world.sql("UPDATE items SET n = 1.5")
    with pytest.raises(StoreError, match="items: expected 64-bit integers"):
        await world.verify()


# Any log


@st.composite
def logs(draw: st.DrawFn) -> list[Record]:
    """Ratings around a few sessions and days, ticks between them, redeliveries and garbage."""
    moments = st.sampled_from([0, 1, 1_799, 1_800, 3_600, DAY_S - 1, DAY_S, 2 * DAY_S, 5 * DAY_S])
    ratings = st.builds(
        lambda user, movie, half, at, more, source, n: rating(user, movie, half / 2, T0 + at + more, source, n),
        *(st.integers(1, 3), st.integers(1, 3), st.integers(1, 10), moments, st.integers(0, 2)),
        *(st.sampled_from([None, "a", "b"]), st.integers(0, 30)),
    )
    ticks = st.builds(lambda at, heartbeat: tick(T0 + at, heartbeat=heartbeat), moments, st.booleans())
    value = st.one_of(ratings, ratings, ratings, ticks, st.sampled_from([b"", b"{}", b"\xff", b'{"user_id":1.0}']))
    return draw(st.lists(st.tuples(st.integers(0, PARTITIONS - 1), value), max_size=60))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(logs(), st.integers(1, 20))
async def test_the_writer_and_the_check_agree_on_any_log_cut_anyhow(
    tmp_path_factory: pytest.TempPathFactory, log: list[Record], size: int
) -> None:
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(RATINGS, PARTITIONS))
        world = World(bus, tmp_path_factory.mktemp("any") / "features.db")
        await world.publish(log)
        with await world.writer() as writer:
            for batch in await world.fetch():
                for start in range(0, len(batch), size):
                    writer.apply([decode_ratings(batch.slice(start, start + size))])
        report = await world.verify()
    assert faulty(report) == {}

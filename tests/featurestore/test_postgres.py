"""What only PostgreSQL brings: several writers, lost connections, schemas, passwords, other people's errors."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psycopg
import pytest

from featurestore.cache import CachedReader
from featurestore.catalogue import Catalogue
from featurestore.database import drop_store, open_writer
from featurestore.embeddings import EmbeddingStore, embeddings_url, verify_embeddings
from featurestore.popularity import RANKINGS, PopularityReader
from featurestore.quality_sample import baseline_of
from featurestore.reader import FeatureReader
from featurestore.snapshot import take_snapshot
from featurestore.verify import verify
from featurestore.view_settings import ViewSettings
from featurestore.writer import FeatureWriter
from streams.batch import RatingBatch, decode_ratings
from streams.bus import OffsetRange, TopicInfo, TopicSpec, open_bus
from streams.dataset import Movie
from streams.errors import (
    ConfigError,
    StoreError,
    StoreMissing,
    StoreSetBack,
    StoreUnavailable,
    StreamLensError,
    WriterFenced,
)
from streams.events import DAY_S, RATINGS, Rating, Tick
from streams.records import RecordBatch, TopicPartition
from tests.local_kafka import free_ports
from tests.local_postgres import LocalPostgres
from tests.stores import PostgresStores, SQLiteStores, rows

LOG = TopicInfo("ratings", 4, None, "log-1")
T0 = 1_000_000_000 - 1_000_000_000 % DAY_S
CATALOGUE = Catalogue([Movie(i, f"Movie {i}", 1990, ("Comedy", "Drama")[: i % 3]) for i in range(20)])
N = 400


def log_of(partition: int, n: int = N) -> list[bytes]:
    """Ratings of the same few users and movies on every partition, with ticks and some garbage."""
    rng = random.Random(partition)
    records: list[Rating | Tick] = []
    for i in range(n):
        at = T0 + i * 7_000 - rng.choice([0, 0, 0, 90_000])
        records.append(Rating(rng.randrange(8), rng.randrange(20), rng.randrange(1, 11) / 2, at, "run", i))
        if i % 50 == 49:
            records.append(Tick(T0 + i * 7_000))
    values = [msgspec.json.encode(record) for record in records]
    return [*values[:3], b"{}", *values[3:]]


def batch_of(partition: int, start: int = 0, end: int | None = None) -> RatingBatch:
    values = log_of(partition)[start:end]
    offsets = np.arange(start, start + len(values))
    published = np.full(len(values), 2 * 10**12)
    return decode_ratings(
        RecordBatch("ratings", partition, offsets, published, start + len(values), b"\n".join(values))
    )


def writer_on(url: str) -> FeatureWriter:
    return FeatureWriter(url, agent="features", topic="ratings", run_id="run", catalogue=CATALOGUE)


def assign(writer: FeatureWriter, *partitions: int) -> dict[TopicPartition, int]:
    ends = {TopicPartition("ratings", p): OffsetRange(0, len(log_of(p))) for p in partitions}
    return writer.assign(LOG, ends)


def build(url: str, partitions: int = 2) -> str:
    with writer_on(url) as writer:
        assign(writer, *range(partitions))
        writer.apply([batch_of(p) for p in range(partitions)])
    return url


VIEWS = {
    "applied": "partition, next_offset, clock, closed, ratings, duplicates, late, invalid, emitted",
    "sources": "partition, digest, source, event_id",
    "item_hours": "hour, movie_id, partition, n, half_stars",
    "item_days": "day, movie_id, partition, n, half_stars",
    "items": "movie_id, partition, n, half_stars, first_rated, last_rated",
    "users": "user_id, partition, n, half_stars, first_rated, last_rated, session_start, session_n",
    "user_history": "user_id, partition, block, ratings",
    "outbox": "partition, topic, record_key, value",
}


def views(url: str) -> dict[str, list[tuple[Any, ...]]]:
    return {table: sorted(rows(url, f"SELECT {columns} FROM {table}")) for table, columns in VIEWS.items()}


@contextmanager
def admin(url: str) -> Iterator[psycopg.Connection]:
    """A connection of somebody else to the same schema."""
    server, _, schema = url.partition("?schema=")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"SET search_path = {schema}")  # type: ignore[arg-type]
        yield connection


def sessions_waiting(connection: psycopg.Connection) -> list[int]:
    """Who waits for a lock that this connection holds."""
    found = connection.execute(
        "SELECT pid FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    ).fetchall()
    return [pid for (pid,) in found]


def wait_until(condition: Callable[[], Any]) -> Any:
    over = threading.Event()
    timer = threading.Timer(20, over.set)
    timer.start()
    try:
        while not over.wait(0.01):
            if found := condition():
                return found
        raise TimeoutError
    finally:
        timer.cancel()


# Several writers


def test_two_writers_at_once_give_the_store_of_one(postgres_url: str, tmp_path: Path) -> None:
    def write(partitions: tuple[int, ...]) -> None:
        with writer_on(postgres_url) as writer:
            assign(writer, *partitions)
            for start in range(0, N + 10, 20):
                writer.apply([batch_of(p, start, start + 20) for p in partitions])

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write, (0, 2)), pool.submit(write, (3, 1))]:
            done.result()
    assert views(postgres_url) == views(build(f"sqlite:///{tmp_path}/features.db", 4))


def test_stores_that_many_workers_make_at_once_are_one_store(postgres: PostgresStores) -> None:
    url = postgres.empty("raced")
    with closing(psycopg.connect(url.partition("?")[0], autocommit=True)) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {url.partition('=')[2]} CASCADE")  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        made = [pool.submit(open_writer, url, ViewSettings(), CATALOGUE) for _ in range(4)]
        ids = set()
        for database in made:
            ids.update(database.result().rows("SELECT value FROM meta WHERE key = 'store_id'"))
            database.result().close()
    assert len(ids) == 1


def test_a_zombie_writes_nothing_of_what_it_lost_and_takes_the_rest_anew(postgres_url: str, tmp_path: Path) -> None:
    with writer_on(postgres_url) as zombie, writer_on(postgres_url) as successor:
        assign(zombie, 0, 1)
        zombie.apply([batch_of(0, 0, 100), batch_of(1, 0, 100)])
        assert list(assign(successor, 1).values()) == [100]
        with pytest.raises(WriterFenced, match="another worker took over ratings/1"):
            zombie.apply([batch_of(0, 100, 200), batch_of(1, 100, 200)])
        zombie.apply([batch_of(0, 100), batch_of(1, 100)])
        assert zombie.cursors == {}, "what was refused with the rest is not to be skipped over"
        assert list(assign(zombie, 0).values()) == [100]
        zombie.apply([batch_of(0, 100), batch_of(1, 100)])
        assert set(zombie.cursors) == {0}
        assert successor.cursors[1].next_offset == 100
        successor.apply([batch_of(1, 100)])
    assert views(postgres_url) == views(build(f"sqlite:///{tmp_path}/features.db"))


def test_a_successor_waits_for_the_transaction_under_way(postgres_url: str, tmp_path: Path) -> None:
    with writer_on(postgres_url) as zombie, writer_on(postgres_url) as successor, ThreadPoolExecutor(2) as pool:
        assign(zombie, 0, 1)
        with admin(postgres_url) as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE users")
            writing = pool.submit(zombie.apply, [batch_of(0), batch_of(1)])
            wait_until(lambda: sessions_waiting(other))
            taking_over = pool.submit(assign, successor, 0)
            assert not taking_over.done()
            other.execute("ROLLBACK")
        assert writing.result().ratings > 0
        assert list(taking_over.result().values()) == [len(log_of(0))]
    assert views(postgres_url) == views(build(f"sqlite:///{tmp_path}/features.db"))


def test_a_worker_publishes_and_forgets_only_what_its_partitions_owe(postgres_url: str) -> None:
    with writer_on(postgres_url) as first, writer_on(postgres_url) as second:
        assign(first, 0, 1)
        assign(second, 2)
        first.apply([batch_of(0), batch_of(1)])
        second.apply([batch_of(2)])
        owed = first.outbox()
        assert [{row.partition for row in owed}, {row.partition for row in second.outbox()}] == [{0, 1}, {2}]
        first.release([0])
        assert list(assign(second, 0).values()) == [len(log_of(0))]
        second.published([row for row in second.outbox() if row.partition == 2])
        assert {row.partition for row in second.outbox()} == {0}, "forgot what was not yet published"
        first.published(owed)
        assert (first.outbox(), second.outbox()) == ([], [])


# Lost connections


def test_a_connection_that_is_lost_in_a_transaction_leaves_nothing_and_is_made_again(
    postgres_url: str, tmp_path: Path
) -> None:
    with writer_on(postgres_url) as writer, ThreadPoolExecutor(1) as pool:
        assign(writer, 0, 1)
        writer.apply([batch_of(0, 0, 100)])
        before = views(postgres_url)
        with admin(postgres_url) as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE users")
            writing = pool.submit(writer.apply, [batch_of(0, 100), batch_of(1)])
            (pid,) = wait_until(lambda: sessions_waiting(other))
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
            other.execute("ROLLBACK")
        with pytest.raises(StoreUnavailable, match="ended the connection"):
            writing.result()
        assert views(postgres_url) == before
        writer.apply([batch_of(0, 100), batch_of(1)])
    assert views(postgres_url) == views(build(f"sqlite:///{tmp_path}/features.db"))


class Cable:
    """Between a client and the server; it is cut after the client's next COMMIT went through, before the answer."""

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._target = (parts.hostname, parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_after_commit = False
        self._committed = False
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(*ends, ends[0] is client), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if from_client and self.cut_after_commit and b"COMMIT" in data:
                    self._committed = True
                elif not from_client and self._committed:
                    self.cut_after_commit = self._committed = False
                    break
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self) -> None:
        self._listener.close()


def test_a_commit_whose_answer_was_lost_counts_once(
    postgres_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    cable = Cable(postgres_url)
    request.addfinalizer(cable.close)
    address = urlsplit(postgres_url)
    through = address._replace(
        netloc=f"{address.username}@127.0.0.1:{cable.port}", query=f"{address.query}&sslmode=disable"
    )
    with writer_on(through.geturl()) as writer:
        assign(writer, 0, 1)
        cable.cut_after_commit = True
        with pytest.raises(StoreUnavailable):
            writer.apply([batch_of(0, 0, 200)])
        assert rows(postgres_url, "SELECT next_offset FROM applied WHERE partition = 0") == [(200,)]
        again = writer.apply([batch_of(0, 0, 200), batch_of(1)])
        assert again.ratings == sum(cursor.ratings for cursor in writer.cursors.values())
        writer.apply([batch_of(0, 200)])
    assert views(postgres_url) == views(build(f"sqlite:///{tmp_path}/features.db"))


def test_a_writer_notices_that_the_server_lost_transactions_in_a_crash(postgres_url: str) -> None:
    """They were not yet on its disk. With or without something to write, it holds nothing until it has taken over."""
    with writer_on(postgres_url) as writer, admin(postgres_url) as other:
        assign(writer, 0, 1)
        for notice in (lambda: writer.apply([batch_of(0, 100)]), writer.check):
            writer.apply([batch_of(0, 0, 100)])
            writer.check()
            other.execute("UPDATE applied SET next_offset = 50 WHERE partition = 0")
            with pytest.raises(StoreSetBack, match=r"up to offset 100, found 50: .* read again from there"):
                notice()
            assert writer.cursors == {}
            assert assign(writer, 0, 1) == {TopicPartition("ratings", 0): 50, TopicPartition("ratings", 1): 0}


def test_what_another_took_over_is_not_set_back(postgres_url: str) -> None:
    with writer_on(postgres_url) as writer, admin(postgres_url) as other:
        assign(writer, 0)
        writer.apply([batch_of(0, 0, 100)])
        other.execute("UPDATE applied SET next_offset = 50, epoch = epoch + 1")
        writer.check()


@pytest.mark.slow
def test_who_is_stopped_within_a_transaction_is_in_nobodys_way_for_long(postgres_url: str) -> None:
    with writer_on(postgres_url) as stopped, writer_on(postgres_url) as writer:
        assign(stopped, 0)

        def stand_still() -> None:
            with stopped.database.transaction():
                stopped.database.execute("UPDATE applied SET next_offset = next_offset")
                assign(writer, 0)
                stopped.database.execute("UPDATE applied SET next_offset = next_offset")

        with pytest.raises(StoreUnavailable, match="was this process stopped"):
            stand_still()
        with pytest.raises(WriterFenced):
            stopped.apply([batch_of(0)])


# What is read


def test_every_read_answers_as_on_sqlite(postgres_url: str, tmp_path: Path) -> None:
    urls = [build(f"sqlite:///{tmp_path}/features.db"), build(postgres_url)]
    as_of = T0 + 300 * 7_000

    def answers(url: str) -> Iterator[object]:
        with PopularityReader(url) as reader:
            for moment in (None, as_of, T0):
                yield reader.get_user_features(range(10), moment)
                yield reader.get_item_features(range(22), moment)
                yield [(p.movie_id, round(p.score, 9)) for p in reader.popular_decayed(moment)]
                yield reader.popular(as_of=moment)
                yield [reader.top_items(ranking, moment) for ranking in RANKINGS]
                yield reader.history(3, moment)
                yield reader.sample_users(5, moment), reader.sample_movies(5, moment)
            yield reader.user_ids(3), reader.movie_ids(3), reader.clock(), reader.outbox_size()
            yield reader.catalogue.fingerprint, reader.movies([1, 99])
            yield list(reader.history_pages(as_of, page_blocks=3))
            with CachedReader(reader, None) as cached:
                yield cached.user_profile(3, None).latest
            yield baseline_of(reader, as_of)
            assert baseline_of(reader, as_of) is not None
        out = tmp_path / url.partition(":")[0]
        yield take_snapshot(url, out, as_of).snapshot_id

    def plain(value: object) -> object:
        if hasattr(value, "__dataclass_fields__"):
            return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, np.ndarray):
            return np.round(value, 9).tolist() if value.dtype.kind == "f" else value.tolist()
        return value

    on_sqlite, on_postgres = ([plain(answer) for answer in answers(url)] for url in urls)
    for found, expected in zip(on_postgres, on_sqlite, strict=True):
        assert repr(found) == repr(expected)


def test_the_baseline_is_kept_in_the_store(postgres_url: str) -> None:
    build(postgres_url)
    with FeatureReader(postgres_url) as reader:
        taken = baseline_of(reader, T0 + DAY_S)
    assert len(rows(postgres_url, "SELECT value FROM meta WHERE key = 'baseline'")) == 1
    with FeatureReader(postgres_url) as reader:
        assert baseline_of(reader, T0 + DAY_S) == taken


def test_a_reader_cannot_write(postgres_url: str) -> None:
    build(postgres_url)
    with FeatureReader(postgres_url) as reader, pytest.raises(StoreUnavailable, match="read-only"):
        reader.database.execute("DELETE FROM users")


def test_embeddings_lie_in_the_stores_schema_and_outlive_a_rebuild(postgres: PostgresStores) -> None:
    store = postgres.empty("embedded")
    url = embeddings_url(build(store))
    ids, vectors = np.array([7, 3, 2**62]), np.arange(12, dtype=np.float32).reshape(3, 4)
    with pytest.raises(StoreMissing, match="none yet"):
        EmbeddingStore(url)
    with EmbeddingStore(url, create=True) as written:
        manifest = written.write("item", "mf", "v1", ids, vectors, as_of=100)
    drop_store(store)
    with EmbeddingStore(url) as found:
        assert found.latest("item", "mf") == manifest
        assert found.read("item", "mf", [3, 99]).vectors.tolist() == [[4, 5, 6, 7], [0, 0, 0, 0]]
    assert (verify_embeddings(url).rows, verify_embeddings(url).mismatches) == (3, 0)
    with admin(store) as other:
        other.execute("UPDATE embeddings SET vector = decode('00000000', 'hex') WHERE entity_id = 7")
    assert verify_embeddings(url).mismatches == 1


async def test_verify_is_clean_and_finds_what_was_changed(postgres_url: str) -> None:
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(RATINGS, 2))
        async with bus.producer() as producer:
            for partition in range(2):
                for value in log_of(partition):
                    await producer.send(RATINGS, value, partition=partition, timestamp_ms=2 * 10**12)
        log = (await bus.topics())[RATINGS]
        with writer_on(postgres_url) as writer:
            writer.assign(log, await bus.offsets(RATINGS))
            writer.apply([batch_of(0), batch_of(1)])
        report = await verify(bus, postgres_url)
        assert report.ok, report
        assert report.events == sum(len(log_of(p)) for p in range(2))
        with admin(postgres_url) as other:
            other.execute("UPDATE item_days SET n = n + 1 WHERE ctid = (SELECT min(ctid) FROM item_days)")
            other.execute("UPDATE users SET taste = set_byte(taste, 7, 1) WHERE user_id = 3 AND partition = 0")
            other.execute("UPDATE user_history SET ratings = substr(ratings, 2) WHERE user_id = 4 AND partition = 1")
        report = await verify(bus, postgres_url)
        assert not report.ok
        assert {name for name, view in report.views.items() if view.mismatches} == {
            "item_days",
            "user_taste",
            "user_history",
        }


@pytest.mark.parametrize("source", ["with\0a zero", "x" * 100_000, "\ue000é"], ids=["zero", "long", "private"])
def test_a_source_may_be_any_text(stores: PostgresStores | SQLiteStores, source: str) -> None:
    url = stores.empty()
    value = msgspec.json.encode(Rating(1, 1, 3.0, T0, source, 7))
    batch = decode_ratings(RecordBatch("ratings", 0, np.arange(1), np.full(1, 2 * 10**12), 1, value))
    for applied in (1, 0):
        with writer_on(url) as writer:
            writer.assign(LOG, {TopicPartition("ratings", 0): OffsetRange(0, 1)})
            assert writer.cursors[0].last_ids == ({} if applied else {source: 7})
            assert writer.apply([batch]).ratings == applied


# Removed, missing, refused


def test_a_store_that_is_built_anew_stops_who_wrote_the_old_one(postgres_url: str) -> None:
    with writer_on(postgres_url) as writer, FeatureReader(postgres_url) as reader:
        assign(writer, 0)
        writer.apply([batch_of(0, 0, 100)])
        drop_store(postgres_url)
        with pytest.raises(StoreError, match="removed or replaced"):
            writer.apply([batch_of(0, 100)])
        with pytest.raises(StoreMissing, match="start `streamlens worker`"):
            FeatureReader(postgres_url)
        build(postgres_url)
        with pytest.raises(StoreError, match="removed or replaced"):
            writer.apply([batch_of(0, 100)])
        with pytest.raises(StoreError, match="removed or replaced"):
            reader.get_user_features([1])


def test_a_dropped_table_is_an_error_with_the_next_step(postgres: PostgresStores) -> None:
    url = postgres.empty("dropped")
    with writer_on(url) as writer:
        assign(writer, 0)
        with admin(url) as other:
            other.execute("DROP TABLE items")
        with pytest.raises(StoreError, match=r'"items" does not exist; .*--rebuild'):
            writer.apply([batch_of(0)])
    drop_store(url)
    build(url)


def server(url: str, *, user: str | None = None, database: str | None = None, password: str = "") -> str:
    parts = urlsplit(url)
    login = f"{user or parts.username}{':' if password else ''}{password}"
    path = f"/{database}" if database else parts.path
    return f"postgresql://{login}@{parts.hostname}:{parts.port}{path}?{parts.query}"


def refusal(url: str) -> StreamLensError:
    with pytest.raises(StreamLensError) as caught:
        writer_on(url)
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_missing_is_named_with_the_next_step(postgres_url: str) -> None:
    for missing, step in (({"database": "not_there"}, "createdb"), ({"user": "nobody_here"}, "createuser")):
        error = refusal(server(postgres_url, **missing))  # type: ignore[arg-type]
        assert type(error) is StoreError
        assert step in str(error)
    (port,) = free_ports(1)
    error = refusal(f"postgresql://ann:s3cret%21@127.0.0.1:{port}/features")
    assert type(error) is StoreUnavailable
    assert "s3cret" not in repr(error)
    assert f"postgresql://ann@127.0.0.1:{port}/features: cannot be reached" in str(error)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://h/db?schema=pg_mine", "found 'pg_mine'"),
        ("postgresql://h/db?schema=a%22b", "expected a schema"),
        ("postgresql://ann:s3cret@h/db?no_such=1", "no_such"),
        ("postgres://ann:s3cret@h/db", "expected sqlite:///PATH/features.db or postgresql://"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_config_error(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        writer_on(url)
    assert "s3cret" not in str(caught.value)


@pytest.fixture(scope="module")
def own_server() -> Iterator[LocalPostgres]:
    server = LocalPostgres()
    try:
        yield server
    finally:
        server.remove()


def test_passwords_and_permissions(own_server: LocalPostgres) -> None:
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE ann LOGIN PASSWORD 'right'")
        connection.execute("CREATE ROLE bob LOGIN")
    own_server.allow("host all ann 127.0.0.1/32 scram-sha-256")

    for url in (server(own_server.url, user="ann", password="wr0ng"), server(own_server.url, user="ann")):
        error = refusal(url)
        assert type(error) is StoreError
        assert "PGPASSWORD" in str(error)
        assert "wr0ng" not in str(error)

    error = refusal(server(own_server.url, user="ann", password="right"))
    assert "permission denied for database" in str(error)
    assert "docs/postgresql.md" in str(error)
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA streamlens AUTHORIZATION ann")
    url = build(server(own_server.url, user="ann", password="right"))

    with pytest.raises(StoreError, match="permission denied") as caught:
        FeatureReader(server(own_server.url, user="bob")).get_user_features([1])
    assert type(caught.value) is StoreError
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA streamlens TO bob")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA streamlens TO bob")
    with FeatureReader(server(own_server.url, user="bob")) as reader:
        assert reader.get_user_features([1]).known.tolist() == [True]
        assert "right" not in reader.database.label
    drop_store(url)


def test_too_many_connections_are_waited_for(own_server: LocalPostgres) -> None:
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0")
    error = refusal(server(own_server.url, user="few"))
    assert type(error) is StoreUnavailable
    assert "too many connections" in str(error)


def test_psycopg_is_needed_for_postgresql_only() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from featurestore.reader import FeatureReader
from streams.errors import StreamLensError
try:
    FeatureReader("postgresql://h/db")
except StreamLensError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'streamlens[postgres]'" in done.stdout

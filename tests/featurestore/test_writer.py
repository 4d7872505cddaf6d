"""The writer against a naive pass over the same log: any cut, any repetition, the same store."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st

from featurestore.catalogue import Catalogue
from featurestore.database import open_writer as open_database
from featurestore.features import WINDOWS_S
from featurestore.reader import FeatureReader
from featurestore.schema import HISTORY_BLOCK_SIZE, HISTORY_DTYPE, TASTE_DTYPE, metadata
from featurestore.view_settings import ViewSettings
from featurestore.writer import FeatureWriter
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.dataset import Movie
from streams.errors import ConfigError, LogReplaced, StoreAheadOfLog, StoreError, WriterFenced
from streams.events import DAY_S, HOUR_S, DeadLetter, Rating, Tick
from streams.records import RecordBatch, TopicPartition
from tests.stores import Stores, given_stores, rows

LOG = TopicInfo("ratings", 4, None, "log-1")
T0 = 1_000_000_000 - 1_000_000_000 % DAY_S
PUBLISHED_MS = 2_000_000_000_000
NOT_COMPARED = {"epoch", "applied_ms", "id"}


def record_batch(values: list[bytes], partition: int = 0, first: int = 0) -> RecordBatch:
    offsets = np.arange(first, first + len(values))
    published = np.full(len(values), PUBLISHED_MS)
    return RecordBatch("ratings", partition, offsets, published, first + len(values), b"\n".join(values))


def encode(record: object) -> bytes:
    return msgspec.json.encode(record)


CATALOGUE = Catalogue(
    [
        Movie(0, "Zero (1990)", 1990, ("Comedy", "Drama", "War")),
        Movie(1, "One", None, ("Drama",)),
        Movie(2, "Two", None, ()),  # and 3 is not known
    ]
)


def open_writer(url: str, **options: object) -> FeatureWriter:
    options = {"catalogue": CATALOGUE} | options
    return FeatureWriter(url, agent="features", topic="ratings", run_id="run", **options)  # type: ignore[arg-type]


def assign(writer: FeatureWriter, *ends: int, log: TopicInfo = LOG) -> dict[TopicPartition, int]:
    return writer.assign(log, {TopicPartition("ratings", p): OffsetRange(0, end) for p, end in enumerate(ends)})


def assert_same(found: str, expected: str) -> None:
    """Two stores are the same, but for the order in which floating-point sums were added up."""
    a, b = contents(found), contents(expected)
    assert a.keys() == b.keys()
    for table in a:
        assert len(a[table]) == len(b[table]), table
        for row, other in zip(a[table], b[table], strict=True):
            assert all(map(_is_same, row, other)), (table, row, other)


def _is_same(value: object, other: object) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-12)
    if isinstance(value, bytes) and isinstance(other, bytes) and len(value) == len(other) == TASTE_BYTES:
        return np.allclose(np.frombuffer(value, TASTE_DTYPE), np.frombuffer(other, TASTE_DTYPE), rtol=1e-12, atol=0)
    return value == other


TASTE_BYTES = 2 * len(CATALOGUE.genres) * TASTE_DTYPE.itemsize
assert TASTE_BYTES % HISTORY_DTYPE.itemsize, "no history block may look like a taste"


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every table's rows but for what may differ between two right runs: who wrote them, when, and the store's id."""
    return {
        table.name: sorted(
            rows(
                url,
                f"SELECT {', '.join(c.name for c in table.columns if c.name not in NOT_COMPARED)} FROM {table.name}"
                + (" WHERE key != 'store_id'" if table.name == "meta" else ""),
            ),
            key=lambda row: repr([value for value in row if not isinstance(value, float)]),
        )
        for table in metadata.sorted_tables
    }


ratings = st.builds(
    Rating,
    user_id=st.integers(0, 3),
    movie_id=st.integers(0, 3),
    rating=st.integers(1, 10).map(lambda half: half / 2),
    timestamp=st.integers(0, 400).map(lambda step: T0 + step * 900),
    source=st.sampled_from([None, "a", "b"]),
    event_id=st.integers(0, 20),
)
ticks = st.builds(Tick, event_time=st.integers(0, 5).map(lambda day: T0 + day * DAY_S), heartbeat=st.booleans())
garbage = st.sampled_from(
    [b"", b"{", b"null", b'{"user_id":-1}', b'{"user_id":1,"movie_id":1,"rating":9,"timestamp":0}']
)
logs = st.lists(st.one_of(ratings.map(encode), ratings.map(encode), ticks.map(encode), garbage), max_size=60)


@given_stores(60, logs=st.lists(logs, min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_any_cut_and_any_repetition_give_the_store_of_one_pass(
    stores: Stores, logs: list[list[bytes]], seed: int
) -> None:
    rng = random.Random(seed)
    once_url, many_url = stores.empty("once"), stores.empty("many")
    with open_writer(once_url) as once:
        assign(once, *map(len, logs))
        once.apply([decode_ratings(record_batch(log, p)) for p, log in enumerate(logs) if log])
    writer = open_writer(many_url)
    assign(writer, *map(len, logs))
    deliveries = []
    for p, log in enumerate(logs):
        cuts = sorted({0, len(log), *(rng.randrange(len(log) + 1) for _ in range(4))})
        for a, b in pairwise(cuts):
            back = rng.randrange(a + 1)  # delivered again from further back, as after a restart
            deliveries.append((p, a, log[back:b], back))
    deliveries.sort(key=lambda d: (d[1], d[0]))
    while deliveries:
        together, deliveries = deliveries[: (n := rng.randrange(1, 4))], deliveries[n:]
        writer.apply([decode_ratings(record_batch(values, p, first)) for p, _, values, first in together])
        if rng.random() < 0.3:  # a crash after the commit: the next writer goes on from the store alone
            writer.close()
            writer = open_writer(many_url)
            assign(writer, *map(len, logs))
    writer.close()
    assert_same(many_url, once_url)


@given_stores(40, rated=st.lists(ratings, max_size=60), seed=st.integers(0, 2**32))
def test_views_do_not_depend_on_partitions_or_order(stores: Stores, rated: list[Rating], seed: int) -> None:
    rated = [msgspec.structs.replace(r, source=None) for r in rated]
    rng = random.Random(seed)
    answers = []
    for attempt in range(2):
        partition = [rng.randrange(4) for _ in rated] if attempt else [0] * len(rated)
        shuffled = rng.sample(list(zip(rated, partition, strict=True)), len(rated)) if attempt else None
        log = shuffled or list(zip(rated, partition, strict=True))
        url = stores.empty()
        with open_writer(url) as writer:
            assign(writer, *(len(rated),) * 4)
            for p in range(4):
                if values := [encode(r) for r, at in log if at == p]:
                    writer.apply([decode_ratings(record_batch(values, p))])
        with FeatureReader(url) as reader:
            features = [
                reader.get_user_features(range(5)),
                *(reader.get_item_features(range(5), as_of=T0 + h * HOUR_S) for h in (0, 1, 25, 60, 200)),
            ]
            answers.append([repr(vars_of(f)) for f in features])
    assert answers[0] == answers[1]


def vars_of(features: object) -> dict[str, object]:
    return {name: getattr(features, name) for name in features.__dataclass_fields__}  # type: ignore[attr-defined]


# Hours before or after as-of, near it and near where each window begins.
hours_off = st.sampled_from([0, 1, 24, 168, 672]).flatmap(lambda h: st.integers(-h - 2, -h + 2))


@given_stores(
    100,
    rated=st.lists(st.tuples(ratings, hours_off, st.integers(0, HOUR_S - 1)), min_size=1, max_size=60),
    as_of_h=st.integers(0, 24),
    now=st.booleans(),
)
def test_reads_equal_a_naive_count(
    stores: Stores, rated: list[tuple[Rating, int, int]], as_of_h: int, now: bool
) -> None:
    as_of = T0 + 40 * DAY_S + as_of_h * HOUR_S + 1_234
    hour_start = as_of - as_of % HOUR_S
    near = [
        msgspec.structs.replace(r, source=None, timestamp=hour_start + off * HOUR_S + second)
        for r, off, second in rated
    ]
    check_reads(stores, near, as_of)
    if now:
        check_windows_now(stores, near, as_of)


def check_windows_now(stores: Stores, rated: list[Rating], clock: int) -> None:
    """Now is the clock's hour included; totals are of everything."""
    log = [*map(encode, rated), encode(Tick(clock))]
    end = clock - clock % HOUR_S + HOUR_S
    url = stores.empty()
    with open_writer(url) as writer:
        assign(writer, len(log))
        writer.apply([decode_ratings(record_batch(log))])
    with FeatureReader(url) as reader:
        item = reader.get_item_features(range(5))
    assert item.as_of == end
    for movie in range(5):
        times = [r.timestamp for r in rated if r.movie_id == movie]
        assert (item.n_ratings[movie], item.last_rated[movie]) == (len(times), max(times, default=0))
        for window, seconds in WINDOWS_S.items():
            assert item.window_n[window][movie] == sum(end - seconds <= t < end for t in times)


def check_reads(stores: Stores, rated: list[Rating], as_of: int) -> None:
    hour_start = as_of - as_of % HOUR_S
    url = stores.empty()
    with open_writer(url) as writer:
        assign(writer, len(rated))
        writer.apply([decode_ratings(record_batch([encode(r) for r in rated]))])
    with FeatureReader(url) as reader:
        popular = {p.movie_id: p.n_ratings for p in reader.popular(as_of=as_of)}
        item = reader.get_item_features(range(5), as_of=as_of)
        user = reader.get_user_features(range(5), as_of=as_of)
        histories = [reader.history(u, before=as_of) for u in range(5)]
    day_start = as_of - as_of % DAY_S
    for movie in range(5):
        times = [r.timestamp for r in rated if r.movie_id == movie]
        assert popular.get(movie, 0) == sum(day_start - 28 * DAY_S <= t < day_start for t in times)
        stars = [(r.timestamp, r.rating) for r in rated if r.movie_id == movie and r.timestamp < hour_start]
        assert item.n_ratings[movie] == len(stars)
        hours = [t // HOUR_S * HOUR_S for t, _ in stars]
        assert item.last_rated[movie] == max(hours, default=0)
        assert item.first_rated[movie] == min((t for t, _ in stars), default=0)
        for window, seconds in WINDOWS_S.items():
            inside = [x for t, x in stars if t >= hour_start - seconds]
            assert item.window_n[window][movie] == len(inside)
            expected = np.mean(inside) if inside else np.nan
            assert item.window_mean[window][movie] == pytest.approx(expected, nan_ok=True)
    for user_id in range(5):
        mine = sorted(
            (r.timestamp, r.movie_id, r.rating) for r in rated if r.user_id == user_id and r.timestamp < as_of
        )
        assert user.n_ratings[user_id] == len(mine)
        assert sorted(zip(*columns(histories[user_id]), strict=True)) == mine
        session: list[int] = []
        for t, *_ in mine:
            session = [*session, t] if session and t - session[-1] < 1_800 else [t]
        assert user.session_n[user_id] == len(session)
        assert user.session_start[user_id] == (session[0] if session else 0)


def columns(history: object) -> tuple[list[float], ...]:
    return tuple(getattr(history, name).tolist() for name in ("timestamp", "movie_id", "rating"))


def test_a_history_is_cut_into_full_blocks_however_it_was_written(stores: Stores) -> None:
    url = stores.empty()
    values = [encode(Rating(1, m, 3.0, T0 + m)) for m in range(2_500)]
    with open_writer(url) as writer:
        assign(writer, len(values))
        for a, b in pairwise([0, 1, 1_000, 1_100, 2_400, 2_500]):
            writer.apply([decode_ratings(record_batch(values[a:b], first=a))])
    sizes = rows(url, "SELECT block, length(ratings) FROM user_history ORDER BY block")
    full = HISTORY_BLOCK_SIZE * HISTORY_DTYPE.itemsize
    assert sizes == [(0, full), (1, full), (2, (2_500 - 2 * HISTORY_BLOCK_SIZE) * HISTORY_DTYPE.itemsize)]


def test_late_is_judged_by_the_last_boundary_tick_before_the_record(stores: Stores) -> None:
    url = stores.empty()
    late, in_time = Rating(1, 1, 3.0, T0), Rating(1, 2, 3.0, T0 + DAY_S)
    log = [
        encode(late),  # before any tick nothing is late
        encode(Tick(T0 + 3 * DAY_S, heartbeat=True)),
        encode(late),  # heartbeats close nothing
        encode(Tick(T0 + 2 * DAY_S)),
        encode(late),
        encode(in_time),
    ]
    with open_writer(url) as writer:
        assign(writer, len(log))
        applied = writer.apply([decode_ratings(record_batch(log))])
        assert (applied.ratings, applied.late) == (4, 1)
        assert (writer.cursors[0].clock, writer.cursors[0].closed) == (T0 + 3 * DAY_S, T0 + 2 * DAY_S)
    with FeatureReader(url) as reader:
        assert reader.history(1).late.tolist() == [False, False, True, False]


def test_invalid_records_leave_through_the_outbox_once_and_in_order(stores: Stores) -> None:
    url = stores.empty()
    log = [b"\xff", b"{}", encode(Rating(1, 1, 3.0, T0)), b"[]"]
    with open_writer(url) as writer:
        assign(writer, len(log))
        writer.apply([decode_ratings(record_batch(log))])
        writer.apply([decode_ratings(record_batch(log))])
        owed = writer.outbox()
        letters = [msgspec.json.decode(row.value, type=DeadLetter) for row in owed]
        assert [(x.source, x.event_id, x.offset) for x in letters] == [
            ("run/features/ratings/0", 1, 0),
            ("run/features/ratings/0", 2, 1),
            ("run/features/ratings/0", 3, 3),
        ]
        assert letters[0].encoding == "base64"
        writer.published(owed[:2])
        assert [row.id for row in writer.outbox()] == [owed[2].id]


def test_who_still_publishes_forgotten_rows_forgets_no_newer_ones(stores: Stores) -> None:
    """A worker that was replaced, or is refused, publishes the outbox too; all of it may be gone meanwhile."""
    url = stores.empty()
    log = [b"{}", b"[]"]
    with open_writer(url) as other, open_writer(url) as writer:
        assign(other, len(log))
        other.apply([decode_ratings(record_batch(log[:1]))])
        published_twice = other.outbox()
        assign(writer, len(log))
        writer.published(writer.outbox())
        writer.apply([decode_ratings(record_batch(log[1:], first=1))])
        other.published(published_twice)
        assert [msgspec.json.decode(row.value, type=DeadLetter).offset for row in writer.outbox()] == [1]


def test_a_row_that_has_the_id_of_another_is_not_forgotten_for_it(stores: Stores) -> None:
    """A server that lost its last transactions gives their ids again."""
    with open_writer(stores.empty()) as writer:
        assign(writer, 1)
        writer.apply([decode_ratings(record_batch([b"{}"]))])
        published = writer.outbox()
        with writer.database.transaction():
            writer.database.execute("UPDATE outbox SET record_key = ?", b"ratings/0/7")
        writer.published(published)
        assert [row.key for row in writer.outbox()] == [b"ratings/0/7"]
        writer.published(writer.outbox())
        assert writer.outbox() == []


def test_a_zombies_late_write_is_refused(stores: Stores) -> None:
    url = stores.empty()
    batches = [decode_ratings(record_batch([encode(Rating(1, i, 3.0, T0))], first=i)) for i in range(2)]
    with open_writer(url) as zombie, open_writer(url) as successor:
        assign(zombie, 2)
        zombie.apply(batches[:1])
        assert assign(successor, 2) == {TopicPartition("ratings", 0): 1}
        with pytest.raises(WriterFenced, match="another worker took over ratings/0"):
            zombie.apply(batches[1:])
        assert zombie.cursors == {}
        successor.apply(batches[1:])
        assert successor.cursors[0].ratings == 2


def test_what_was_released_is_no_longer_written_and_its_successor_goes_on(stores: Stores) -> None:
    url = stores.empty()
    batches = [
        [decode_ratings(record_batch([encode(Rating(1, i, 3.0, T0))], partition=p, first=i)) for i in range(2)]
        for p in range(2)
    ]
    with open_writer(url) as first, open_writer(url) as second:
        assign(first, 2, 2)
        first.apply([batches[0][0], batches[1][0]])
        first.release([1])
        assert set(first.cursors) == {0}
        assert second.assign(LOG, {TopicPartition("ratings", 1): OffsetRange(0, 2)}) == {
            TopicPartition("ratings", 1): 1
        }
        assert first.apply([batches[0][1], batches[1][1]]).ratings == 1  # of the partition it still holds
        assert second.apply([batches[1][1]]).ratings == 1
        assert (first.cursors[0].ratings, second.cursors[1].ratings) == (2, 2)


def test_a_store_ahead_of_its_log_and_a_replaced_log_are_refused(stores: Stores) -> None:
    url = stores.empty()
    with open_writer(url) as writer:
        assign(writer, 1)
        writer.apply([decode_ratings(record_batch([encode(Rating(1, 1, 3.0, T0))]))])
    with open_writer(url) as writer:
        before = contents(url)
        with pytest.raises(StoreAheadOfLog, match="worker --rebuild"):
            assign(writer, 0)
        with pytest.raises(LogReplaced, match="worker --rebuild"):
            assign(writer, 1, log=TopicInfo("ratings", 4, None, "log-2"))
        assert contents(url) == before


def test_a_store_keeps_the_settings_it_was_built_with(stores: Stores) -> None:
    url = stores.empty()
    open_writer(url).close()
    with pytest.raises(ConfigError, match="built with lateness_s = 86400, asked for 1"):
        open_writer(url, views=ViewSettings(lateness_s=1))


def test_writing_to_a_deleted_file_is_an_error(tmp_path: Path) -> None:
    with open_writer(f"sqlite:///{tmp_path}/features.db") as writer:
        assign(writer, 1)
        (tmp_path / "features.db").unlink()
        with pytest.raises(StoreError, match="removed or replaced"):
            writer.apply([decode_ratings(record_batch([encode(Rating(1, 1, 3.0, T0))]))])


def test_garbage_in_place_of_a_store_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "features.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a healthy SQLite database"):
        open_writer(f"sqlite:///{tmp_path}/features.db")


def test_sums_over_many_users_match(stores: Stores) -> None:
    """More rows than one statement inserts, with ids near the end of int64."""
    url = stores.empty()
    rng = random.Random(1)
    rated = [
        Rating(2**63 - 1 - rng.randrange(900), 2**62 + rng.randrange(900), rng.randrange(1, 11) / 2, T0 + i * 60)
        for i in range(5_000)
    ]
    with open_writer(url) as writer:
        assign(writer, len(rated))
        for first in range(0, 5_000, 1_700):
            part = [encode(r) for r in rated[first : first + 1_700]]
            writer.apply([decode_ratings(record_batch(part, first=first))])
    expected: dict[tuple[int, int], list[float]] = defaultdict(list)
    for r in rated:
        expected[r.timestamp // HOUR_S, r.movie_id].append(r.rating * 2)
    hours = rows(url, "SELECT hour, movie_id, n, half_stars FROM item_hours")
    assert {(h, m): (n, s) for h, m, n, s in hours} == {k: (len(v), sum(v)) for k, v in expected.items()}
    by_user = Counter(r.user_id for r in rated)
    with FeatureReader(url) as reader:
        found = reader.get_user_features(list(by_user))
        assert found.n_ratings.tolist() == list(by_user.values())
        assert [len(reader.history(user_id)) for user_id in by_user] == list(by_user.values())


def test_ids_may_come_as_columns_and_one_snapshot_may_hold_every_read(stores: Stores) -> None:
    url = stores.empty()
    with open_writer(url) as writer:
        assign(writer, 2, 2)
        for p, movie in enumerate((5, 6)):
            writer.apply([decode_ratings(record_batch([encode(Rating(1, movie, 3.0, T0)), encode(Tick(T0))], p))])
        with FeatureReader(url) as reader, reader.snapshot():
            users = reader.get_user_features(np.array([1, 2, 1]))
            assert (users.known.tolist(), users.n_ratings.tolist()) == ([True, False, True], [2, 0, 2])
            writer.apply([decode_ratings(record_batch([encode(Rating(2, 7, 3.0, T0))], first=2))])
            items = reader.get_item_features(np.array([5, 6, 7]))
            assert items.known.tolist() == [True, True, False], "the snapshot was left by a read within it"
            assert {item.movie_id for item in reader.popular()} == {5, 6}
            assert reader.get_user_features([2]).known.tolist() == [False]


def test_a_store_has_its_settings_as_soon_as_it_can_be_opened(stores: Stores) -> None:
    url = stores.empty()
    views = ViewSettings(lateness_s=7, session_gap_s=9, popularity_half_life_days=30, taste_half_life_days=60.5)
    open_database(url, views, CATALOGUE).close()
    with FeatureReader(url) as reader:
        assert reader.settings == views
        assert reader.catalogue.fingerprint == CATALOGUE.fingerprint
        assert reader.movies([2, 9]) == {2: CATALOGUE.movies[2]}

"""With a cache or without one the answers are the same; whatever befalls its files costs speed and nothing else."""

from __future__ import annotations

import json
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from featurestore.cache import LATEST_RATINGS, PROFILE_TTL_S, CachedReader
from featurestore.catalogue import Catalogue
from featurestore.features import WINDOWS_S
from featurestore.reader import FeatureReader
from featurestore.writer import FeatureWriter
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.clock import ManualClock
from streams.dataset import Movie
from streams.events import DAY_S, Rating, Tick
from streams.records import RecordBatch, TopicPartition

T0 = 1_000_000_000 - 1_000_000_000 % DAY_S
LARGEST_ID = 2**63 - 1
CATALOGUE = Catalogue([Movie(m, f"Movie {m}", 1990, ("Comedy", "War")[: m % 3]) for m in range(8)])
RATINGS = [Rating(n % 5, n * 7 % 11, n % 10 / 2 + 0.5, T0 + n * 9_973) for n in range(300)]
LAST = [Rating(LARGEST_ID, LARGEST_ID, 3.5, T0 + 301 * 9_973), *(Tick(T0 + 40 * DAY_S),) * 2]
QUESTIONS: list[Callable[[CachedReader], object]] = [
    *(lambda c, u=u: as_text(c.user_profile(u)) for u in (0, 1, 4, 77, LARGEST_ID)),
    *(lambda c, u=u: as_text(c.user_profile(u, T0 + 20 * DAY_S + 99)) for u in (0, LARGEST_ID)),
    *(lambda c, s=s: c.popular(s) for s in WINDOWS_S.values()),
    lambda c: c.popular(7 * DAY_S, T0 + 12 * DAY_S),
    lambda c: c.popular(k=3),
    lambda c: c.popular(k=1_000),
    lambda c: c.popular_decayed(k=3),
    lambda c: c.popular_decayed(T0 + 12 * DAY_S),
]

BuildStore = Callable[..., str]


def as_text(value: object) -> str:
    """Every number in full, NaN included."""
    if isinstance(value, np.ndarray):
        return repr((value.dtype.str, value.shape, value.ravel().tolist()))
    names = getattr(type(value), "__dataclass_fields__", ())
    return f"{type(value).__name__}{[(name, as_text(getattr(value, name))) for name in names] or repr(value)}"


@pytest.fixture
def url(build_store: BuildStore, tmp_path: Path) -> str:
    return build_store([*RATINGS, *LAST], catalogue=CATALOGUE, path=tmp_path / "features.db")


@pytest.fixture
def reader(url: str) -> Iterator[FeatureReader]:
    with FeatureReader(url) as reader:
        yield reader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def answers(reader: FeatureReader, folder: Path | None) -> list[object]:
    with CachedReader(reader, folder) as cached:
        return [ask(cached) for ask in QUESTIONS]


def test_answers_are_the_same_without_with_and_from_the_cache(
    reader: FeatureReader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answers(reader, None)
    assert answers(reader, folder) == expected
    for name in ("get_user_features", "history", "popular", "popular_decayed"):
        monkeypatch.setattr(reader, name, lambda *_, name=name: pytest.fail(f"{name} was read again"))
    assert answers(reader, folder) == expected


def test_answers_are_the_readers_own(reader: FeatureReader, folder: Path) -> None:
    with CachedReader(reader, folder) as cached:
        for _ in range(2):
            assert cached.popular(DAY_S, k=4) == reader.popular(DAY_S, k=4)
            assert cached.popular_decayed(k=4) == reader.popular_decayed(k=4)
            profile = cached.user_profile(3)
            assert as_text(profile.features) == as_text(reader.get_user_features([3]))
            assert profile.latest.timestamp.tolist() == reader.history(3).timestamp.tolist()[-LATEST_RATINGS:]


def test_what_is_kept_is_json_that_any_program_reads(reader: FeatureReader, folder: Path) -> None:
    answers(reader, folder)
    with closing(sqlite3.connect(folder / "cache.db")) as connection:
        rows = connection.execute("SELECT mode, filename, value FROM Cache").fetchall()
    assert len(rows) > 5
    for mode, filename, value in rows:
        assert (mode, filename) == (1, None)
        json.loads(zlib.decompress(value), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_update_is_seen_at_once(
    reader: FeatureReader, folder: Path, build_store: BuildStore, tmp_path: Path
) -> None:
    with CachedReader(reader, folder) as cached:
        before = cached.user_profile(1).features
        more = [Rating(1, 5, 4.0, T0 + 41 * DAY_S)] * 2
        build_store([*RATINGS, *LAST, *more], catalogue=CATALOGUE, path=tmp_path / "features.db")
        after = cached.user_profile(1)
        assert after.features.n_ratings[0] == before.n_ratings[0] + 2
        assert as_text(after) == as_text(CachedReader(reader, None).user_profile(1))


def test_the_cache_agrees_with_the_store_while_a_writer_applies(tmp_path: Path, folder: Path) -> None:
    """Several readers share one cache; each compares within a snapshot, so at the same offsets."""
    url = f"sqlite:///{tmp_path}/features.db"
    writer = FeatureWriter(url, agent="features", topic="ratings", catalogue=CATALOGUE)
    tp = TopicPartition("ratings", 0)
    writer.assign(TopicInfo("ratings", 1, None, "log"), {tp: OffsetRange(0, 100_000)})
    states: set[int] = set()
    compared: list[int] = []
    failures: list[BaseException] = []
    enough = threading.Event()

    def apply() -> None:
        try:
            first = 0
            while not enough.is_set():
                rows: list[Rating | Tick] = [Rating(n % 5, n % 9, 3.5, T0 + n * 500) for n in range(first, first + 20)]
                rows.append(Tick(T0 + (first + 20) * 500))
                offsets, times = np.arange(first, first + 21), np.full(21, 2 * 10**12)
                lines = b"\n".join(map(msgspec.json.encode, rows))
                writer.apply([decode_ratings(RecordBatch("ratings", 0, offsets, times, first + 21, lines))])
                first += 21
        except BaseException as error:
            failures.append(error)

    def compare() -> None:
        try:
            with FeatureReader(url) as reader, CachedReader(reader, folder) as cached:
                while not enough.is_set():
                    free = as_text(cached.user_profile(2)), cached.popular_decayed()  # whatever state it meets
                    assert free
                    with reader.snapshot():
                        plain = CachedReader(reader, None)
                        assert as_text(cached.user_profile(2)) == as_text(plain.user_profile(2))
                        assert cached.popular(DAY_S, k=5) == plain.popular(DAY_S, k=5)
                        assert cached.popular_decayed(k=5) == plain.popular_decayed(k=5)
                        states.add(reader.applied()[0].next_offset)
                    compared.append(1)
                    if len(states) > 60:
                        enough.set()
        except BaseException as error:
            failures.append(error)
            enough.set()

    threads = [threading.Thread(target=target) for target in (apply, compare, compare, compare)]
    for thread in threads:
        thread.start()
    enough.wait(60)
    enough.set()
    for thread in threads:
        thread.join(60)
    writer.close()
    assert failures == []
    assert len(states) > 60
    assert len(compared) >= len(states) // 3


def test_a_store_that_was_built_anew_meets_no_old_entries(
    build_store: BuildStore, tmp_path: Path, folder: Path
) -> None:
    """As many records, at the same offsets of a log of the same id; only the store is another."""
    path = tmp_path / "features.db"
    for movie in (1, 2):
        with FeatureReader(build_store([Rating(1, movie, 3.0, T0)] * 2, path=path)) as reader:
            assert [item.movie_id for item in CachedReader(reader, folder).popular_decayed()] == [movie]
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def test_another_model_version_has_entries_of_its_own(
    reader: FeatureReader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CachedReader(reader, folder, model_version="1").popular()
    monkeypatch.setattr(reader, "popular", lambda *_: [])
    assert CachedReader(reader, folder, model_version="1").popular() != []
    assert CachedReader(reader, folder, model_version="2").popular() == []


def test_an_entry_expires(reader: FeatureReader, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    cached = CachedReader(reader, folder, wall_s=clock.time)
    reads = []
    history = reader.history
    monkeypatch.setattr(reader, "history", lambda *args: reads.append(args) or history(*args))
    cached.user_profile(1)
    clock.advance(PROFILE_TTL_S - 1)
    cached.user_profile(1)
    assert len(reads) == 1
    clock.advance(1)
    cached.user_profile(1)
    assert len(reads) == 2
    clock.advance(-10)
    cached.user_profile(1)
    assert len(reads) == 3, "kept in the future: who knows how long ago"


def test_the_oldest_entries_leave_when_it_is_full(reader: FeatureReader, folder: Path) -> None:
    with CachedReader(reader, folder, size_limit_bytes=200_000) as cached:
        for k in range(101, 501):
            cached.popular(as_of=T0 + 12 * DAY_S, k=k)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".db") < 300_000


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database, " * 500)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def _overwrite_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4_096:] = b"\x5a" * (len(content) - 4_096)
    path.write_bytes(content)


def _sql(statement: str, *arguments: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement, arguments)

    return change


class _Ran:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was loaded",))


DAMAGE = {
    "garbage": _garbage,
    "cut short": _cut,
    "overwritten": _overwrite_the_middle,
    "no table": _sql("DROP TABLE Cache"),
    "no settings": _sql("DELETE FROM Settings"),
    "empty values": _sql("UPDATE Cache SET value = x''"),
    "a bit flipped": _sql("UPDATE Cache SET value = CAST(substr(value, 1, 20) || x'00' || substr(value, 22) AS BLOB)"),
    "values swapped": _sql("UPDATE Cache SET value = (SELECT value FROM Cache ORDER BY rowid LIMIT 1)"),
    "other JSON": _sql("UPDATE Cache SET value = ?", zlib.compress(b'{"a": 1}')),
    "pickles": _sql("UPDATE Cache SET mode = 4, value = ?", pickle.dumps(_Ran())),
    "files": _sql("UPDATE Cache SET mode = 2, filename = '../features.db'"),
}

MENDED_BY_DISKCACHE = {"no table", "no settings"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_costs_speed_alone_and_is_begun_anew(reader: FeatureReader, folder: Path, damage: str) -> None:
    expected = answers(reader, folder)
    for suffix in ("-wal", "-shm"):
        assert not (folder / f"cache.db{suffix}").exists()
    DAMAGE[damage](folder / "cache.db")
    with capture_logs() as logs:
        assert answers(reader, folder) == expected
    assert len(logs) <= 1
    assert logs or damage in MENDED_BY_DISKCACHE
    with capture_logs() as logs:
        assert answers(reader, folder) == answers(reader, folder) == expected
    assert logs == []
    assert [path.name for path in folder.parent.glob("cache*")] == ["cache"]


def test_a_locked_cache_is_not_waited_for(reader: FeatureReader, folder: Path) -> None:
    expected = answers(reader, folder)
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with capture_logs() as logs:
            assert answers(reader, folder) == expected
        assert [log["log_level"] for log in logs] == ["info"]
        assert "left alone" in logs[0]["event"]
    with capture_logs() as logs:
        assert answers(reader, folder) == expected
    assert logs == []


def test_a_full_disk_costs_speed_alone(reader: FeatureReader, folder: Path) -> None:
    with CachedReader(reader, folder) as cached, capture_logs() as logs:
        expected = as_text(cached.user_profile(0))
        assert cached._cache is not None
        assert cached._cache._cache is not None
        connection = cached._cache._cache._con
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        for k in range(100, 200):
            cached.popular(k=k)
        assert as_text(cached.user_profile(0)) == expected
    assert len(logs) == 1
    assert folder.exists()


def test_a_cache_that_is_removed_while_open_costs_nothing(reader: FeatureReader, folder: Path) -> None:
    with CachedReader(reader, folder) as cached:
        expected = [ask(cached) for ask in QUESTIONS]
        folder.rename(folder.with_name("gone"))
        assert [ask(cached) for ask in QUESTIONS] == expected
        for path in folder.with_name("gone").iterdir():
            path.unlink()
        assert [ask(cached) for ask in QUESTIONS] == expected
    assert answers(reader, folder) == expected


def test_a_cache_that_cannot_be_made_costs_speed_alone(reader: FeatureReader, folder: Path) -> None:
    folder.write_text("a file in its place")
    with capture_logs() as logs:
        assert answers(reader, folder) == answers(reader, None)
    assert len(logs) == 1
    assert folder.read_text() == "a file in its place"


WRITES_FOR_EVER = """
import sys
from pathlib import Path
from featurestore.disk_cache import DiskCache
cache = DiskCache(Path(sys.argv[1]))
for n in range(10**9):
    cache.set(f"key {n % 50}", ["x" * 500, n], 600.0)
    if n == 200:
        print("begun", flush=True)
"""


def test_a_process_killed_while_it_writes_leaves_a_cache_that_works(reader: FeatureReader, folder: Path) -> None:
    for _ in range(3):
        command = [sys.executable, "-c", WRITES_FOR_EVER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGKILL)
        with capture_logs() as logs:
            assert answers(reader, folder) == answers(reader, None)
        assert logs == []

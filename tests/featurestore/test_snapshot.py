"""A snapshot holds what the store gives as of its event time, whole or not at all, whatever goes on meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.catalogue import EMPTY_CATALOGUE, Catalogue
from featurestore.reader import FeatureReader
from featurestore.snapshot import take_snapshot
from featurestore.snapshot_manifest import manifest_path, read_manifest
from featurestore.snapshot_reader import Snapshot
from featurestore.view_settings import ViewSettings
from featurestore.writer import FeatureWriter
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.dataset import Movie
from streams.errors import ConfigError, StoreError, StoreMissing, StoreUnavailable
from streams.events import DAY_S, HOUR_S, Rating, Tick
from streams.records import RecordBatch, TopicPartition

T0 = 1_000_000_000 - 1_000_000_000 % DAY_S
VIEWS = ViewSettings(popularity_half_life_days=20, taste_half_life_days=30)
CATALOGUE = Catalogue(
    [
        Movie(0, "Zero (1990)", 1990, ("Comedy", "Drama")),
        Movie(1, "Élève", None, ("War",)),
        Movie(2, "Two", None, ()),
        Movie(77, "Never rated (2020)", 2020, ("Drama",)),
    ]
)
FILES = {"interactions.parquet", "user_features.parquet", "item_features.parquet", "movies.parquet"}

BuildStore = Callable[..., str]

ratings = st.builds(
    Rating,
    user_id=st.integers(0, 5),
    movie_id=st.integers(0, 4),
    rating=st.integers(1, 10).map(lambda half: half / 2),
    timestamp=st.integers(0, 400).map(lambda step: T0 + step * 7_200),
)


def world(n: int, start: int = 0) -> list[Rating]:
    """``n`` ratings, an hour after the other."""
    return [
        Rating(i * 7 % 11, i * 5 % 4, (i * 3 % 10 + 1) / 2, T0 + i * HOUR_S, "run", i) for i in range(start, start + n)
    ]


def assert_same_features(found: object, expected: object) -> None:
    for field in fields(expected):  # type: ignore[arg-type]
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(theirs, dict):
            assert ours.keys() == theirs.keys()
            for name in theirs:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, err_msg=f"{field.name}.{name}")
        elif isinstance(theirs, np.ndarray):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, err_msg=field.name)
            assert ours.dtype == theirs.dtype, field.name
        else:
            assert ours == theirs, field.name


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rated=st.lists(ratings, max_size=60),
    as_of_h=st.integers(0, 900),
    catalogue=st.sampled_from([CATALOGUE, EMPTY_CATALOGUE]),
)
def test_reading_a_snapshot_back_equals_asking_the_store(
    build_store: BuildStore, tmp_path: Path, rated: list[Rating], as_of_h: int, catalogue: Catalogue
) -> None:
    as_of = T0 + as_of_h * HOUR_S + 1_234
    url = build_store(rated, catalogue=catalogue, views=VIEWS)
    manifest = take_snapshot(url, tmp_path / "snapshot", as_of, overwrite=True)
    snapshot = Snapshot(tmp_path / "snapshot")
    users, movies = [5, *range(8)], [4, *range(6), 77]
    with FeatureReader(url) as reader:
        assert_same_features(snapshot.get_user_features(users), reader.get_user_features(users, as_of))
        assert_same_features(snapshot.get_item_features(movies), reader.get_item_features(movies, as_of))
        histories = [(user, reader.history(user, as_of)) for user in range(6)]
    expected = [
        (user, *row)
        for user, history in histories
        for row in zip(
            *(getattr(history, name).tolist() for name in ("movie_id", "rating", "timestamp", "late")), strict=True
        )
    ]
    rows = snapshot.interactions().to_pylist()
    names = ("user_id", "movie_id", "rating", "timestamp", "late")
    assert sorted(tuple(row[name] for name in names) for row in rows) == sorted(expected)
    assert [(row["user_id"], row["timestamp"]) for row in rows] == sorted((u, t) for u, _, _, t, _ in expected)
    assert manifest.files["interactions.parquet"].rows == len(expected)
    assert snapshot.catalogue.movies == catalogue.movies


def test_the_manifest_tells_what_was_taken(build_store: BuildStore, tmp_path: Path) -> None:
    url = build_store([*world(20), Tick(T0 + DAY_S), Tick(T0 + DAY_S)], catalogue=CATALOGUE, views=VIEWS)
    taken = take_snapshot(url, tmp_path / "a", wall_s=lambda: 12.5)
    assert read_manifest(tmp_path / "a") == taken
    assert (taken.as_of, taken.clock, taken.created_at) == (T0 + DAY_S, T0 + DAY_S, 12.5)
    assert (taken.log_id, taken.offsets) == ("log-1", {0: 11, 1: 11})
    assert (taken.genres, taken.views, taken.catalogue) == (CATALOGUE.genres, VIEWS, CATALOGUE.fingerprint)
    assert taken.files.keys() == FILES
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES | {"manifest.json"}
    for name, file in taken.files.items():
        assert file.bytes == (tmp_path / "a" / name).stat().st_size
    again = take_snapshot(url, tmp_path / "b")
    assert again.snapshot_id == taken.snapshot_id
    assert take_snapshot(url, tmp_path / "c", T0).snapshot_id != taken.snapshot_id


def test_later_events_change_no_file_of_an_earlier_time(build_store: BuildStore, tmp_path: Path) -> None:
    as_of = T0 + 40 * HOUR_S
    before, after = [
        take_snapshot(build_store(world(n), catalogue=CATALOGUE, views=VIEWS), tmp_path / str(n), as_of)
        for n in (40, 90)
    ]
    assert before.files == after.files
    assert before.offsets != after.offsets


def test_pages_hold_whole_users(build_store: BuildStore) -> None:
    url = build_store(world(300))  # eleven users, each on both partitions
    with FeatureReader(url) as reader:
        pages = [set(page.user_id.tolist()) for page in reader.history_pages(before=2**40, page_blocks=3)]
        assert len(pages) > 5
        assert sum(map(len, pages)) == len(set().union(*pages)) == 11
        assert sum(len(page) for page in reader.history_pages(before=2**40, page_blocks=3)) == 300


def test_a_snapshot_during_ingest_is_of_one_set_of_offsets(build_store: BuildStore, tmp_path: Path) -> None:
    """While a writer applies batch after batch, each snapshot holds exactly the ratings below its offsets."""
    log = [msgspec.json.encode(r) for r in world(6_000)]
    url = f"sqlite:///{tmp_path}/features.db"
    applied, done = threading.Event(), threading.Event()

    def ingest() -> None:
        with FeatureWriter(url, agent="features", topic="ratings", catalogue=CATALOGUE, views=VIEWS) as writer:
            tp = TopicPartition("ratings", 0)
            writer.assign(TopicInfo("ratings", 1, None, "log-1"), {tp: OffsetRange(0, len(log))})
            for first in range(0, len(log), 20):
                part = log[first : first + 20]
                offsets = np.arange(first, first + len(part))
                published = np.full(len(part), 2_000_000_000_000)
                batch = RecordBatch("ratings", 0, offsets, published, first + len(part), b"\n".join(part))
                writer.apply([decode_ratings(batch)])
                applied.set()
        done.set()

    thread = threading.Thread(target=ingest)
    thread.start()
    try:
        assert applied.wait(60)
        seen = set()
        while not done.is_set() or not seen:
            manifest = take_snapshot(url, tmp_path / "snapshot", as_of=2**40, overwrite=True)
            n = manifest.offsets[0]
            assert manifest.files["interactions.parquet"].rows == n
            snapshot = Snapshot(tmp_path / "snapshot")
            assert snapshot.users.n_ratings.sum() == snapshot.items.n_ratings.sum() == n
            seen.add(n)
    finally:
        thread.join()
    assert len(seen) > 1, "every snapshot saw the same state: nothing was proven"


KILLED_AT = {
    "copying": "featurestore.snapshot.copy_store",
    "writing a page": "featurestore.snapshot.interactions_table",
    "writing the last file": "featurestore.snapshot.movies_table",
    "before the manifest": "featurestore.snapshot.write_durably",
    "before it is in place": "pathlib.Path.rename",
}


@pytest.mark.parametrize("place", KILLED_AT.values(), ids=KILLED_AT.keys())
def test_a_killed_snapshot_leaves_no_half_one(build_store: BuildStore, tmp_path: Path, place: str) -> None:
    url = build_store(world(50), catalogue=CATALOGUE, views=VIEWS)
    code = f"""
import os, signal
from pathlib import Path
from unittest import mock
from featurestore.snapshot import take_snapshot

with mock.patch({place!r}, lambda *_: os.kill(os.getpid(), signal.SIGKILL)):
    take_snapshot({url!r}, Path({str(tmp_path / "snapshot")!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert not (tmp_path / "snapshot").exists()
    assert len(list(tmp_path.iterdir())) == 1, "the draft that was left"
    taken = take_snapshot(url, tmp_path / "snapshot")
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"], "the draft was not cleared away"
    assert Snapshot(tmp_path / "snapshot").manifest == taken


def test_a_full_disk_is_one_error_and_leaves_nothing(build_store: BuildStore, tmp_path: Path) -> None:
    url = build_store(world(2_000), catalogue=CATALOGUE, views=VIEWS)
    code = f"""
import resource, signal
from pathlib import Path
from featurestore.snapshot import take_snapshot
from streams.errors import StoreUnavailable

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (1 << 16, 1 << 10):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        take_snapshot({url!r}, Path({str(tmp_path / "snapshot")!r}))
    except StoreUnavailable as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten_unasked(build_store: BuildStore, tmp_path: Path) -> None:
    url, out = build_store(world(5)), tmp_path / "out"
    out.mkdir()
    take_snapshot(url, out)  # an empty folder is none
    with pytest.raises(ConfigError, match="add --force"):
        take_snapshot(url, out)
    assert take_snapshot(url, out, T0 + 3 * HOUR_S, overwrite=True).as_of == T0 + 3 * HOUR_S
    for other in (tmp_path / "file", tmp_path / "folder" / "file"):
        other.parent.mkdir(exist_ok=True)
        other.touch()
    for other in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(ConfigError, match="expected a snapshot to replace"):
            take_snapshot(url, other, overwrite=True)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        take_snapshot(url, tmp_path / "file" / "below")


def test_a_snapshot_that_came_meanwhile_is_not_overwritten_unasked(build_store: BuildStore, tmp_path: Path) -> None:
    url, out = build_store(world(5)), tmp_path / "out"

    def another() -> float:  # at work when the one below has looked whether ``out`` is free, and has not finished
        take_snapshot(url, out, T0 + 3 * HOUR_S, overwrite=True)
        return 0.0

    with pytest.raises(ConfigError, match="add --force"):
        take_snapshot(url, out, wall_s=another)
    assert Snapshot(out).as_of == T0 + 3 * HOUR_S
    assert take_snapshot(url, out, T0, overwrite=True, wall_s=another).as_of == Snapshot(out).as_of == T0
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("killed_at", ["pathlib.Path.rename", "shutil.rmtree"])
def test_a_killed_replacement_leaves_the_old_snapshot_or_the_new_one(
    build_store: BuildStore, tmp_path: Path, killed_at: str
) -> None:
    """At whichever call that changes the folder it is killed."""
    url, n_calls = build_store(world(50)), 0
    done = False
    while not done:
        out = tmp_path / f"out[{n_calls}]" / "snapshot[1]"  # no pattern, a name
        take_snapshot(url, out, T0)
        code = f"""
import itertools, os, signal
from pathlib import Path
from unittest import mock
from featurestore.snapshot import take_snapshot
import {killed_at.rpartition(".")[0].removesuffix(".Path")}

real, calls = {killed_at}, itertools.count()

def dying(*arguments, **named):
    if ".copy-" not in str(arguments[0]) and next(calls) == {n_calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

with mock.patch({killed_at!r}, dying):
    take_snapshot({url!r}, Path({str(out)!r}), {T0 + DAY_S}, overwrite=True)
"""
        ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
        assert ended in (0, -9)
        done, n_calls = ended == 0, n_calls + 1
        with pytest.raises(ConfigError, match="add --force"):  # and what was left is cleared up
            take_snapshot(url, out)
        assert Snapshot(out).as_of in (T0, T0 + DAY_S)
        assert list(out.parent.iterdir()) == [out]
    assert n_calls > 1


def test_a_link_to_a_snapshot_stays_one(build_store: BuildStore, tmp_path: Path) -> None:
    url, link = build_store(world(5)), tmp_path / "latest"
    link.symlink_to("first")
    for as_of in (T0, T0 + HOUR_S):
        take_snapshot(url, link, as_of, overwrite=True)
        assert link.is_symlink()
        assert Snapshot(tmp_path / "first").as_of == Snapshot(link).as_of == as_of


def test_there_is_nothing_to_take_a_snapshot_of(build_store: BuildStore, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        take_snapshot(f"sqlite:///{tmp_path}/none.db", tmp_path / "out")
    manifest = take_snapshot(build_store([]), tmp_path / "out")
    assert {file.rows for file in manifest.files.values()} == {0}
    snapshot = Snapshot(tmp_path / "out")
    assert snapshot.get_user_features([1]).known.tolist() == snapshot.get_item_features([1]).known.tolist() == [False]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: manifest_path(folder).unlink(), "expected a snapshot, found none"),
    "no folder": (shutil.rmtree, "expected a snapshot, found none"),
    "half a manifest": (lambda f: manifest_path(f).write_bytes(b'{"as_of":'), "expected a snapshot's manifest"),
    "another format": (
        lambda f: manifest_path(f).write_text(json.dumps(json.loads(manifest_path(f).read_text()) | {"format": 9})),
        "expected format 1, found 9",
    ),
    "a lost file": (lambda folder: (folder / "movies.parquet").unlink(), "cannot be read"),
    "a cut file": (lambda f: (f / "movies.parquet").write_bytes(b"PAR1"), "not what the manifest says"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_snapshot_is_refused(
    build_store: BuildStore, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    take_snapshot(build_store(world(5)), tmp_path / "out")
    change(tmp_path / "out")
    with pytest.raises(StoreError, match=message):
        Snapshot(tmp_path / "out")


def test_an_unchecked_snapshot_says_what_it_cannot_read(build_store: BuildStore, tmp_path: Path) -> None:
    take_snapshot(build_store(world(5)), tmp_path / "out")
    (tmp_path / "out" / "user_features.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="take the snapshot again"):
        _ = Snapshot(tmp_path / "out", check=False).users

"""What the loop waits for before it enters an event time, on both sides of each condition."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agents.alignment import Progress, needed_boundary, waits_for
from agents.applied_features import Features
from agents.progress_reader import read_progress
from featurestore.writer import FeatureWriter
from streams.bus import OffsetRange, TopicInfo
from streams.errors import StoreUnavailable
from streams.events import DAY_S
from streams.records import TopicPartition

B = 14_000 * DAY_S
BOUNDARIES = [B - 3 * DAY_S, B - 2 * DAY_S, B - DAY_S, B]
READY = Progress(monitors_closed=B - DAY_S, initial="done")


@pytest.mark.parametrize(
    ("progress", "waits"),
    [
        (READY, ""),
        (Progress(B - DAY_S, "promoted"), ""),
        (Progress(B - DAY_S, "failed"), ""),
        (Progress(B - DAY_S, "queued"), "first training, it is queued"),
        (Progress(B - DAY_S, None), "first training, it has not begun"),
        (Progress(B - DAY_S - 1, "done"), "the monitors to close"),
        (Progress(None, "done"), "closed nothing yet"),
        (Progress(B, "done", B, "7"), "the trainer's answer to 7"),
        (Progress(B, "done", B + 1, "7"), ""),
    ],
)
def test_each_condition_on_both_sides(progress: Progress, waits: str) -> None:
    found = waits_for(B, BOUNDARIES, progress, train_delay_s=DAY_S)
    assert waits in found
    assert bool(waits) == bool(found)


@pytest.mark.parametrize(
    ("delay_s", "needed"),
    [(DAY_S, B - DAY_S), (DAY_S + 1, B - 2 * DAY_S), (3 * DAY_S, B - 3 * DAY_S), (4 * DAY_S, None)],
)
def test_the_longer_an_answer_may_take_the_further_the_loop_goes_ahead(delay_s: int, needed: int | None) -> None:
    assert needed_boundary(BOUNDARIES, B, delay_s) == needed


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/features.db"


def monitors(folder: Path, closed: int, requests: list[tuple[str, int, int, str]]) -> None:
    with closing(sqlite3.connect(folder / "monitors.db")) as database:
        database.execute("CREATE TABLE monitor (id INTEGER PRIMARY KEY, closed INTEGER, state BLOB)")
        database.execute("CREATE TABLE requests (id TEXT PRIMARY KEY, event_time INTEGER, due INTEGER, model TEXT)")
        database.execute("INSERT INTO monitor VALUES (1, ?, NULL)", (closed,))
        database.executemany("INSERT INTO requests VALUES (?, ?, ?, ?)", requests)
        database.commit()


def trainer(folder: Path, jobs: list[tuple[str, str, int, str]]) -> None:
    with closing(sqlite3.connect(folder / "trainer.db")) as database:
        database.execute("CREATE TABLE jobs (id TEXT PRIMARY KEY, kind TEXT, due INTEGER, state TEXT, reason TEXT)")
        database.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, 'why')", jobs)
        database.commit()


def test_progress_is_read_from_the_stores_of_the_others(tmp_path: Path, store_url: str) -> None:
    assert read_progress(store_url) == Progress()
    monitors(tmp_path, B, [("r1", B, B + 1, "ease"), ("r2", B, B + 2, "ease"), ("r3", B, B + 3, "ease")])
    assert read_progress(store_url) == Progress(B, None, B + 1, "r1")
    trainer(
        tmp_path,
        [("i", "initial", 0, "done"), ("r1", "retrain", B + 1, "rejected"), ("r2", "retrain", B + 2, "promoted")],
    )
    assert read_progress(store_url) == Progress(B, "done", B + 3, "r3", "why")


@pytest.mark.parametrize(("state", "open_due"), [("queued", B), ("running", B), ("done", None), ("failed", None)])
def test_jobs_nobody_monitored_are_waited_for_too(
    tmp_path: Path, store_url: str, state: str, open_due: int | None
) -> None:
    """A person's request, or a look back at a promotion."""
    trainer(tmp_path, [("i", "initial", 0, "done"), ("s", "shadow", B, state)])
    assert read_progress(store_url).open_due == open_due


def test_features_are_opened_once_they_are_there_and_anew_where_they_were_replaced(
    tmp_path: Path, store_url: str
) -> None:
    now = 0.0
    features = Features(store_url, monotonic_s=lambda: now)
    assert features.applied() == {}
    with pytest.raises(StoreUnavailable):
        features.histories([1], 0)
    log = TopicInfo("ratings", 1, None, "log")
    for _ in range(2):
        with FeatureWriter(store_url, agent="features", topic="ratings") as writer:
            writer.assign(log, {TopicPartition("ratings", 0): OffsetRange(0, 10)})
            writer.database.execute("UPDATE applied SET next_offset = next_offset + ?", 3)
        now += 2.0
        features.applied()  # nothing new: opened anew the next time
        assert features.applied() == {0: 3}
        for file in tmp_path.glob("features.db*"):
            file.unlink()
    features.close()

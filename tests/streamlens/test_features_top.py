"""``streamlens features top``: the ranking in a table with sparklines, in JSON and in CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from featurestore.catalogue import Catalogue
from featurestore.popularity import RANKINGS
from featurestore.writer import FeatureWriter
from streamlens.cli.app import run
from streamlens.cli.features import Window
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.dataset import Movie
from streams.events import DAY_S, HOUR_S, Rating, Tick
from streams.records import RecordBatch, TopicPartition

Capture = pytest.CaptureFixture[str]

CLOCK = 1_000_000_000 - 1_000_000_000 % DAY_S
TITLES = {1: 'Toy Story, "The" (1995)', 2: "Amélie (2001)"}


@pytest.fixture
def store_url(workplace: Path) -> str:
    """Movie 1: a rating on each of the last 4 days and 4 on the one before; movie 2: two ratings in the last hour."""
    url = f"sqlite:///{workplace / 'features.db'}"
    ago = [*((1, day * DAY_S - HOUR_S) for day in (1, 2, 3, 4)), *[(1, 5 * DAY_S - HOUR_S)] * 4, *[(2, -60)] * 2]
    records = [Rating(n, movie, 4.0, CLOCK - s) for n, (movie, s) in enumerate(ago)]
    lines = b"\n".join(map(msgspec.json.encode, [*records, Tick(CLOCK)]))
    n = len(records) + 1
    with FeatureWriter(
        url,
        agent="features",
        topic="ratings",
        catalogue=Catalogue(Movie(movie_id, title, None, ()) for movie_id, title in TITLES.items()),
    ) as writer:
        writer.assign(TopicInfo("ratings", 1, None, "log"), {TopicPartition("ratings", 0): OffsetRange(0, n)})
        batch = RecordBatch("ratings", 0, np.arange(n), np.full(n, 2 * 10**12), n, lines)
        writer.apply([decode_ratings(batch)])
    return url


def top(store_url: str, capsys: Capture, *flags: str) -> str:
    assert run(["features", "top", "--store", store_url, *flags]) == 0
    return capsys.readouterr().out


def test_the_windows_are_the_rankings() -> None:
    assert [window.value for window in Window] == list(RANKINGS)


def test_the_table_shows_how_ratings_came_in(store_url: str, capsys: Capture) -> None:
    lines = top(store_url, capsys, "--window", "7d").splitlines()
    assert lines[0] == "most rated movies, 2001-09-02 01:00:00 to 2001-09-09 01:00:00"
    assert lines[1].split() == ["#", "movie", "ratings", "mean", "per", "day", "title"]
    assert lines[2] == '1      1        8  4.00    █▂▂▂▂  Toy Story, "The" (1995)'
    assert lines[3] == "2      2        2  4.00        █  Amélie (2001)"


def test_a_terminal_without_blocks_gets_ascii(store_url: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="replace")
    monkeypatch.setattr("sys.stdout", stdout)
    assert run(["features", "top", "--store", store_url, "--window", "7d"]) == 0
    stdout.seek(0)
    assert "@::::" in stdout.read()


def test_json_and_csv_tell_the_same_numbers(store_url: str, capsys: Capture) -> None:
    for window in RANKINGS:
        found: dict[str, Any] = json.loads(top(store_url, capsys, "--window", window, "--json"))
        rows = list(csv.DictReader(io.StringIO(top(store_url, capsys, "--window", window, "--csv"))))
        assert [[int(n) for n in row["trend"].split()] for row in rows] == [m["trend"] for m in found["movies"]]
        for name in ("rank", "movie_id", "title", "n_ratings", "mean_rating", "score"):
            assert [row[name] for row in rows] == [str(movie[name]) for movie in found["movies"]]
        assert all(row["trend_step_s"] == str(found["trend_step_s"]) for row in rows)
    assert (found["movies"][0]["movie_id"], found["movies"][0]["n_ratings"]) == (1, 8)


def test_a_limit_a_time_and_an_empty_window(store_url: str, capsys: Capture) -> None:
    assert len(json.loads(top(store_url, capsys, "--limit", "1", "--json"))["movies"]) == 1
    before = top(store_url, capsys, "--as-of", str(CLOCK - 3 * DAY_S), "--window", "7d", "--json")
    assert [(m["movie_id"], m["n_ratings"]) for m in json.loads(before)["movies"]] == [(1, 5)]
    nothing = top(store_url, capsys, "--as-of", "1995-01-01")
    assert nothing.startswith("no ratings from 1994-12-04 to 1995-01-01;")
    assert top(store_url, capsys, "--as-of", "1995-01-01", "--csv").count("\n") == 1


def test_a_window_that_is_none_is_one_line(store_url: str, capsys: Capture) -> None:
    assert run(["features", "top", "--store", store_url, "--window", "2d"]) == 2
    assert "'1h', '1d', '7d', '28d', 'all', 'decayed'" in capsys.readouterr().err

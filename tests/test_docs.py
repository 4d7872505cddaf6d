"""What the pages show: records and files are the schema's, and programs do what their page says."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from featurestore.features import ItemFeatures, UserFeatures
from featurestore.quality import MIN_VALUES, PSI_SHIFTED
from featurestore.quality_sample import SAMPLED_MOVIES, SAMPLED_USERS
from featurestore.writer import FeatureWriter
from streamlens import pytest_plugin
from streamlens.settings import FreshnessSettings
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo, TopicSpec, open_bus
from streams.dataset import open_dataset
from streams.drift import GROUND_TRUTH, DriftedDataset, GroundTruth
from streams.events import DAY_S, RATINGS, Rating, Tick
from streams.records import RecordBatch, TopicPartition
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, plan_replay, with_drift
from streams.retrain import RetrainRequested

DOCS = Path(__file__).parent.parent / "docs"
DAY_0 = 14_000 * DAY_S


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def printed(page: str, tmp_path: Path, *arguments: str) -> list[str]:
    """The lines that the one program of a page prints."""
    (code,) = blocks(page, "python")
    script = tmp_path / "program.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def date(day: int) -> str:
    return f"{datetime.fromtimestamp(day * DAY_S, UTC):%Y-%m-%d}"


def test_the_records_shown_are_those_of_the_schema() -> None:
    shown = [block.strip().encode() for block in blocks("time.md", "json")]
    assert len(shown) == 4
    for record in shown:
        kind = Tick if "type" in json.loads(record) else Rating
        assert msgspec.json.encode(msgspec.json.decode(record, type=kind)) == record


@pytest.mark.parametrize("partitions", [1, 4])
async def test_the_consumer_tells_each_day_of_a_replay_once(tmp_path: Path, partitions: int) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    dataset = open_dataset("synthetic:ratings=500,users=10")
    async with open_bus(url) as bus:
        options = ReplayOptions(week=1, speed=math.inf, partitions=partitions)
        await Replayer(dataset, bus, options, run_id="run").replay()
    days = Counter(t // DAY_S for chunk in dataset.chunks() for t in chunk.timestamp.tolist())
    assert printed("time.md", tmp_path, url) == [*(f"{date(day)} {days[day]}" for day in sorted(days)), "late 0"]


async def test_the_consumer_meets_duplicates_late_ratings_heartbeats_and_garbage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"

    def rating(day: float, event_id: int | None) -> Rating:
        return Rating(1, 2, 3.0, DAY_0 + int(day * DAY_S), None if event_id is None else "run", event_id)

    records: list[Rating | Tick] = [
        Tick(DAY_0, "run", 0),
        rating(0.5, 1),
        rating(0.5, 1),  # published twice
        rating(0.6, None),
        rating(0.6, None),  # without identity: two facts
        Tick(DAY_0 + 3 * DAY_S - 1, "run", 1, heartbeat=True),
        rating(0.7, 2),  # not late: heartbeats close nothing
        Tick(DAY_0 + 2 * DAY_S, "run", 2),
        rating(1.5, 3),  # within the bound
        rating(0.5, 4),  # beyond it
        rating(1.5, 3),  # an id that is not above the last one
        Tick(DAY_0 + 3 * DAY_S, "run", 4, end_of_run=True),
    ]
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec(RATINGS, 2))
        async with bus.producer() as producer:
            await producer.send(RATINGS, b"\xff{", partition=1)
            await producer.send(RATINGS, b"[]", partition=1)
            for record in records:
                for partition in (0, 1) if isinstance(record, Tick) else (0,):
                    await producer.send(RATINGS, msgspec.json.encode(record), partition=partition)
    assert printed("time.md", tmp_path, url) == [f"{date(14_000)} 4", f"{date(14_001)} 1", "late 1"]


def test_the_ground_truth_shown_is_that_of_the_schema() -> None:
    (shown,) = blocks("drift.md", "json")
    truth = msgspec.json.decode(shown, type=GroundTruth)
    assert msgspec.json.decode(truth.encode()) == msgspec.json.decode(shown)


async def test_the_judge_finds_the_drift_that_was_put_in(tmp_path: Path) -> None:
    options = ReplayOptions(speed=math.inf, drift=("rating-bias@20:high", "malformed@25:high"))
    dataset = with_drift(open_dataset("synthetic:ratings=20000"), options)
    assert isinstance(dataset, DriftedDataset)
    url, plan = f"sqlite:///{tmp_path}/bus.db", plan_replay(dataset, options)
    async with open_bus(url) as bus:
        await Replayer(dataset, bus, options, run_id="run").replay()
    drifts = dataset.injected()
    truth = GroundTruth("run", 0, plan.split.start, plan.split.cutoff, plan.n_training, plan.n_total, drifts)
    (tmp_path / GROUND_TRUTH).write_bytes(truth.encode())
    told = printed("drift.md", tmp_path, url, str(tmp_path))
    assert [line.split(":")[0] for line in told] == ["rating-bias@20", "malformed@25"]
    before, after = (float(number) for number in re.findall(r"\d\.\d{3}", told[0]))
    assert after - before == pytest.approx(drifts[0].parameters["mean_shift"], abs=0.2)  # the data drifts too


async def test_the_reader_of_features_reads_a_store_and_a_snapshot(tmp_path: Path) -> None:
    """Movie 1 was rated once a day for 400 days, and the run has ended."""
    url = f"sqlite:///{tmp_path}/features.db"
    days = range(14_000, 14_400)
    records: list[Rating | Tick] = [Rating(day % 7, 1, 3.0, day * DAY_S) for day in days]
    records.append(Tick(14_400 * DAY_S, end_of_run=True))
    lines = b"\n".join(map(msgspec.json.encode, records))
    batch = RecordBatch(RATINGS, 0, np.arange(401), np.full(401, 2 * 10**12), 401, lines)
    with FeatureWriter(url, agent="features", topic=RATINGS) as writer:
        writer.assign(TopicInfo(RATINGS, 1, None, "log"), {TopicPartition(RATINGS, 0): OffsetRange(0, 401)})
        writer.apply([decode_ratings(batch)])
    assert printed("features.md", tmp_path, url, str(tmp_path / "snapshot")) == [
        "movie 1: 35 ratings a year ago, 400 now",
        "in two days: fresh",
        "35 ratings, 7 users, 1 movies",
        "movie 1: 35 ratings",
    ]


def test_a_split_of_ones_own_is_judged(tmp_path: Path) -> None:
    assert printed("evaluation.md", tmp_path) == ["1.0"]


def test_features_md_names_what_there_is() -> None:
    page = (DOCS / "features.md").read_text()
    held = [*UserFeatures.__dataclass_fields__, *ItemFeatures.__dataclass_fields__]
    settings = [*FreshnessSettings.model_fields, "session_gap_s", "quality_every_s"]
    for name in {*held, *settings} - {"known", "genres", "as_of", "user_id", "movie_id"}:
        assert re.search(rf"`{name}`|`features\.{name}`", page), name
    for value in (SAMPLED_USERS, SAMPLED_MOVIES, MIN_VALUES, PSI_SHIFTED):
        assert f"{value:,}" in page


def test_the_test_shown_passes(tmp_path: Path) -> None:
    (code,) = blocks("testing.md", "python")
    (tmp_path / "test_shown.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "streamlens.pytest_plugin", "-k", "memory", "test_shown.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_retrain_event_shown_is_that_of_the_schema() -> None:
    (shown,) = blocks("testing.md", "json")
    assert msgspec.json.encode(msgspec.json.decode(shown, type=RetrainRequested)) == shown.strip().encode()


def test_testing_md_names_every_fixture() -> None:
    page = (DOCS / "testing.md").read_text()
    for name in pytest_plugin.__all__:
        assert f"| `{name}` |" in page, name


def test_pages_link_to_pages_that_exist() -> None:
    for page in (DOCS.parent / "README.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

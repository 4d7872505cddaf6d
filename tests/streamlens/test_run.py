"""A whole run from the command line, as a user types it."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from featurestore.quality import VALID
from featurestore.snapshot_reader import Snapshot
from streamlens.cli.app import run
from streams.bus import open_bus
from streams.drift import read_ground_truth

Capture = pytest.CaptureFixture[str]
DEADLINE_S = 60.0
N_RATINGS = 4_000


def write_dataset(folder: Path) -> None:
    """Twenty weeks of ratings by fifty users of a hundred movies, in no order."""
    folder.mkdir()
    rows = [
        f"{n % 50 + 1},{n * 7 % 100 + 1},{n % 10 / 2 + 0.5},{1_200_000_000 + n * 3_024}"
        for n in sorted(range(N_RATINGS), key=lambda n: n * 7919 % N_RATINGS)
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n")
    movies = [f'{m},"Movie, The {m} (1999)",Drama|War' for m in range(1, 101)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies]) + "\n")


def streamlens(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamlens", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


@contextmanager
def background(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "streamlens", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended early: {process.communicate()}")


def publish_rating(value: bytes) -> None:
    """As a foreign producer would: a record without identity, on the partition of its choice."""

    bus_url = as_json("status")["bus"]

    async def send() -> None:
        async with open_bus(bus_url) as bus, bus.producer() as producer:
            await producer.send("ratings", value, partition=1)

    asyncio.run(send())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was replayed as fast as possible and then kept by a worker to its end."""
    folder = tmp_path_factory.mktemp("finished")
    write_dataset(folder / "ratings")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        replayed = streamlens("replay", "--data", "ratings", "--speed", "max", "--partitions", "2")
        assert replayed.returncode == 0, replayed.stderr
        assert f"published {N_RATINGS:,} ratings" in replayed.stdout
        worked = streamlens("worker", "--until-end")
        assert worked.returncode == 0, worked.stderr
    return folder


@pytest.fixture
def in_finished(finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)


def test_what_drift_was_put_in_is_what_the_features_count(workplace: Path) -> None:
    write_dataset(workplace / "ratings")
    asked = ["--data", "ratings", "--speed", "max", "--drift", "malformed@12:high", "--drift", "late@14:high"]
    replayed = streamlens("replay", *asked)
    assert replayed.returncode == 0, replayed.stderr
    assert "malformed@12:high, late@14:high" in replayed.stderr
    assert streamlens("worker", "--until-end").returncode == 0
    found = as_json("status")
    assert found["drift"] == asked[-3::2]
    malformed, late = read_ground_truth(workplace / "var" / "runs" / found["run"]).drifts
    assert malformed.n_records > 50
    assert late.n_records > 50
    features = found["features"]
    assert (features["dead_lettered"], features["late"]) == (malformed.n_records, late.n_records)
    assert features["ratings"] == N_RATINGS - malformed.n_records
    assert as_json("verify")["ok"]


def as_json(*arguments: str) -> Any:
    out = io.StringIO()
    with redirect_stdout(out):
        assert run([*arguments, "--json"]) == 0
    return json.loads(out.getvalue())


@pytest.mark.usefixtures("in_finished")
class TestFinishedRun:
    def test_status_tells_that_all_is_applied(self, capsys: Capture) -> None:
        found = as_json("status")
        assert (found["replayer"], found["worker"]) == (None, None)
        features = found["features"]
        counts = [features[name] for name in ("ratings", "late", "duplicates", "dead_lettered", "lag")]
        assert counts == [N_RATINGS, 0, 0, 0, 0]
        assert features["end_of_run"]
        assert len(features["partitions"]) == 2

        assert run(["status"]) == 0
        out = capsys.readouterr().out
        assert "(the run has ended)" in out
        assert "fresh     users, items, popular\n" in out

    def test_status_tells_the_quality_of_the_features_at_the_end_of_the_run(self, capsys: Capture) -> None:
        metrics = as_json("status")["metrics"]
        assert metrics["quality.null_share{feature=user.mean_rating}"]["value"] == 0
        assert "quality.psi{feature=item.mean_rating}" in metrics
        assert "quality.psi{feature=user.mean_rating}" not in metrics, "fifty users are too few"
        assert run(["status"]) == 0
        table = capsys.readouterr().out.partition("quality of the features:\n")[2].splitlines()
        assert table[0].split() == ["feature", "null", "share", "out", "of", "range", "min", "max", "psi"]
        assert sorted(row.split()[0] for row in table[1:]) == sorted(VALID)

    def test_verify_passes(self, capsys: Capture) -> None:
        assert as_json("verify")["ok"]
        assert run(["verify"]) == 0
        assert "verify passed" in capsys.readouterr().out

    def test_a_user_has_features_and_a_history_with_titles(self) -> None:
        found = as_json("features", "user", "1")
        assert (found["known"], found["n_ratings"]) == (True, N_RATINGS // 50)
        assert found["history"][0]["title"] == "Movie, The 51 (1999)"
        assert found["history"][0]["timestamp"] == found["last_rated"]

    def test_the_cache_changes_no_answer_and_can_be_turned_off(
        self, finished: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder,) = (finished / "var" / "runs").glob("*/")
        shutil.rmtree(folder / "cache", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setenv("STREAMLENS_FEATURES_CACHE", "false")
            expected = as_json("features", "user", "2")
            assert not (folder / "cache").exists()
        kept, again = as_json("features", "user", "2"), as_json("features", "user", "2")
        assert (folder / "cache").exists()
        assert kept == again == expected

    def test_as_of_leaves_out_what_came_later(self) -> None:
        moment = 1_200_000_000 + 3_024 * (N_RATINGS // 2)
        found = as_json("features", "user", "1", "--as-of", str(moment))
        assert (found["n_ratings"], found["as_of"]) == (N_RATINGS // 100, moment)
        assert found["last_rated"] == found["history"][0]["timestamp"] < moment

    def test_a_movie_has_windows(self) -> None:
        found = as_json("features", "item", "8")
        assert (found["n_ratings"], found["title"]) == (N_RATINGS // 100, "Movie, The 8 (1999)")
        assert set(found["windows"]) == {"1h", "1d", "7d", "28d"}
        assert found["windows"]["28d"]["n_ratings"] > 0

    @pytest.mark.parametrize("kind", ["user", "item"])
    def test_an_unknown_id_takes_the_cold_start_path(self, kind: str, capsys: Capture) -> None:
        found = as_json("features", kind, "999999")
        assert (found["known"], found["n_ratings"], found["mean_rating"]) == (False, 0, None)
        assert run(["features", kind, "999999"]) == 0
        assert "cold-start" in capsys.readouterr().out

    @pytest.mark.parametrize("command", ["user", "item"])
    def test_features_are_shown_to_people_too(self, command: str, capsys: Capture) -> None:
        assert run(["features", command, "8"]) == 0
        assert "Movie, The" in capsys.readouterr().out

    def test_a_snapshot_is_what_the_store_held_then(self, tmp_path: Path) -> None:
        out, moment = tmp_path / "snapshot", 1_200_000_000 + 3_024 * (N_RATINGS // 2)
        taken = streamlens("snapshot", "--as-of", str(moment), "--out", str(out))
        assert taken.returncode == 0, taken.stderr
        assert f"as of 2008-03-20 21:20:00 in {out}" in taken.stdout
        snapshot = Snapshot(out)
        assert len(snapshot.interactions()) == N_RATINGS // 2
        user = snapshot.get_user_features([1])
        assert int(user.n_ratings[0]) == as_json("features", "user", "1", "--as-of", str(moment))["n_ratings"]

        refused = streamlens("snapshot", "--out", str(out))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "add --force" in refused.stderr
        forced = streamlens("snapshot", "--out", str(out), "--force", "--json")
        assert json.loads(forced.stdout)["files"]["interactions.parquet"]["rows"] == N_RATINGS

    def test_topics_and_groups_are_listed(self) -> None:
        topics = {row["topic"]: row["records"] for row in as_json("topics", "list")}
        assert topics["ratings"] > N_RATINGS
        assert all(row["lag"] == 0 for row in as_json("topics", "lag"))

    def test_doctor_finds_all_well(self) -> None:
        found = as_json("doctor")
        assert found["ok"], found
        assert {check["name"] for check in found["checks"]} >= {"python", "sqlite", "file locks", "bus", "run"}
        assert ", complete;" in found["checks"][-1]["found"]

    def test_a_complete_run_is_not_published_again(self) -> None:
        again = streamlens("replay", "--data", "ratings", "--speed", "max", "--partitions", "2")
        assert again.returncode == 0
        assert "is complete: nothing left to publish" in again.stdout

    def test_a_damaged_store_fails_verify_with_exit_code_1(self, finished: Path, capsys: Capture) -> None:
        store = Path(as_json("status")["store"].removeprefix("sqlite:///"))
        damaged = finished / "damaged.db"
        shutil.copy(store, damaged)
        with sqlite3.connect(damaged) as connection:
            connection.execute("UPDATE items SET n = n + 1 WHERE movie_id = 8")
        connection.close()
        assert run(["verify", "--store", f"sqlite:///{damaged}"]) == 1
        out = capsys.readouterr().out
        assert "FAILED" in out
        assert "movie_id=8" in out

    def test_a_worker_of_a_complete_run_says_what_the_next_one_needs(self) -> None:
        with background("worker") as worker:
            assert worker.stderr is not None
            assert "is already published in full" in worker.stderr.readline()

    def test_rebuild_makes_the_store_anew(self) -> None:
        store = as_json("status")["store"].removeprefix("sqlite:///")
        with sqlite3.connect(store) as connection:
            connection.execute("DELETE FROM users")
        connection.close()
        assert run(["verify"]) == 1

        worked = streamlens("worker", "--rebuild", "--until-end")
        assert (worked.returncode, worked.stdout) == (0, "")
        assert as_json("verify")["ok"]
        assert as_json("status")["features"]["ratings"] == N_RATINGS


@pytest.fixture
def dataset(workplace: Path) -> str:
    write_dataset(workplace / "ratings")
    return "ratings"


def log_exists() -> bool:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return run(["topics", "list"]) == 0


def n_records(topic: str) -> int:
    return int(as_json("status")["topics"][topic])


def applied() -> int:
    """Ratings in the store; none while there is no store yet."""
    if not Path("var/current").exists() or not log_exists():
        return 0
    return int((as_json("status")["features"] or {"ratings": 0})["ratings"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_replayer_and_worker_drain_on_a_signal_and_go_on_later(dataset: str, number: signal.Signals) -> None:
    replay = ["replay", "--data", dataset, "--rate", "50", "--arrival", "steady"]
    with background(*replay) as replayer:
        wait_for(Path("var/current").exists, replayer)
        wait_for(log_exists, replayer)
        with background("worker") as worker:
            wait_for(lambda: applied() > 0, worker)
            status = as_json("status")
            assert (status["replayer"], status["worker"]) == (replayer.pid, worker.pid)
            wait_for(lambda: "features.lag" in as_json("status")["metrics"], worker)
            replayer.send_signal(number)
            out, err = replayer.communicate(timeout=DEADLINE_S)
            assert (replayer.returncode, "Traceback" in err) == (0, False), err
            assert "stopped; `streamlens replay --run" in out
            worker.send_signal(number)
            _, err = worker.communicate(timeout=DEADLINE_S)
            assert (worker.returncode, "Traceback" in err) == (0, False), err
    assert as_json("verify")["ok"]

    published = n_records("ratings")
    with background("replay", "--run", as_json("status")["run"]) as resumed:
        wait_for(lambda: n_records("ratings") > published, resumed)


def test_an_unfinished_run_is_not_resumed_with_other_options(dataset: str, capsys: Capture) -> None:
    with background("replay", "--data", dataset, "--rate", "50") as replayer:
        wait_for(log_exists, replayer)
    run_id = as_json("status")["run"]

    assert run(["replay", "--data", dataset, "--rate", "60"]) == 2
    assert f"run {run_id} is unfinished" in capsys.readouterr().err
    assert run(["replay", "--run", run_id, "--limit", "1"]) == 2
    assert "--limit" in capsys.readouterr().err

    Path(dataset, "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,5.0,1200000000\n")
    assert run(["replay", "--run", run_id]) == 2
    assert "with other content" in capsys.readouterr().err


def test_a_running_replay_is_steered_from_another_terminal(dataset: str, capsys: Capture) -> None:
    assert run(["control", "pause"]) == 2
    assert "expected a running replay, found none" in capsys.readouterr().err
    with background("replay", "--data", dataset, "--rate", "1") as replayer:
        wait_for(lambda: Path("var/current").exists() and log_exists(), replayer)
        wait_for(lambda: n_records("ratings") > 0, replayer)  # what is published shows that it listens
        assert run(["control", "pause"]) == 0
        assert run(["control", "speed", "0"]) == 2
        assert "speed: expected a number above 0" in capsys.readouterr().err
        assert run(["control", "speed", "max"]) == 0
        assert run(["control", "resume"]) == 0
        out, err = replayer.communicate(timeout=DEADLINE_S)
        assert replayer.returncode == 0, err
        assert f"{N_RATINGS:,} of {N_RATINGS:,}" in out
        assert "complete" in out
    assert run(["control", "stop"]) == 2


def test_one_worker_and_one_replayer_at_a_time(dataset: str) -> None:
    with background("replay", "--data", dataset, "--rate", "10") as replayer:
        wait_for(Path("var/current").exists, replayer)
        wait_for(log_exists, replayer)
        second = streamlens("replay", "--data", dataset, "--rate", "10")
        assert second.returncode == 2
        assert str(replayer.pid) in second.stderr
        with background("worker") as worker:
            wait_for(lambda: applied() > 0, worker)
            refused = streamlens("worker")
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
            assert "kafka://" in refused.stderr


def test_a_record_that_cannot_be_processed_is_dead_lettered_and_can_be_replayed(dataset: str) -> None:
    assert run(["replay", "--data", dataset, "--speed", "max", "--quiet"]) == 0
    publish_rating(b'{"user_id":7,"movie_id":1,"rating":9,"timestamp":1210000000}')

    with background("worker") as worker:
        wait_for(lambda: as_json("deadletter", "list")["total"] == 1, worker)
        (letter,) = as_json("deadletter", "list")["last"]
        assert "found 9" in letter["reason"]
        assert as_json("deadletter", "replay", "--force")["published"] == {"ratings": 1}
        wait_for(lambda: as_json("deadletter", "list")["total"] == 2, worker)
        assert as_json("deadletter", "replay", "--set", "rating=4")["published"] == {"ratings": 2}
        wait_for(lambda: as_json("status")["features"]["duplicates"] == 1, worker)
        wait_for(lambda: applied() == N_RATINGS + 1, worker)
        worker.send_signal(signal.SIGINT)
        assert worker.wait(DEADLINE_S) == 0

    assert as_json("status")["features"]["dead_lettered"] == 2
    assert as_json("verify")["ok"]


def test_demo_without_a_terminal_ends_by_itself_with_a_summary(dataset: str) -> None:
    """A stream too thin for a detector or a retrain event; what is told of those: test_loop_story.py."""
    done = streamlens("demo", "--data", dataset, "--rate", "2000", "--drift", "rating-bias@14:high")
    assert done.returncode == 0, done.stderr
    for said in ("verify         passed", "Movie, The", "try next", f"{N_RATINGS:,} events"):
        assert said in done.stdout
    for said in ("drift          rating-bias, high, from", "detected       ", "before the drift", "since the drift"):
        assert said in done.stdout


def test_demo_stops_with_its_children_on_a_signal(dataset: str) -> None:
    with background("demo", "--data", dataset, "--rate", "20", "--no-pages") as demo:
        wait_for(lambda: applied() > 0, demo)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=DEADLINE_S)
        assert demo.returncode == 0, err
        assert "(stopped early)" in out
    status = as_json("status")
    assert (status["replayer"], status["worker"]) == (None, None)


def test_a_demo_that_is_stopped_before_there_is_a_store_ends_well(dataset: str) -> None:
    with background("demo", "--data", dataset, "--rate", "20", "--no-pages") as demo:
        wait_for(lambda: any(Path("var/runs").glob("*/bus.db")), demo)
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=DEADLINE_S)
    assert (demo.returncode, "streamlens: " in err) == (0, False), err
    assert "stopped before anything was stored" in out or "(stopped early)" in out


def test_a_killed_demo_takes_its_children_along(dataset: str) -> None:
    with background("demo", "--data", dataset, "--rate", "20", "--no-pages") as demo:
        wait_for(lambda: applied() > 0, demo)
        found = as_json("status")
        assert None not in at_work()
        demo.kill()
        demo.wait()
        wait_for(lambda: at_work() == (None, None))

    run_folder = Path("var", "runs", found["run"])
    assert "stopped; `streamlens replay --run" in (run_folder / "replayer.log").read_text()
    assert as_json("verify")["ok"]


def at_work() -> tuple[int | None, int | None]:
    """Replayer and worker; the system frees their locks however they end."""
    found = as_json("status")
    return found["replayer"], found["worker"]


def test_the_demo_says_why_a_child_failed(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_STORE", "mysql://nowhere/features")
    done = streamlens("demo", "--data", dataset, "--no-pages")
    assert done.returncode == 2
    assert "store URL" in done.stderr


def test_a_demo_with_nothing_to_train_a_champion_on_ends_and_says_so(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLENS_REPLAY_WEEK", "1")
    monkeypatch.setenv("STREAMLENS_REPLAY_START", "1995-01-01")
    done = streamlens("demo", "--data", dataset, "--rate", "2000", "--no-pages")
    assert done.returncode == 2
    assert "there is no champion to make slates with" in done.stderr
    assert "expected ratings before 1995-01-01" in done.stderr

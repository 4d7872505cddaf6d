"""Every agent of a run is killed with SIGKILL, each a process of its own: the results are as if nothing had happened.

``STREAMLENS_TEST_CHAOS_S=600`` goes on for so long, a run for each seed from ``STREAMLENS_TEST_CHAOS_SEED`` on.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from agents.job_store import read_jobs
from agents.monitor_store import read_decided
from featurestore.reader import FeatureReader
from streamlens.target import Target
from streams.errors import StreamLensError
from tests.loop.killable import Killable
from tests.loop.small_world import prepare, replay_command
from tests.loop.together import ROLES, Results, current, read_results

SEED = int(os.environ.get("STREAMLENS_TEST_CHAOS_SEED", "5"))
DURATION_S = float(os.environ.get("STREAMLENS_TEST_CHAOS_S", "0"))
LIVE = 14_631
"""The first live day."""
DAYS = 35
KEPT = "events.jsonl"

pytestmark = pytest.mark.slow


def wait_for(condition: Callable[[], bool], what: str, processes: dict[str, Killable]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        failed = [one for one in processes.values() if one.exit_code]
        assert not failed, f"{failed[0].name}: {failed[0].said}"
        assert time.monotonic() < deadline, f"{what} did not happen; {[one.said for one in processes.values()]}"
        time.sleep(0.005)


def closed_day(target: Target) -> int:
    with suppress(StreamLensError):
        found = read_decided(target.store_url)
        return 0 if found is None else found.closed // 86_400
    return 0


def has_features(target: Target) -> bool:
    with suppress(StreamLensError), FeatureReader(target.store_url) as reader:
        return reader.clock() > 0
    return False


def training(target: Target) -> bool:
    with suppress(StreamLensError):
        return any(job.state == "running" and job.kind == "retrain" for job in read_jobs(target.store_url))
    return False


def run_with_kills(folder: Path, draw: random.Random) -> tuple[Results, list[str], dict[str, int]]:
    """What came of it, the ids of the retrain events as an outside command saw them, and how often each was killed."""
    prepare(folder)
    replaying = Killable("replay", tuple(replay_command()), folder)
    replaying.start()
    wait_for(lambda: replaying.exit_code == 0, "the replay", {"replay": replaying})
    target = current()
    assert target is not None
    watch = ("retrain", "watch", "--exec", f"cat >> {KEPT}; echo >> {KEPT}")
    commands = {role: ("worker", "--role", role, "--until-end", "--quiet") for role in ROLES} | {"watch": watch}
    processes = {name: Killable(name, command, folder) for name, command in commands.items()}
    try:
        for process in processes.values():
            process.start()
        wait_for(lambda: has_features(target), "a feature", processes)
        processes["features"].kill()  # soon: they are done long before the others, maybe by now
        victims = ["loop", "monitors", "trainer", "watch"]
        draw.shuffle(victims)
        days = sorted(draw.sample(range(LIVE, LIVE + DAYS - 8), len(victims)))
        for victim, day in zip(victims, days, strict=True):
            wait_for(lambda day=day: closed_day(target) >= day, f"day {day}", processes)  # type: ignore[misc]
            time.sleep(draw.random() * 0.05)
            processes[victim].kill()
            if victim == "trainer":  # and once more, with its job
                wait_for(lambda: training(target) or closed_day(target) > LIVE + DAYS - 5, "a training", processes)
                time.sleep(draw.random() * 0.5)
                processes[victim].kill()
        wait_for(lambda: all(processes[role].exit_code == 0 for role in ROLES), "the end", processes)
        results = asyncio.run(read_results(target))
        wanted = [msgspec.json.decode(line)["id"] for line in results.topics["retrain/0"]]
        wait_for(lambda: set(wanted) <= set(seen_ids(folder, target.run_id)), "every event outside", processes)
    finally:
        for process in processes.values():
            process.end()
    return results, seen_ids(folder, target.run_id), {name: process.kills for name, process in processes.items()}


def seen_ids(folder: Path, run_id: str) -> list[str]:
    """A line that a kill has cut off was no delivery: that event comes again."""
    found = []
    path = folder / KEPT
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line)["id"].replace(run_id, "RUN"))
    return found


def test_kills_change_no_byte_and_an_outside_command_sees_every_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: Results
) -> None:
    for variable in [name for name in os.environ if name.startswith("STREAMLENS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    began, seed = time.monotonic(), SEED
    while True:
        folder = tmp_path / str(seed)
        folder.mkdir()
        monkeypatch.chdir(folder)
        results, seen, kills = run_with_kills(folder, random.Random(seed))
        assert results.same == at_once.same, f"seed {seed}"
        wanted = [msgspec.json.decode(line)["id"] for line in results.topics["retrain/0"]]
        assert len(set(wanted)) == len(wanted) >= 3
        assert list(dict.fromkeys(seen)) == wanted, "at least once, in order, and none but these"
        assert all(kills[name] >= 1 for name in ("loop", "monitors", "trainer", "watch")), kills
        seed += 1
        if time.monotonic() - began >= DURATION_S:
            break

"""``streamlens worker --role loop``: where nothing can be served it ends and says what helps, and then goes on."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from agents.job_store import PARTITION, JobStore
from agents.jobs import interrupted, started
from streamlens.cli.app import run
from streamlens.target import find_target
from streams.bus import OffsetRange, TopicInfo
from streams.events import RETRAIN
from streams.records import TopicPartition

Capture = pytest.CaptureFixture[str]
LOOP = ["worker", "--role", "loop", "--until-end", "--quiet"]


def fail_the_first_training() -> None:
    """As a trainer leaves it."""
    target = find_target(None)
    with closing(JobStore(target.store_url, run_id=target.run_id, train_delay_s=86_400)) as store:
        store.assign(TopicInfo(RETRAIN, 1, None, "log"), {TopicPartition(RETRAIN, PARTITION): OffsetRange(0, 0)})
        store.add_initial("ease", target.training_end() or 0)
        (job,) = store.jobs()
        store.change(started(job))
        store.change(interrupted(started(job), "no movie was liked", 1))


def test_without_a_champion_it_ends_with_what_makes_one_and_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("STREAMLENS_LOOP_ALIGNED", "false")
    assert run(["replay", "--data", "synthetic:users=60,ratings=2000,movies=300,seed=5", "--speed", "max"]) == 0
    assert run(["worker", "--until-end", "--quiet"]) == 0
    fail_the_first_training()
    capsys.readouterr()
    assert run(LOOP) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no champion to make slates with: the trainer's first training failed: given up after one try: no" in line
    assert "`streamlens train --model NAME --promote`" in line
    assert run(["status", "--json"]) == 0
    (waits,) = json.loads(capsys.readouterr().out)["loop"]["waits"]
    assert "a champion: the trainer makes one" in waits
    assert "no movie was liked" in waits
    assert run(["train", "--model", "popularity", "--promote", "--quiet"]) == 0
    assert run(LOOP) == 0
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["loop"]
    assert (found["lag"], found["waits"]) == (0, [])
    assert sum(one["slates"] for one in found["variants"].values()) > 20

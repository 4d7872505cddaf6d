"""``streamlens worker --role reactive``: a run in which made-up users say what came of the slates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamlens.cli.app import run

Capture = pytest.CaptureFixture[str]
WORLD = "synthetic:users=60,ratings=2000,movies=300,seed=5"
UNTIL_END = ["--until-end", "--quiet"]
LOOP, REACTIVE, MONITORS = (["worker", "--role", role, *UNTIL_END] for role in ("loop", "reactive", "monitors"))


def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose features are there, and a champion; nobody waits for a trainer."""
    monkeypatch.setenv("STREAMLENS_LOOP_RATING_MODEL", "none")
    monkeypatch.setenv("STREAMLENS_LOOP_ALIGNED", "false")
    assert run(["replay", "--data", WORLD, "--speed", "max", "--quiet"]) == 0
    assert run(["worker", *UNTIL_END]) == 0
    assert run(["train", "--model", "popularity", "--promote", "--quiet"]) == 0


def status(capsys: Capture) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = json.loads(capsys.readouterr().out)
    return found


def test_made_up_users_answer_all_slates_of_a_run(
    workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(monkeypatch)
    assert run(REACTIVE) == 2
    assert 'expected feedback = "reactive" under [loop]' in capsys.readouterr().err
    monkeypatch.setenv("STREAMLENS_LOOP_FEEDBACK", "reactive")
    for role in (LOOP, REACTIVE, MONITORS):
        assert run(role) == 0
    found = status(capsys)
    made, answered = found["loop"]["variants"], found["reactive"]["variants"]
    assert {name: one["slates"] for name, one in made.items()} == {
        name: one["slates"] for name, one in answered.items()
    }
    assert all(one["ctr"] is None for one in made.values())
    assert sum(one["clicks"] for one in answered.values()) > 0
    assert found["monitors"]["closed"] == found["features"]["clock"]
    assert all(one["simulated"] for one in found["monitors"]["day"]["variants"].values())
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    assert "clicks of made-up users so far (simulated):" in out
    assert "variants (simulated):" in out
    assert run([*REACTIVE, "--rebuild"]) == 0
    assert status(capsys)["reactive"]["variants"] == answered
    monkeypatch.setenv("STREAMLENS_LOOP_FEEDBACK", "replay")
    assert run([*LOOP, "--rebuild"]) == 2
    assert 'expected "reactive", as this run has begun' in capsys.readouterr().err


def test_a_run_that_told_its_own_feedback_takes_no_made_up_users(
    workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(monkeypatch)
    assert run(LOOP) == 0
    monkeypatch.setenv("STREAMLENS_LOOP_FEEDBACK", "reactive")
    for role in (LOOP, REACTIVE):
        assert run(role) == 2
        assert 'expected "replay", as this run has begun' in capsys.readouterr().err


def test_movielens_users_are_not_made_up(workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_LOOP_FEEDBACK", "reactive")
    monkeypatch.setenv("STREAMLENS_PARTITIONS", "1")
    assert run(["replay", "--data", "ml-latest-small", "--speed", "max", "--quiet"]) == 0
    for role in (LOOP, REACTIVE):
        assert run(role) == 2
        assert "expected a run on synthetic data" in capsys.readouterr().err

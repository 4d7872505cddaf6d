"""``streamlens worker --role trainer``: from a run to its first champion, and the answer to an event."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from streamlens.cli.app import run
from streams.bus import open_bus
from streams.events import MODELS, ModelEvent
from streams.retrain import RetrainRequest, RetrainRequested, ask_for_retrain
from streams.testing import collect

Capture = pytest.CaptureFixture[str]
WORLD = "synthetic:users=60,ratings=2000,movies=300,seed=5"
TRAINER = ["worker", "--role", "trainer", "--until-end", "--quiet"]


async def ask(bus_url: str, moment: int) -> None:
    why = RetrainRequest(reason="because", severity="schedule", asked_by="test", justification="somebody must know why")
    async with open_bus(bus_url) as bus:
        event = RetrainRequested.of("ease", why, id="e1", source="test", time=datetime.fromtimestamp(moment, UTC))
        await ask_for_retrain(bus, event)


async def told(bus_url: str, count: int) -> list[ModelEvent]:
    async with open_bus(bus_url) as bus:
        return [msgspec.json.decode(value, type=ModelEvent) for value in await collect(bus, MODELS, count)]


def test_the_first_champion_and_the_answer_to_an_event(
    workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLENS_EXPERIMENT_CHAMPION", "popularity")
    monkeypatch.setenv(
        "STREAMLENS_EXPERIMENT_VARIANTS", '[{"name": "other", "weight": 1, "model": "decayed-popularity"}]'
    )
    monkeypatch.setenv("STREAMLENS_LOOP_RATING_MODEL", "none")
    monkeypatch.setenv("STREAMLENS_LOOP_ALIGNED", "false")  # else the trainer waits for the monitors' end
    assert run(["replay", "--data", WORLD, "--speed", "max", "--quiet"]) == 0
    assert run(["worker", "--until-end", "--quiet"]) == 0
    (folder,) = (workplace / "var" / "runs").iterdir()
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert (before["jobs"], before["trainer"]) == ([], None)
    asyncio.run(ask(before["bus"], before["features"]["clock"]))
    assert run(TRAINER) == 0
    assert run(["status", "--json"]) == 0
    initial, answer = json.loads(capsys.readouterr().out)["jobs"]
    assert (initial["state"], initial["model"]) == ("promoted", "popularity")
    assert (answer["id"], answer["state"], answer["model"]) == ("e1", "rejected", "ease")
    assert answer["reason"].startswith("too few slates: ")
    events = asyncio.run(told(before["bus"], 3))
    assert [(e.kind, e.model, e.request) for e in events] == [
        ("trained", "decayed-popularity", None),
        ("promoted", "popularity", None),
        ("rejected", "ease", "e1"),
    ]
    assert run(["status"]) == 0
    assert "training jobs:" in capsys.readouterr().out
    assert run(["models", "audit", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["version_id"], entry["effective"], entry["by"]) == (
        initial["version_id"],
        initial["event_time"],
        "trainer",
    )
    assert run(["models", "audit"]) == 0
    *_, rejected = capsys.readouterr().out.splitlines()
    assert rejected.startswith("rejected, no decision on a version: e1, ease as of ")
    assert rejected.endswith("; asked for by test: somebody must know why")
    assert run(TRAINER) == 0, "nothing is left to do"
    assert len(asyncio.run(told(before["bus"], 3))) == 3
    assert list((folder / "jobs").iterdir()) == []


def test_what_the_trainer_refuses(workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["replay", "--data", WORLD, "--speed", "max", "--quiet"]) == 0
    capsys.readouterr()
    assert run([*TRAINER, "--rebuild"]) == 2
    assert "remove trainer.db" in capsys.readouterr().err
    monkeypatch.setenv("STREAMLENS_TRAINER_NICENESS", "20")
    assert run(TRAINER) == 2
    assert "STREAMLENS_TRAINER_NICENESS" in capsys.readouterr().err


def test_a_first_training_that_failed_is_told_wherever_one_looks(
    workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And who asks for a training then has the first champion."""
    monkeypatch.setenv("STREAMLENS_EXPERIMENT_CHAMPION", "popularity")
    monkeypatch.setenv("STREAMLENS_LOOP_RATING_MODEL", "none")
    monkeypatch.setenv("STREAMLENS_LOOP_ALIGNED", "false")
    assert run(["replay", "--data", WORLD, "--speed", "max", "--quiet"]) == 0
    assert run(["worker", "--until-end", "--quiet"]) == 0
    with monkeypatch.context() as limited:
        limited.setenv("STREAMLENS_TRAINER_MEMORY_LIMIT_MIB", "1")
        assert run(TRAINER) == 0
    capsys.readouterr()
    told = "the first training, of popularity, failed: given up after one try: memory limit: "
    assert run(["status"]) == 0
    shown = capsys.readouterr().out
    assert f"champion  none: {told}" in shown
    assert "`streamlens train --model popularity --promote`" in shown
    assert run(["models", "audit"]) == 0
    decisions, failed, none = capsys.readouterr().out.splitlines()
    assert decisions == "no decisions yet"
    assert failed.startswith("failed, no decision on a version: ")
    assert "/trainer/initial, popularity as of " in failed
    assert none.startswith(f"no champion: {told}")
    assert run(["models", "audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(["retrain", "--model", "popularity", "--reason", "more memory now"]) == 0
    assert run(TRAINER) == 0
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["no_champion"], [job["state"] for job in found["jobs"]]) == ("", ["failed", "promoted"])
    assert run(["models", "audit"]) == 0
    _, decision, failed = capsys.readouterr().out.splitlines()
    assert "there was no champion to compare with" in decision
    assert failed.startswith("failed, no decision on a version: ")

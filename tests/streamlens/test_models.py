"""``streamlens train`` and ``streamlens models``: from a replay to a champion."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlens.cli.app import run

Capture = pytest.CaptureFixture[str]
WORLD = "synthetic:users=60,ratings=2000,movies=300,seed=5"


@pytest.fixture
def a_run(workplace: Path, capsys: Capture) -> Path:
    """The folder of a run whose ratings were all applied."""
    assert run(["replay", "--data", WORLD, "--speed", "max", "--quiet"]) == 0
    assert run(["worker", "--until-end", "--quiet"]) == 0
    capsys.readouterr()
    (folder,) = (workplace / "var" / "runs").iterdir()
    return folder


def asked(capsys: Capture, *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_from_training_to_rollback(a_run: Path, capsys: Capture) -> None:
    assert run(["train", "--model", "ease", "--set", "l2=50", "--promote", "--quiet"]) == 0
    header, *_, summary = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["model", "ctr"]
    assert "(champion): 2,000 ratings before" in summary
    ease = summary.split()[0]
    popularity = asked(capsys, "train", "--model", "popularity", "--as-of", "2010-01-01", "--quiet")
    assert (popularity["as_of"], popularity["status"]) == (1_262_304_000, "challenger")
    version = popularity["version_id"]
    assert {path.name for path in (a_run / "models" / version).iterdir()} == {
        "model.safetensors",
        "model.json",
        "manifest.json",
    }
    assert run(["models", "promote", version, "--why", "simpler"]) == 0
    assert f"{version} is the champion, {ease} was" in capsys.readouterr().out
    assert run(["models", "rollback", "--why", "too simple"]) == 0
    assert f"{ease} is the champion again" in capsys.readouterr().out
    assert run(["models", "reject", version, "--why", "for good"]) == 0
    capsys.readouterr()
    assert run(["models"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [[ease, "champion"], [version, "rejected"]]
    listed = asked(capsys, "models")
    assert [(v["version_id"], v["hyperparameters"].get("l2")) for v in listed] == [(ease, 50), (version, None)]
    assert run(["models", "--csv"]) == 0
    assert [row["status"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == ["champion", "rejected"]
    trail = asked(capsys, "models", "audit")
    assert [(e["action"], e["version_id"], e["previous"], e["why"]) for e in trail] == [
        ("promoted", ease, None, "streamlens train --promote"),
        ("promoted", version, ease, "simpler"),
        ("rolled back", ease, version, "too simple"),
        ("rejected", version, ease, "for good"),
    ]
    assert run(["models", "audit"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_each_epoch_is_told_and_embeddings_are_shown(a_run: Path, capsys: Capture) -> None:
    arguments = ["train", "--model", "vae", "--set", "width=4", "--set", "epochs=2", "--set", "device=cpu"]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert "vae  snapshot" in captured.err
    assert "vae  saving" in captured.err
    version = captured.out.splitlines()[-1].split()[0]
    assert run(["features", "user", "1"]) == 0
    assert f"embedding vae, version {version}" in capsys.readouterr().out
    assert run(["verify"]) == 0


def test_before_the_first_version(a_run: Path, capsys: Capture) -> None:
    for command, said in (([], "no versions yet"), (["audit"], "no decisions yet")):
        assert run(["models", *command]) == 0
        assert said in capsys.readouterr().out
    assert not (a_run / "models").exists()


def one_line(capsys: Capture, *arguments: str) -> str:
    assert run([*arguments, "--quiet"] if arguments[0] == "train" else [*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_what_cannot_be_done_is_one_line(
    a_run: Path, workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", "--model", "ease"]
    assert "expected ratings before 1980-01-01" in one_line(capsys, *train, "--as-of", "1980-01-01")
    assert "NAME=VALUE" in one_line(capsys, *train, "--set", "l2")
    assert "'nope'" in one_line(capsys, *train, "--set", "nope=1")
    assert "found 'nope'" in one_line(capsys, "train", "--model", "nope")
    assert "no such run" in one_line(capsys, *train, "--run", "nope")
    assert "not there yet" in one_line(capsys, *train, "--store", f"sqlite:///{workplace}/none.db")
    assert "expected a version nope, found: none" in one_line(capsys, "models", "promote", "nope", "--why", "x")
    assert "earlier champion" in one_line(capsys, "models", "rollback", "--why", "x")
    assert "--why" in one_line(capsys, "models", "rollback")
    for module in [name for name in sys.modules if name.endswith("_training") and name.startswith("models.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "pip install 'streamlens[train]'" in one_line(capsys, "train", "--model", "vae")


def test_without_a_run_the_line_says_how_to_start_one(workplace: Path, capsys: Capture) -> None:
    assert "start a run with `streamlens replay`" in one_line(capsys, "train", "--model", "ease")

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streamlens.cli.app import run

Capture = pytest.CaptureFixture[str]


def examined(capsys: Capture, code: int) -> dict[str, Any]:
    """The checks by name."""
    assert run(["doctor", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    return {check["name"]: check for check in found["checks"]}


def test_a_new_machine_is_told_what_to_do_first(capsys: Capture, workplace: Path) -> None:
    checks = examined(capsys, 0)
    assert "streamlens replay" in checks["bus"]["found"]
    assert "streamlens demo" in checks["run"]["found"]
    assert list(workplace.iterdir()) == []


def test_packages_are_found_whatever_versions_are_asked_for(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=2", "typer<1,>=0.1", "rich~=15.0", 'msgspec[toml]!=0.1; python_version > "3"']
    wanted.append('not-wanted>=1; extra == "kafka"')
    monkeypatch.setattr("streamlens.checkup.metadata.requires", lambda _: wanted)
    assert examined(capsys, 0)["packages"]["found"] == "all 4 there"
    monkeypatch.setattr("streamlens.checkup.metadata.requires", lambda _: [*wanted, "not-there<2"])
    assert examined(capsys, 1)["packages"]["found"] == "missing: not-there"


def test_data_that_is_missing_has_a_hint(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_REPLAY_DATA", "nowhere")
    checks = examined(capsys, 1)
    assert (checks["data"]["ok"], checks["python"]["ok"]) == (False, True)
    assert "synthetic" in checks["data"]["hint"]

    assert run(["doctor"]) == 1
    assert "FAIL  data" in capsys.readouterr().out


def test_a_mistake_in_the_settings_is_a_finding(capsys: Capture, workplace: Path) -> None:
    (workplace / "streamlens.toml").write_text("[replay]\nsped = 3\n")
    assert "did you mean replay.speed?" in examined(capsys, 1)["settings"]["found"]


def test_a_bus_that_is_not_there_is_a_finding(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_BUS", "sqlite:///nowhere/bus.db")
    assert "nothing is there yet" in examined(capsys, 1)["bus"]["found"]


def test_a_store_that_is_not_made_yet_is_fine_and_one_that_is_away_a_finding_without_its_password(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "streamlens worker" in examined(capsys, 0)["store"]["found"]
    monkeypatch.setenv("STREAMLENS_STORE", "postgresql://ann:s3cret@127.0.0.1:1/db")
    found = examined(capsys, 1)["store"]
    assert "postgresql://ann@127.0.0.1:1/db: cannot be reached" in found["found"]
    assert "s3cret" not in str(found)


def test_what_an_extra_would_bring_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamlens.checkup.find_spec", lambda package: None if package == "psycopg" else package)
    assert examined(capsys, 0)["extras"]["found"] == "kafka (lz4); not installed: postgres (postgresql:// stores)"


def test_a_full_disk_is_a_finding(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 100 << 30, 1 << 20))
    assert "STREAMLENS_VAR" in examined(capsys, 1)["disk"]["hint"]

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from streamlens.cli.app import app, run

COMMANDS = [
    "demo",
    "replay",
    "control",
    "data",
    "worker",
    "status",
    "topics",
    "features",
    "snapshot",
    "verify",
    "deadletter",
    "doctor",
    "bench",
]
Capture = pytest.CaptureFixture[str]


def failure(capsys: Capture, *arguments: str) -> str:
    """The one line that a failing command says; its exit code is 2 and it prints nothing."""
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_help_lists_the_commands_in_the_order_of_use(capsys: Capture) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"│ {command} ") for command in COMMANDS]
    assert places == sorted(places)


def test_no_arguments_show_the_help(capsys: Capture) -> None:
    assert run([]) == 0
    assert "Usage: streamlens" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [*COMMANDS, "control speed", "data download", "topics tail", "features user", "deadletter replay"]
)
def test_every_command_has_help(command: str, capsys: Capture) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert f"Usage: streamlens {command}" in capsys.readouterr().out


def options_of(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    for nested in getattr(command, "commands", {}).values():
        yield from options_of(nested)


def test_the_page_of_the_command_line_has_every_command_and_no_option_that_is_none() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for command in COMMANDS:
        assert re.search(rf"^## .*\b{command}\b", page, re.MULTILINE), command
    known = {*options_of(typer.main.get_command(app)), "--help"}
    assert set(re.findall(r"--[a-z][a-z-]*", page)) <= known


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from streamlens.cli.app import run; run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'typer'" in done.stderr
    for module in ("numpy", "faust", "duckdb", "sqlalchemy", "pydantic", "structlog"):
        assert f"'{module}'" not in done.stderr


def test_the_version_is_shown(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("streamlens 0.")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nope"], "nope"),
        (["replay", "--sped", "3"], "--speed"),
        (["topics"], "Missing command"),
        (["topics", "tail"], "Missing argument"),
        (["topics", "tail", "ratings", "--limit", "0"], "--limit"),
        (["features", "user", "everybody"], "'ID'"),
        (["bench", "luck"], "luck"),
        (["bench", "replay", "--events", "0"], "--events"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_where_to_look(
    arguments: list[str], complaint: str, capsys: Capture
) -> None:
    said = failure(capsys, *arguments)
    assert complaint in said
    assert "--help" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["verify"],
        ["topics", "list"],
        ["topics", "lag"],
        ["deadletter", "list"],
        ["deadletter", "replay"],
        ["features", "user", "1"],
    ],
)
def test_without_a_run_a_command_says_how_to_start_one(arguments: list[str], capsys: Capture, workplace: Path) -> None:
    assert "streamlens replay" in failure(capsys, *arguments)
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["status", "--run", "abc"], "run abc"),
        (["status", "--run", "../abc"], "run: expected an id"),
        (["status", "--bus", "amqp://here"], "amqp://here"),
        (["topics", "list", "--bus", "sqlite:///nowhere/bus.db"], "nothing is there yet"),
        (["worker", "--run", "abc"], "run abc"),
        (["topics", "tail", "ratings", "--run", "abc"], "run abc"),
        (["features", "user", "1", "--store", "sqlite:///nowhere.db"], "not there yet"),
        (["features", "user", "1", "--store", "sqlite:///nowhere.db", "--as-of", "soon"], "--as-of"),
        (["features", "user", "1", "--store", "sqlite:///nowhere.db", "--as-of", "1262304000000"], "milliseconds?"),
        (["features", "item", "1", "--store", "sqlite:///nowhere.db", "--as-of", "1969-12-31"], "1970 to 9999"),
        (["snapshot", "--out", "x", "--store", "sqlite:///nowhere.db", "--as-of", "9" * 20], "milliseconds?"),
        (["replay", "--data", "nowhere"], "nowhere: expected a MovieLens folder"),
        (["replay", "--week", "0"], "--week"),
        (["replay", "--rate", "5", "--speed", "max"], "speed and rate"),
        (["replay", "--speed", "fast"], "fast"),
        (["replay", "--arrival", "sometimes"], "arrival"),
        (["replay", "--run", "abc", "--rate", "5"], "--rate"),
        (["replay", "--run", "abc", "--new-run"], "--new-run"),
        (["replay", "--run", "abc"], "run abc"),
        (["demo", "--data", "nowhere"], "nowhere"),
    ],
)
def test_a_user_error_is_one_line_and_leaves_nothing(
    arguments: list[str], complaint: str, capsys: Capture, workplace: Path
) -> None:
    assert complaint in failure(capsys, *arguments)
    assert list(workplace.iterdir()) == []


def test_a_mistake_in_the_settings_file_is_one_line(workplace: Path, capsys: Capture) -> None:
    (workplace / "streamlens.toml").write_text("[replay]\nsped = 3\n")

    assert "did you mean replay.speed?" in failure(capsys, "status")


def test_a_settings_file_that_is_no_text_is_one_line(workplace: Path, capsys: Capture) -> None:
    (workplace / "streamlens.toml").write_bytes(b"\xff\xfe")

    assert "streamlens.toml: not valid TOML" in failure(capsys, "status")


def test_a_file_in_place_of_the_runs_is_one_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (workplace / "file").touch()
    monkeypatch.setenv("STREAMLENS_VAR", "file")

    for command in ("status", "replay", "demo"):
        assert "STREAMLENS_VAR: var: expected a folder" in failure(capsys, command)


def test_a_folder_that_cannot_be_written_is_for_the_user_to_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "var")

    monkeypatch.setattr(Path, "mkdir", refused)

    assert "var: Permission denied; run in a folder" in failure(capsys, "replay", "--data", "synthetic:ratings=100")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("streamlens.target.find_target", broken)

    with pytest.raises(ZeroDivisionError):
        run(["status"])


def test_a_short_benchmark_measures_as_many_events_as_asked_for(capsys: Capture) -> None:
    assert run(["bench", "replay", "--events", "2000", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["events"] == 2_000
    assert figures["events_per_s"] > 0

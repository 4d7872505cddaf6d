"""``streamlens data``, and the commands that take what it brought."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import streams.download
from streamlens.cli.app import run
from tests.archive_server import ArchiveServer, archive, serving

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as server:
        server.files["/ml-1m.zip"] = archive()
        server.files["/ml-1m.zip.md5"] = hashlib.md5(server.files["/ml-1m.zip"]).hexdigest().encode()
        yield server


def error_line(capsys: Capture, code: int, *arguments: str) -> str:
    assert run(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err.splitlines()[-1]


def test_the_list_names_every_release_with_its_size_and_terms(capsys: Capture) -> None:
    assert run(["data", "list"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines()[1:8]}
    assert list(lines) == ["ml-latest-small", "ml-latest", "ml-32m", "ml-25m", "ml-10m", "ml-1m", "ml-100k"]
    assert "239 MB" in lines["ml-32m"]
    assert "not without permission" in lines["ml-1m"]
    assert "no commercial use without permission" in out


def test_the_list_is_given_to_programs_too(capsys: Capture) -> None:
    assert run(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["releases"][5]["name"] == "ml-1m"
    assert "research use" in listed["licence"]


def test_a_download_is_ready_to_be_replayed_and_known_to_doctor(
    server: ArchiveServer, workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["data", "download", "ml-1m", "--url", server.url]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("data/ml-1m: complete; `streamlens replay --data data/ml-1m`")
    assert "no commercial use" in said.out
    assert [line.split()[0] for line in said.err.splitlines()] == ["download", "unpack"]
    assert said.err.endswith("unpack  1.0 MB of 1.0 MB\n")
    assert os.listdir(workplace / "data") == ["ml-1m"]

    for name in ("ml-1m", "data/ml-1m"):
        monkeypatch.setenv("STREAMLENS_REPLAY_DATA", name)
        assert run(["doctor", "--json"]) == 0
        checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
        assert checks["data"]["found"] == "ml-1m, 3 ratings"
        assert run(["replay", "--speed", "max", "--week", "1", "--new-run", "-q"]) == 0
        assert "published 3 ratings" in capsys.readouterr().out


def test_a_dataset_that_is_there_is_left_alone(server: ArchiveServer, tmp_path: Path, capsys: Capture) -> None:
    command = ["data", "download", "ml-1m", "--to", str(tmp_path / "sets"), "--url", f"{server.url}/"]
    assert run([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    asked = len(server.asked)
    assert run(command) == 0
    assert "there already" in capsys.readouterr().out
    assert len(server.asked) == asked
    assert run([*command, "--force"]) == 0
    assert len(server.asked) == asked + 2


def test_in_a_terminal_a_bar_shows_each_phase(
    server: ArchiveServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    del server.files["/ml-1m.zip.md5"]
    assert run(["data", "download", "ml-1m", "--url", server.url]) == 0
    shown = capsys.readouterr().err
    assert "no checksum is published" in shown
    for phase in ("download", "unpack"):
        assert phase in shown
    assert "1.0/1.0 MB" in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ml-1n"], "did you mean ml-1m?"),
        (["ml-1m", "--url", "file:///etc"], "expected an address that begins with http://"),
    ],
)
def test_a_wrong_question_is_one_line(arguments: list[str], complaint: str, workplace: Path, capsys: Capture) -> None:
    assert complaint in error_line(capsys, 2, "data", "download", *arguments)
    assert list(workplace.iterdir()) == []


def test_what_the_user_can_mend_and_what_is_away_differ_in_their_exit_code(
    server: ArchiveServer, workplace: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = functools.partial(streams.download.download, sleep=lambda seconds: None)
    monkeypatch.setattr("streams.download.download", quick)
    assert "found 404" in error_line(capsys, 2, "data", "download", "ml-10m", "--url", server.url)
    server.files["/ml-1m.zip.md5"] = b"0" * 32
    assert "published MD5" in error_line(capsys, 2, "data", "download", "ml-1m", "--url", server.url)
    server.faults.extend([503] * 5)
    assert "503" in error_line(capsys, 3, "data", "download", "ml-1m", "--url", server.url)
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_download_keeps_its_part_and_goes_on(
    server: ArchiveServer, workplace: Path, capsys: Capture, number: signal.Signals
) -> None:
    server.faults.append("stall")
    half = len(server.files["/ml-1m.zip"]) // 2
    command = [sys.executable, "-m", "streamlens", "data", "download", "ml-1m", "--url", server.url]
    part = workplace / "data" / "ml-1m.zip.part"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size == half):
            assert time.monotonic() < deadline
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "stopped; the same command goes on with what was received"
    assert "Traceback" not in said
    assert part.stat().st_size == half

    assert run(command[3:]) == 0
    assert server.archives_asked() == [None, f"bytes={half}-"]
    assert os.listdir(workplace / "data") == ["ml-1m"]


def test_a_zip_given_as_data_is_told_what_unpacks_it(server: ArchiveServer, workplace: Path, capsys: Capture) -> None:
    (workplace / "ml-1m.zip").write_bytes(server.files["/ml-1m.zip"])
    said = error_line(capsys, 2, "replay", "--data", "ml-1m.zip")
    assert (
        "found a zip archive; unpack it and name the folder, or have `streamlens data download ml-1m` do both" in said
    )


def test_a_release_that_is_not_there_names_its_download(workplace: Path, capsys: Capture) -> None:
    assert "`streamlens data download ml-25m`" in error_line(capsys, 2, "replay", "--data", "ml-25m")
    assert list(workplace.iterdir()) == []

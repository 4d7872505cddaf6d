"""The program as it will run, a process of its own; each test once on a file and once on a real broker."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streams import Bus
from streams.events import RETRAIN, Control
from streams.testing import eventually, publish, publish_retrain

pytestmark = pytest.mark.streamlens_bus("sqlite", "kafka")

PROGRAM = Path(__file__).parent.parent / "retrain_consumer.py"
APPEND = "cat >> runs; echo >> runs; test ! -e broken; while test -e hang; do sleep 0.05; done"

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def start(streamlens_bus_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts the program; its command notes the event in the file `runs`, and fails or hangs if it is told to."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROGRAM), streamlens_bus_url, "done", "sh", "-ec", APPEND]
        started.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """`kill -9`, its command too."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


async def test_each_event_is_acted_on_once_however_often_it_comes(
    streamlens_bus: Bus, start: Start, tmp_path: Path
) -> None:
    await publish_retrain(streamlens_bus, "mf", id="1")
    await publish_retrain(streamlens_bus, "mf", id="1")
    await publish(streamlens_bus, RETRAIN, Control("run", "stop"))  # no retrain event
    start()
    await publish_retrain(streamlens_bus, "vae", id="2")
    await eventually(lambda: lines(tmp_path / "done") == ["1", "2"])
    assert [json.loads(run)["subject"] for run in lines(tmp_path / "runs")] == ["mf", "vae"]


async def test_killed_at_work_it_does_that_work_again_and_no_other(
    streamlens_bus: Bus, start: Start, tmp_path: Path
) -> None:
    await publish_retrain(streamlens_bus, id="1")
    first = start()
    await eventually(lambda: lines(tmp_path / "done") == ["1"])
    (tmp_path / "hang").touch()
    await publish_retrain(streamlens_bus, id="2")
    await eventually(lambda: (tmp_path / "runs").read_text().count("\n") == 2)
    kill(first)
    (tmp_path / "hang").unlink()
    start()
    await eventually(lambda: lines(tmp_path / "done") == ["1", "2"])
    assert [json.loads(run)["id"] for run in lines(tmp_path / "runs")] == ["1", "2", "2"]


async def test_an_event_whose_command_fails_waits(streamlens_bus: Bus, start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    await publish_retrain(streamlens_bus, id="1")
    assert start().wait(timeout=20) == 1
    assert lines(tmp_path / "done") == []
    (tmp_path / "broken").unlink()
    start()
    await eventually(lambda: lines(tmp_path / "done") == ["1"])

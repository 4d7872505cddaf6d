"""What docker-compose.yml starts, as processes: own folders, own names, nothing in common but broker and store.

Commands, variables and health checks are read from the file. The broker is the tests', and the store a file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.compose_file import ROOT, services, settings_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.streamlens_bus("kafka")]

SERVICES = services()
TRAINING = 60_501
DEADLINE_S = 90


class Container:
    """A service's command in a folder of its own."""

    def __init__(self, name: str, folder: Path, bus: str, store: str) -> None:
        self.service = SERVICES[name]
        self.folder = folder
        folder.mkdir()
        self.env = {
            **os.environ,
            **settings_of(self.service),
            "STREAMLENS_BUS": bus,
            "STREAMLENS_STORE": store,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "streamlens", *self.service["command"]]
        with subprocess.Popen(command, cwd=self.folder, env=self.env, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def execute(self, *arguments: str) -> Any:
        """What a read command says beside it."""
        command = [sys.executable, "-m", "streamlens", *arguments, "--json"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def healthy(self) -> bool:
        kind, test = self.service["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        return subprocess.run(["sh", "-c", test], cwd=self.folder, capture_output=True, check=False).returncode == 0

    @property
    def alive(self) -> Path:
        (found,) = self.folder.glob("var/**/*.alive")
        return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {DEADLINE_S} s"
        time.sleep(0.1)


def test_replayer_and_workers_work_apart_and_one_may_be_killed(streamlens_bus_url: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/postgres.db"
    replayer, first, second = (
        Container(name, tmp_path / folder, streamlens_bus_url, store)
        for name, folder in (("replayer", "replayer"), ("worker", "worker-1"), ("worker", "worker-2"))
    )
    with first.running() as to_kill, second.running() as worker, replayer.running() as replay:
        for container in (first, second, replayer):
            wait_for(container.healthy, f"{container.folder.name} to be healthy")
        wait_for(lambda: ratings(second) > TRAINING, "live ratings to be applied")
        names = {(container.folder / "var/members/instance-0.id").read_text() for container in (first, second)}
        assert len(names) == 2

        to_kill.kill()
        before = ratings(second)
        wait_for(lambda: lag_and_ratings(second)[0] < 100 and ratings(second) > before, "the survivor to take over")
        assert second.execute("verify")["ok"]
        assert second.execute("features", "top", "--window", "all")["movies"][0]["title"]  # a worker knows the movies,
        wait_for(lambda: knows_shifts(second), "the shift since the training part")  # and where the training part ends

        for process in (replay, worker):
            process.send_signal(signal.SIGTERM)
        for process in (replay, worker):
            process.wait(timeout=int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")))
            assert process.returncode == 0, process.stderr.read() if process.stderr else ""


def test_a_worker_that_hangs_is_not_healthy(streamlens_bus_url: str, tmp_path: Path) -> None:
    container = Container("worker", tmp_path / "worker", streamlens_bus_url, f"sqlite:///{tmp_path}/postgres.db")
    assert not container.healthy()
    with container.running() as process:
        wait_for(container.healthy, "the worker to be healthy")
        process.send_signal(signal.SIGSTOP)
        os.utime(container.alive, (0, 0))
        assert not container.healthy()
        process.send_signal(signal.SIGCONT)
        wait_for(container.healthy, "the worker to be healthy again")


def knows_shifts(container: Container) -> bool:
    return any(name.startswith("quality.psi") for name in container.execute("status")["metrics"])


def ratings(container: Container) -> int:
    return lag_and_ratings(container)[1]


def lag_and_ratings(container: Container) -> tuple[int, int]:
    features = container.execute("status")["features"]
    return (features["lag"], features["ratings"]) if features else (0, 0)

"""The command line on Kafka: a run has topics of its own, which every command finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.testing import unique_prefix
from tests.local_kafka import free_ports, guarded

pytestmark = pytest.mark.broker

DATA = Path(__file__).parents[2] / "data" / "ml-latest-small"
STORE = ("--store", "sqlite:///features.db")


def streamlens(*arguments: str, expected: int = 0) -> str:
    command = [sys.executable, "-m", "streamlens", *arguments]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == expected, done.stderr
    return done.stdout if expected == 0 else done.stderr


def test_a_run_on_kafka_is_replayed_worked_and_verified(streamlens_broker: str) -> None:
    # Another seed than other tests on this broker have: the run's id is in the names of its topics.
    options = ("--data", str(DATA), "--speed", "max", "--limit", "500", "--seed", str(int(unique_prefix()[-6:], 16)))
    streamlens("replay", *options, "--bus", f"kafka://{streamlens_broker}", "--quiet")
    streamlens("worker", "--until-end", "--quiet")
    status = json.loads(streamlens("status", "--json"))
    assert status["bus"] == f"kafka://{streamlens_broker}/{status['run']}"
    assert "verify passed" in streamlens("verify")
    assert json.loads(streamlens("verify", "--bus", f"kafka://{streamlens_broker}", "--json"))["ok"]


def one_line(said: str) -> str:
    assert said.startswith("streamlens: ")
    assert said.count("\n") == 1
    return said


def test_a_broker_that_is_away_is_one_line_and_exit_code_3_and_leaves_no_run(workplace: Path) -> None:
    nowhere = ("--bus", f"kafka://127.0.0.1:{free_ports(1)[0]}")
    for command in (("topics", "list"), ("replay", "--data", "synthetic:ratings=100"), ("worker",)):
        said = one_line(streamlens(*command, *nowhere, *(STORE if command == ("worker",) else ()), expected=3))
        assert "expected a Kafka broker, found none that answers" in said
    assert not list(workplace.glob("var/runs/*"))


def test_a_wrong_password_and_a_missing_permission_are_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLENS_KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    replay = ("replay", "--data", "synthetic:ratings=100", "--speed", "max", "--quiet")
    with guarded(tmp_path / "kafka") as address:
        bus = ("--bus", f"kafka://{address}")

        def told(user: str, password: str, *command: str) -> str:
            monkeypatch.setenv("STREAMLENS_KAFKA_USERNAME", user)
            monkeypatch.setenv("STREAMLENS_KAFKA_PASSWORD", password)
            return streamlens(*command, expected=2)

        for command in (replay, ("topics", "list")):
            said = one_line(told("admin", "hunter2", *command, *bus))
            assert "STREAMLENS_KAFKA_PASSWORD" in said
            assert "hunter2" not in said
        denied = told("reader", "reader-secret", *replay, *bus).splitlines()[-1]
        assert "create topic" in denied
        assert denied.endswith("ask for an ACL")
        told_of_group = told("loner", "loner-secret", "worker", "--quiet", *bus, *STORE).splitlines()[-1]
        assert "join the group" in told_of_group

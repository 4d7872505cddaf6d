"""The command line on Kafka: a run has topics of its own, which every command finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.testing import unique_prefix

pytestmark = pytest.mark.broker

DATA = Path(__file__).parents[2] / "data" / "ml-latest-small"


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


def test_a_wrong_address_is_one_line_and_exit_code_3() -> None:
    said = streamlens("topics", "list", "--bus", "kafka://127.0.0.1:1", expected=3)
    assert said.startswith("streamlens: bus kafka://127.0.0.1:1: expected a Kafka broker")
    assert said.count("\n") == 1

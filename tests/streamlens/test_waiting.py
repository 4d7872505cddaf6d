"""Commands that are started before the run they are about."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamlens.cli.app import run
from streamlens.presence import announced
from streams.bus import TopicSpec, open_bus
from streams.run import current_run

DEADLINE_S = 60.0
REPLAY = ["replay", "--data", "synthetic:ratings=3000", "--speed", "max", "--partitions", "2"]


@contextmanager
def waiting(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``streamlens ARGUMENTS``, once it has said that it waits; its next lines are still to be read."""
    command = [sys.executable, "-m", "streamlens", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("waiting for "), line + process.stderr.read()
            yield process
        finally:
            process.kill()


def end_of(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended by itself and well."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, "streamlens: " in err, "Traceback" in err) == (0, False, False), err
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command",
    [["worker"], ["worker", "--bus", "sqlite:///nowhere/bus.db"], ["topics", "tail", "metrics"]],
    ids=" ".join,
)
def test_a_command_that_waits_leaves_nothing_and_ends_well(
    command: list[str], number: signal.Signals, workplace: Path
) -> None:
    with waiting(*command) as process:
        process.send_signal(number)
        assert end_of(process) == ""
    assert list(workplace.iterdir()) == []


def test_worker_and_tail_may_be_started_before_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    tailing = waiting("topics", "tail", "ratings", "--limit", "3000")
    with waiting("worker", "--until-end") as worker, tailing as tail:
        assert run(REPLAY) == 0
        assert len([json.loads(line) for line in end_of(tail).splitlines()]) == 3_000
        end_of(worker)
    capsys.readouterr()
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"]["ratings"] == 3_000


def test_a_worker_that_is_told_bus_and_store_only_begins_no_store_without_movies(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its next start, with the run, would refuse such a store."""
    where = ["--bus", f"sqlite:///{workplace / 'bus.db'}", "--store", f"sqlite:///{workplace / 'features.db'}"]

    async def make_bus() -> None:
        async with open_bus(where[1]) as bus:
            await bus.topics()

    asyncio.run(make_bus())
    with waiting("worker", "--until-end", *where) as worker:
        assert not (workplace / "features.db").exists()
        assert run([*REPLAY, *where]) == 0
        end_of(worker)
    assert run(["worker", "--until-end", "--quiet"]) == 0
    capsys.readouterr()
    assert run(["features", "top", "--window", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["movies"][0]["title"]


def test_tail_waits_for_a_topic_that_a_run_makes(workplace: Path) -> None:
    url = f"sqlite:///{workplace / 'bus.db'}"

    async def publish(topic: str) -> None:
        async with open_bus(url) as bus:
            await bus.create_topics(TopicSpec(topic, 1))
            async with bus.producer() as producer:
                await producer.send(topic, b'{"n":1}')

    asyncio.run(publish("ratings"))
    with waiting("topics", "tail", "metrics", "--limit", "1", "--bus", url) as tail:
        asyncio.run(publish("metrics"))
        assert json.loads(end_of(tail)) == {"n": 1}


def test_a_worker_leaves_the_run_of_a_demo_to_it(workplace: Path) -> None:
    """Else whoever waits for a run takes the demo's, and the demo's own worker is refused."""
    assert run(REPLAY) == 0
    begun = current_run(workplace / "var")
    assert begun is not None
    with announced(begun.path, "demo"), waiting("worker", "--until-end") as worker:
        assert not (begun.path / "features.db").exists()
        worker.send_signal(signal.SIGINT)
        end_of(worker)
    assert not (begun.path / "features.db").exists()

"""Loop and monitors killed with SIGKILL, each once at every step of theirs: the topics and the stores are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from streams.bus import open_bus
from streams.events import ALERTS, FEEDBACK, IMPRESSIONS, RETRAIN
from tests.agents.killed import LOOP_STEPS, MONITOR_STEPS, PUBLISHED, bus_of, killed, loop_part, monitors_part
from tests.agents.loop_world import Published, World, in_one_go
from tests.agents.monitored import falling
from tests.agents.monitored_run import Run
from tests.loop.together import unique, values_of


async def read_topics(folder: Path, topics: Iterable[str]) -> tuple[Published, int]:
    """Records by topic and partition, each once, in the order of the log; and how many stand there once more."""
    found: Published = {}
    n_again = 0
    async with open_bus(bus_of(folder)) as bus:
        for topic in topics:
            for partition, values in (await values_of(bus, topic)).items():
                found[topic, partition] = unique(values)
                n_again += len(values) - len(found[topic, partition])
    return found, n_again


@pytest.mark.parametrize("step", LOOP_STEPS)
def test_a_loop_that_is_killed_tells_the_same(tmp_path: Path, step: str) -> None:
    world = World(tmp_path)
    world.apply_features()
    world.features.close()
    killed(loop_part, tmp_path, step)
    so_far, _ = asyncio.run(read_topics(tmp_path, (IMPRESSIONS, FEEDBACK)))
    loop_part(tmp_path)
    told, n_again = asyncio.run(read_topics(tmp_path, (IMPRESSIONS, FEEDBACK)))
    assert 0 < sum(map(len, so_far.values())) < sum(map(len, told.values()))
    assert (n_again > 0) == (step == PUBLISHED)
    assert told == in_one_go(World(tmp_path / "whole"))


@pytest.mark.parametrize("step", MONITOR_STEPS)
def test_monitors_that_are_killed_tell_and_know_the_same(tmp_path: Path, step: str) -> None:
    killed(monitors_part, tmp_path, step)
    monitors_part(tmp_path)
    told, n_again = asyncio.run(read_topics(tmp_path, (ALERTS, RETRAIN)))
    assert (n_again > 0) == (step == PUBLISHED)

    (tmp_path / "whole").mkdir()
    whole = Run(tmp_path / "whole", falling(5))
    asyncio.run(whole.read())
    expected: dict[str, Any] = whole.outcome()
    values = sorted(value for _, _, value in expected.pop("records"))
    assert sorted(value for part in told.values() for value in part) == values
    known = Run(tmp_path, falling(5)).outcome()
    assert known.pop("records") == []
    assert known == expected

"""Who serves in a small run, and what its loop waits for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agents.alignment import NO_CHAMPION, Gate, Progress
from streams.events import DAY_S, FEEDBACK, IMPRESSIONS
from tests.agents.loop_world import (
    DONE,
    LIVE,
    LOG,
    Published,
    World,
    add_model,
    batches_of,
    expected,
    published,
    ranges_of,
    run_out,
    slates_of,
    unread,
    world,
)

__all__ = ["expected", "world"]


def test_a_promotion_serves_from_its_time_on_in_every_partition(world: World, expected: Published) -> None:
    world.apply_features()
    due = LIVE + 5 * DAY_S
    steps = world.loop(Gate(LIVE), records_at_once=30)
    world.progress = replace(DONE, open_due=due, asked="run/monitors/1")
    batches = batches_of(world.log, 40)
    steps.offer(batches)
    run_out(steps)
    assert all(why.startswith("the trainer's answer to run/monitors/1") for why in steps.waits.values())
    before = slates_of(published(steps))
    assert before
    assert max(s.timestamp for s in before) < due
    newer = add_model(world.registry, "ease", "ease-1", world.ratings, due - DAY_S)
    world.registry.promote(newer, by="trainer", why="better", effective=due)
    world.progress = DONE
    run_out(steps)
    for slate in slates_of(published(steps)):
        if slate.variant == "a":
            assert slate.model_version == ("ease-0" if slate.timestamp < due else "ease-1")


def test_one_partition_waits_and_the_other_goes_on(world: World) -> None:
    batches = batches_of(world.log, 40)
    world.apply_features([b for b in batches if b.partition == 1])
    steps = world.loop()
    steps.offer(batches)
    run_out(steps)
    assert steps.waits.keys() == {0}
    assert steps.writer.cursors[1].end_of_run
    assert (FEEDBACK, 1) in published(steps)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (Progress(), "first training, it has not begun"),
        (Progress(initial="running"), "first training, it is running"),
        (Progress(initial="done"), "the monitors to close"),
        (Progress(initial="done", monitors_closed=LIVE - 2 * DAY_S), "the monitors to close"),
    ],
)
def test_the_live_part_waits_for_its_conditions_and_the_training_part_for_none(
    world: World, progress: Progress, expected: str
) -> None:
    world.apply_features()
    world.progress = progress
    steps = world.loop()
    steps.offer(batches_of(world.log, 60))
    run_out(steps)
    assert len(steps.waits) == 2
    assert all(expected in why for why in steps.waits.values())
    assert not slates_of(published(steps))
    ticks = [msgspec.json.decode(line) for line in published(steps)[IMPRESSIONS, 0]]
    assert ticks[-1]["event_time"] == LIVE


@pytest.mark.parametrize("size", [60, 100_000])
def test_monitors_are_followed_a_day_behind(world: World, size: int) -> None:
    """Also where one batch holds all days."""
    world.apply_features()
    steps = world.loop()
    steps.offer(batches_of(world.log, size))
    for day in range(10):
        world.progress = Progress(monitors_closed=LIVE + (day - 1) * DAY_S, initial="done")
        run_out(steps)
        found = slates_of(published(steps))
        assert max(s.timestamp for s in found) // DAY_S == LIVE // DAY_S + day
    assert not steps.waits


def test_without_a_champion_it_waits_and_says_what_makes_one(tmp_path: Path) -> None:
    world = World(tmp_path / "run")
    world.apply_features()
    for file in (tmp_path / "run" / "models").glob("registry.json"):
        file.unlink()
    for aligned in (True, False):
        for initial, told in (("running", ""), ("failed", "the trainer's first training failed: too few ratings")):
            world.progress = replace(DONE, initial=initial, reason="too few ratings")
            steps = world.loop(Gate(LIVE, aligned=aligned))
            steps.offer(unread(world.log, steps, 60))
            run_out(steps)
            assert steps.no_champion == told
            wanted = "first training, it is running" if aligned and not told else f"{NO_CHAMPION}{told and '; '}{told}"
            assert all(wanted in why for why in steps.waits.values())
            assert len(steps.waits) == 2
            steps.close()


@pytest.mark.parametrize("aligned", [True, False])
def test_a_champion_that_a_person_makes_lets_it_go_on(world: World, aligned: bool) -> None:
    world.apply_features()
    (world.folder / "models" / "registry.json").unlink()
    world.progress = replace(DONE, initial="failed")
    steps = world.loop(Gate(LIVE, aligned=aligned))
    steps.offer(batches_of(world.log, 60))
    run_out(steps)
    assert len(steps.waits) == 2
    world.registry.promote(world.registry.get("popularity-0"), by="test", why="first")
    run_out(steps)
    assert not steps.waits
    assert not steps.no_champion
    assert {s.model_version for s in slates_of(published(steps)) if s.variant == "a"} == {"popularity-0"}


def test_free_running_serves_who_is_champion_now(world: World) -> None:
    """A decision holds at once, though it is meant for a later event time."""
    world.apply_features()
    world.progress = Progress()
    newer = add_model(world.registry, "ease", "ease-1", world.ratings, LIVE)
    world.registry.promote(newer, by="test", why="better", effective=LIVE + 10**9)
    steps = world.loop(Gate(LIVE, aligned=False))
    steps.offer(batches_of(world.log, 60))
    run_out(steps)
    assert {s.model_version for s in slates_of(published(steps)) if s.variant == "a"} == {"ease-1"}


def test_a_released_partition_is_left_to_its_successor(world: World, expected: Published) -> None:
    world.apply_features()
    first = world.loop(records_at_once=50)
    first.offer(batches_of(world.log, 30))
    for _ in range(4):
        first.advance()
    first.release([0, 1])
    assert not first.advance()
    second = world.loop()
    second.offer(unread(world.log, second, 200))
    run_out(second)
    assert published(second) == expected
    assert second.writer.cursors.keys() == {tp.partition for tp in ranges_of(world.log)}
    assert LOG.partitions == len(second.writer.cursors)

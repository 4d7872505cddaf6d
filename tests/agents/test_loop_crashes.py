"""The loop stopped at any step, and with a store that fails: slates and feedback are the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from agents.loop_steps import LoopSteps
from streams.errors import StoreUnavailable
from tests.agents.loop_world import (
    Published,
    World,
    batches_of,
    expected,
    feedback_of,
    published,
    slates_of,
    unread,
    world,
)

__all__ = ["expected", "world"]


class Killed(Exception):
    """In place of a kill, which test_killed_steps.py has: nothing of the memory is left."""


def killed(*_: object, **__: object) -> Any:
    raise Killed


def advance_through_failures(steps: LoopSteps) -> None:
    """Until there is nothing more to do, as often as the store fails."""
    going = True
    while going:
        with suppress(StoreUnavailable):
            going = steps.advance()


def _before_lists(steps: LoopSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_make_lists", killed)


def _before_commit(steps: LoopSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.writer, "commit_step", killed)


def _in_the_transaction(steps: LoopSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    execute_many = steps.writer.database.execute_many

    def until_outgoing(sql: str, rows: Any) -> None:
        if "INTO outgoing" in sql:
            raise Killed
        execute_many(sql, rows)

    monkeypatch.setattr(steps.writer.database, "execute_many", until_outgoing)


def _after_commit(steps: LoopSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = steps.writer.commit_step

    def commit_and_die(*arguments: Any) -> bool:
        commit(*arguments)
        raise Killed

    monkeypatch.setattr(steps.writer, "commit_step", commit_and_die)


@pytest.mark.parametrize("where", [_before_lists, _before_commit, _in_the_transaction, _after_commit])
@pytest.mark.parametrize("every", [1, 3])
def test_killed_anywhere_and_started_again_it_gives_the_same(
    world: World,
    expected: Published,
    where: Callable[[LoopSteps, pytest.MonkeyPatch], None],
    every: int,
) -> None:
    world.apply_features()
    n_killed = 0
    for _ in range(400):
        steps = world.loop(records_at_once=40)
        left = unread(world.log, steps, 25)
        if not left:
            break
        steps.offer(left)
        for _ in range(every):
            steps.advance()
        with pytest.MonkeyPatch.context() as patched:
            where(steps, patched)
            try:
                steps.advance()
            except Killed:
                n_killed += 1
        steps.close()
    assert not left
    assert n_killed > 3
    assert published(steps) == expected


def test_a_step_that_failed_is_made_again(world: World, expected: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    world.apply_features()
    steps = world.loop(records_at_once=50)
    steps.offer(batches_of(world.log, 30))
    commit, failures = steps.writer.commit, iter([True, False, True, True, False] * 200)

    def sometimes(*arguments: Any) -> bool:
        if next(failures):
            raise StoreUnavailable("disk full")
        return commit(*arguments)

    monkeypatch.setattr(steps.writer, "commit", sometimes)
    advance_through_failures(steps)
    assert published(steps) == expected
    tallies = steps.tallies
    assert sum(t.slates for t in tallies.values()) == len(slates_of(expected))
    assert sum(t.clicks for t in tallies.values()) == sum(len(f.clicked) for f in feedback_of(expected))


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    world: World, expected: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke after the commit: the writer tells False, and the records come again."""
    world.apply_features()
    steps = world.loop(records_at_once=50)
    steps.offer(batches_of(world.log, 30))
    transaction = steps.writer.database.transaction
    lost = iter([False, False, True] * 300)

    @contextmanager
    def losing(**options: Any) -> Iterator[None]:
        with transaction(**options):
            yield
        if next(lost):
            raise StoreUnavailable("connection lost")

    monkeypatch.setattr(steps.writer.database, "transaction", losing)
    advance_through_failures(steps)
    monkeypatch.undo()
    assert published(steps) == expected

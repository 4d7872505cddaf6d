"""What goes wrong in a chaos test, and when: drawn from a seed, as data, before anything is started."""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["BROKER", "DATABASE", "FIRST_WORKERS", "Action", "schedule"]

BROKER = "broker"
DATABASE = "database"
FIRST_WORKERS = ("worker-1", "worker-2", "worker-3")

_FROZEN_S = 14.0
"""Longer than the session timeout, after which others take a worker's partitions over."""
_SETTLED_S = 6.0
"""After the broker came back: a JVM starts, and the group forms anew."""
_LONG_FROM_S = 150.0


class Action(NamedTuple):
    """``verb``: of the broker stop, crash, start, of the database crash, start; of a worker start, kill, freeze, thaw,
    remove (as Ctrl-C does)."""

    at_s: float
    verb: str
    whom: str


class _Draft:
    """Actions one after the other; who is alive by then."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_s = self.rng.uniform(2.0, 4.0)
        self.alive = list(FIRST_WORKERS)
        self.n_workers = len(FIRST_WORKERS)
        self.actions: list[Action] = []

    def _act(self, verb: str, whom: str, after_s: float = 0.0) -> None:
        self.actions.append(Action(round(self.now_s + after_s, 1), verb, whom))

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds + self.rng.uniform(1.5, 4.0)

    def kill(self) -> None:
        """One is killed and started again: at once, a little later, or after it was missed."""
        victim = self.rng.choice(self.alive)
        away_s = self.rng.choice([0.0, 2.0, 11.0]) if self.now_s > 60 else self.rng.choice([0.0, 2.0])
        self._act("kill", victim)
        self._act("start", victim, away_s)
        self._pass(away_s)

    def freeze(self) -> None:
        """One is stopped for so long that others take over, and wakes as a zombie; one of those is killed meanwhile."""
        zombie, victim = self.rng.sample(self.alive, 2)
        self._act("freeze", zombie)
        killed_s = self.rng.uniform(1.0, 4.0)
        self._act("kill", victim, killed_s)
        self._act("start", victim, killed_s + 0.5)
        self._act("thaw", zombie, _FROZEN_S)
        self._pass(_FROZEN_S + 2.0)

    def add(self) -> None:
        self.n_workers += 1
        self.alive.append(f"worker-{self.n_workers}")
        self._act("start", self.alive[-1])
        self._pass(1.0)

    def remove(self) -> None:
        victim = self.rng.choice(self.alive)
        if len(self.alive) == len(FIRST_WORKERS):
            self.add()
        self.alive.remove(victim)
        self._act("remove", victim)
        self._pass(1.0)

    def outage(self, verb: str, away_s: float) -> None:
        """The broker is away; a worker dies meanwhile, and is started once it is back."""
        victim = self.rng.choice(self.alive)
        self._act(verb, BROKER)
        self._act("kill", victim, self.rng.uniform(0.2, 0.8) * away_s)
        self._act("start", BROKER, away_s)
        self._act("start", victim, away_s + 1.0)
        self._pass(away_s + _SETTLED_S)

    def crash_database(self) -> None:
        """It loses its last transactions; a worker dies meanwhile, so that a rebalance comes while others wait."""
        victim = self.rng.choice(self.alive)
        away_s = self.rng.uniform(3.0, 13.0)
        self._act("crash", DATABASE)
        self._act("kill", victim, self.rng.uniform(0.2, 0.8) * away_s)
        self._act("start", DATABASE, away_s)
        self._act("start", victim, away_s + 1.0)
        self._pass(away_s + 3.0)

    def stop_15_s(self) -> None:
        self.outage("stop", 15.0)

    def stop_60_s(self) -> None:
        self.outage("stop", 60.0)

    def crash(self) -> None:
        self.outage("crash", 2.0)


def schedule(seed: int, duration_s: float) -> list[Action]:
    """Each kind of trouble at least once, in an order drawn from ``seed``; then more of it until ``duration_s``.

    From 150 s on the broker is away for a minute, too. No worker is started while it is: that is refused.

    >>> schedule(1, 75) == schedule(1, 75)
    True
    >>> sorted({action.verb for action in schedule(1, 75)})
    ['crash', 'freeze', 'kill', 'remove', 'start', 'stop', 'thaw']
    """
    draft = _Draft(seed)
    turns = [draft.kill, draft.freeze, draft.add, draft.remove, draft.stop_15_s, draft.crash, draft.crash_database]
    if duration_s >= _LONG_FROM_S:
        turns.append(draft.stop_60_s)
    draft.rng.shuffle(turns)
    for turn in turns:
        turn()
    while draft.now_s < duration_s:
        draft.rng.choice([draft.kill, draft.kill, draft.freeze, draft.add, draft.remove])()
    return sorted(draft.actions, key=lambda action: action.at_s)

"""A partition of which much waits is read no further until little does, and the others go on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from faust.types import TP

from agents import loop
from agents.loop import LoopIngest
from streams.app import BatchedApp
from streams.events import RATINGS


class Consumer:
    """Faust's, as far as it is paused."""

    def __init__(self) -> None:
        self.paused: set[TP] = set()

    def pause_partitions(self, tps: set[TP]) -> None:
        assert not tps & self.paused
        self.paused |= tps

    def resume_partitions(self, tps: set[TP]) -> None:
        assert tps <= self.paused
        self.paused -= tps


def test_it_pauses_above_one_mark_and_resumes_below_another() -> None:
    consumer = Consumer()
    ingest: Any = SimpleNamespace(paused=set(), steps=SimpleNamespace(backlogs={}))
    most, few = loop._PAUSED_ABOVE, loop._RESUMED_BELOW
    for backlogs, paused in [
        ({0: most, 1: 5}, set()),
        ({0: most + 1, 1: 5}, {0}),
        ({0: most + 9, 1: most + 1}, {0, 1}),
        ({0: few, 1: few - 1}, {0}),
        ({0: few - 1, 1: 0}, set()),
    ]:
        ingest.steps.backlogs = backlogs
        loop._hold_back(cast(BatchedApp, SimpleNamespace(consumer=consumer)), cast(LoopIngest, ingest))
        assert consumer.paused == {TP(RATINGS, p) for p in paused}

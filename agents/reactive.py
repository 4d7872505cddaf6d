"""The agent of reactive users: made-up users of a synthetic world look at each slate and click.

Where it runs the loop tells no feedback: a slate's is told here, at once, and marked as simulated. What is assumed of
these users: :mod:`agents.reactive_users`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agents.lines_ingest import LinesIngest
from agents.reactive_steps import ReactiveSteps
from agents.reactive_store import REACTIVE
from agents.store_app import beginning_anew, create_store_app
from streams.app import BatchedApp
from streams.bus import Bus
from streams.delivery import batched_topic
from streams.events import IMPRESSIONS
from streams.gather import gather_batches
from streams.records import RecordBatch

__all__ = ["ReactiveIngest", "create_reactive_app"]

_TAKEN_RECORDS = 5_000
"""At a time: answering so many takes a fraction of a second."""


class ReactiveIngest(LinesIngest[ReactiveSteps]):
    """Answers slates on a thread of its own. store_patience_s: how long its store may be away."""

    def __init__(self, steps: ReactiveSteps, *, store_patience_s: float = 30.0) -> None:
        super().__init__(REACTIVE, steps, store_patience_s=store_patience_s)
        self._term = 0  # ends whenever partitions are released

    async def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions; returns once nothing of them is under way."""
        self._term += 1
        await super().release(partitions)

    async def apply(self, batches: Sequence[RecordBatch]) -> None:
        """Answer them; returns once it is committed. Raises the store's error when patience ran out.

        What is of a term before is left alone: it comes again.
        """
        await self.store.patiently(self._apply_of_term, self._term, batches)
        self.stored.set()

    def _apply_of_term(self, term: int, batches: Sequence[RecordBatch]) -> None:
        if term == self._term:
            self.steps.apply(batches)


def create_reactive_app(
    bus: Bus, ingest: ReactiveIngest, *, linger_s: float = 0.01, instance_id: str | None = None
) -> BatchedApp:
    """A Faust app with the one agent ``reactive``, see :func:`create_store_app`."""
    app = create_store_app(REACTIVE, bus, ingest, topic=IMPRESSIONS, linger_s=linger_s, instance_id=instance_id)

    @app.agent(batched_topic(app, IMPRESSIONS), name=REACTIVE)
    async def reactive(stream: Any) -> None:
        async for batches in gather_batches(stream, max_records=_TAKEN_RECORDS):
            async with beginning_anew(app):
                await ingest.apply(batches)

    return app

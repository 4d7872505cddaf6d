"""A worker: one process that runs the loop agent of a run until it is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agents.alignment import Gate
from agents.beside import serve_beside
from agents.lines_outbox import drain_lines, publish_lines
from agents.loop import LoopIngest, create_loop_app, follow_waits
from agents.loop_steps import LoopSteps
from agents.loop_store import LOOP, LoopWriter, loop_url
from agents.loop_telemetry import LoopMetrics
from agents.serving_plan import ServingPlan
from agents.store_app import follow_store
from agents.telemetry import publish_metrics
from agents.variants import CHAMPION, Experiment, Variant
from streams.bus import open_bus
from streams.errors import BusError, StoreUnavailable
from streams.process_metrics import publish_process
from streams.topics import run_topics

__all__ = ["LoopOptions", "LoopWorker"]


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """What the loop runs on, and how. store_url: of the features; the loop's own store is beside it.

    models: the registry's folder. gate: see :class:`agents.alignment.Gate`. records_at_once: about the most of a
    partition in one step. tells_feedback: whether it tells what came of the slates, or leaves that to reactive users.
    linger_s: how long small fetches are held apart. instance_id: the worker's own for life, so that a restart gets its
    partitions back at once (Kafka).
    """

    bus_url: str
    store_url: str
    models: Path
    run_id: str = ""
    partitions: int = 4
    experiment: Experiment = field(default_factory=lambda: Experiment("none", (Variant("champion", 1, CHAMPION),)))
    gate: Gate = field(default_factory=Gate)
    records_at_once: int = 10_000
    tells_feedback: bool = True
    linger_s: float = 0.01
    store_patience_s: float = 30.0
    instance_id: str | None = None


class LoopWorker:
    """Runs the loop agent. ``metrics.latest`` holds what it last measured, for a status line."""

    def __init__(self, options: LoopOptions) -> None:
        self.options = options
        steps = LoopSteps.of_store(
            options.store_url,
            LoopWriter(loop_url(options.store_url)),
            ServingPlan(options.models, options.experiment),
            options.gate,
            run_id=options.run_id,
            records_at_once=options.records_at_once,
            tells_feedback=options.tells_feedback,
        )
        self.ingest = LoopIngest(steps, store_patience_s=options.store_patience_s)
        self.metrics = LoopMetrics(steps)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set, then finish the step under way, publish what is owed, and return.

        Raises what stopped the worker, as :meth:`agents.worker.FeatureWorker.run` does, and ModelError for a version
        that is damaged.
        """
        options = self.options
        try:
            async with open_bus(options.bus_url) as bus:
                await bus.create_topics(*run_topics(options.partitions))
                app = create_loop_app(bus, self.ingest, linger_s=options.linger_s, instance_id=options.instance_id)
                beside = (
                    publish_lines(bus, self.ingest),
                    publish_metrics(bus, self.metrics),
                    follow_waits(app, self.ingest),
                    follow_store(app, self.ingest),
                    publish_process(bus, LOOP),
                )

                async def finish() -> None:
                    with suppress(BusError, StoreUnavailable):  # what is left goes out with the next worker
                        await drain_lines(bus, self.ingest)

                await serve_beside(app, stopping, beside, finish)
        finally:
            await asyncio.to_thread(self.ingest.close)

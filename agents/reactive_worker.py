"""A worker: one process of made-up users who answer the slates of a run until it is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from agents.beside import serve_beside
from agents.lines_outbox import drain_lines, publish_lines
from agents.reactive import ReactiveIngest, create_reactive_app
from agents.reactive_steps import ReactiveSteps
from agents.reactive_store import REACTIVE, ReactiveWriter
from agents.reactive_telemetry import ReactiveMetrics
from agents.reactive_users import ReactiveUsers
from agents.store_app import follow_store
from agents.telemetry import publish_metrics
from streams.bus import open_bus
from streams.dataset import open_dataset
from streams.errors import BusError, ConfigError, StoreUnavailable
from streams.events import IMPRESSIONS
from streams.process_metrics import publish_process
from streams.synthetic import SyntheticDataset
from streams.topics import run_topics

__all__ = ["ReactiveOptions", "ReactiveWorker", "check_world", "users_of"]


@dataclass(frozen=True, slots=True)
class ReactiveOptions:
    """What the users are of, and what they read. store_url: of the features; their own store is beside it.

    data: a synthetic world, as :func:`streams.dataset.open_dataset` names it. Others as in
    :class:`agents.worker.WorkerOptions`.
    """

    bus_url: str
    store_url: str
    data: str | None
    run_id: str = ""
    partitions: int = 4
    linger_s: float = 0.01
    store_patience_s: float = 30.0
    instance_id: str | None = None


def check_world(data: str | None) -> str:
    """``data``, which is a synthetic world. Raises ConfigError where it is not: nobody knows others' taste."""
    if data is None or data.partition(":")[0] != "synthetic":
        raise ConfigError(
            f"reactive users: expected a run on synthetic data, whose users' taste is known, found {data or 'no data'};"
            " replay one with `streamlens replay --data synthetic`"
        )
    return data


def users_of(data: str | None) -> ReactiveUsers:
    """The users of a synthetic world. Raises ConfigError where ``data`` is none."""
    world = open_dataset(check_world(data))
    assert isinstance(world, SyntheticDataset)
    return ReactiveUsers(world.oracle)


class ReactiveWorker:
    """Runs the agent. ``metrics.latest`` holds what it last measured, for a status line. Raises ConfigError for data
    that is no synthetic world."""

    def __init__(self, options: ReactiveOptions) -> None:
        self.options = options
        users = users_of(options.data)
        steps = ReactiveSteps(ReactiveWriter(options.store_url), users, run_id=options.run_id)
        self.ingest = ReactiveIngest(steps, store_patience_s=options.store_patience_s)
        self.metrics = ReactiveMetrics(steps)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set, then finish the step under way, publish what is owed, and return.

        Raises what stopped the worker, as :meth:`agents.worker.FeatureWorker.run` does.
        """
        options = self.options
        try:
            async with open_bus(options.bus_url) as bus:
                await bus.create_topics(*run_topics(options.partitions))
                app = create_reactive_app(bus, self.ingest, linger_s=options.linger_s, instance_id=options.instance_id)
                beside = (
                    publish_lines(bus, self.ingest),
                    publish_metrics(bus, self.metrics, topic=IMPRESSIONS),
                    follow_store(app, self.ingest),
                    publish_process(bus, REACTIVE),
                )

                async def finish() -> None:
                    with suppress(BusError, StoreUnavailable):  # what is left goes out with the next worker
                        await drain_lines(bus, self.ingest)

                await serve_beside(app, stopping, beside, finish)
        finally:
            await asyncio.to_thread(self.ingest.close)

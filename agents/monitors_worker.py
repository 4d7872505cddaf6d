"""The worker of the role ``monitors``: one process that watches a run until it is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agents.beside import serve_beside
from agents.foresight import Foresight, RatingModel
from agents.monitor_events import MONITORS
from agents.monitor_ingest import MonitorIngest
from agents.monitor_settings import MonitorSettings
from agents.monitor_telemetry import MonitorMetrics, publish_monitor_metrics
from agents.monitors import create_monitors_app, keep_monitors
from agents.outbox import drain_outbox, publish_outbox
from agents.version_facts import VersionFacts
from streams.bus import open_bus
from streams.errors import BusError, StoreError
from streams.process_metrics import publish_process
from streams.topics import run_topics

__all__ = ["MonitorsOptions", "MonitorsWorker"]


@dataclass(frozen=True, slots=True)
class MonitorsOptions:
    """What the monitors run on. models: the folder of the registry. rating_model: the kind that predicts stars, None
    for no RMSE. Others as in :class:`agents.worker.WorkerOptions`."""

    bus_url: str
    store_url: str
    models: Path
    settings: MonitorSettings
    rating_model: str | None = "mf"
    partitions: int = 4
    linger_s: float = 0.01
    store_patience_s: float = 30.0
    instance_id: str | None = None


class MonitorsWorker:
    """Runs the monitors agent. ``metrics.latest`` holds what it last measured, for a status line."""

    def __init__(self, options: MonitorsOptions) -> None:
        self.options = options
        wanted = options.settings
        predictor = None
        if options.rating_model is not None:
            model = RatingModel(options.rating_model, options.models, wanted.live_from, wanted.train_delay_s)
            predictor = Foresight(model, options.store_url)
        self.ingest = MonitorIngest(
            options.store_url,
            wanted,
            VersionFacts(options.models),
            predictor,
            store_patience_s=options.store_patience_s,
        )
        self.metrics = MonitorMetrics(self.ingest)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set, then write what is closed, publish what is owed, and return.

        Raises what stopped the worker, as :meth:`agents.worker.FeatureWorker.run` does.
        """
        options = self.options
        try:
            async with open_bus(options.bus_url) as bus:
                await bus.create_topics(*run_topics(options.partitions))
                app = create_monitors_app(bus, self.ingest, linger_s=options.linger_s, instance_id=options.instance_id)
                beside = (
                    publish_outbox(bus, self.ingest, poll_s=0.05),
                    publish_monitor_metrics(bus, self.metrics),
                    keep_monitors(app, self.ingest),
                    publish_process(bus, MONITORS),
                )

                async def finish() -> None:
                    with suppress(BusError, StoreError):  # what is left goes out with the next worker
                        await drain_outbox(bus, self.ingest)

                await serve_beside(app, stopping, beside, finish)
        finally:
            await asyncio.to_thread(self.ingest.close)

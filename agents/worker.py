"""A worker: one process that runs the features agent of a run until it is told to stop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from agents.beside import serve_beside
from agents.features import FEATURES, create_features_app
from agents.ingest import FeatureIngest
from agents.outbox import drain_outbox, publish_outbox
from agents.quality import QualityMonitor, publish_quality
from agents.store_app import follow_store
from agents.telemetry import FeatureMetrics, publish_metrics
from featurestore.catalogue import Catalogue
from featurestore.view_settings import ViewSettings
from featurestore.writer import FeatureWriter
from streams.bus import Bus, open_bus
from streams.errors import BusError, StoreUnavailable
from streams.events import RATINGS
from streams.process_metrics import publish_process
from streams.topics import run_topics

__all__ = ["FeatureWorker", "WorkerOptions"]

_RETENTION_EVERY_S = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker runs on, and how.

    catalogue: the movies, None for those the store was built with. linger_s: how long small fetches are held apart,
    for fewer transactions. training_end: the event time at which the run's training part ends, None for none; the
    quality of features is measured against what they were then. instance_id: the worker's own for life, so that a
    restart gets its partitions back at once (Kafka).
    """

    bus_url: str
    store_url: str
    run_id: str = ""
    partitions: int = 4
    views: ViewSettings = field(default_factory=ViewSettings)
    catalogue: Catalogue | None = None
    flush_records: int = 100_000
    linger_s: float = 0.01
    store_patience_s: float = 30.0
    training_end: int | None = None
    quality_every_s: float = 10.0
    instance_id: str | None = None


class FeatureWorker:
    """Runs the features agent. ``metrics.latest`` holds what it last measured, for a status line."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        writer = FeatureWriter(
            options.store_url,
            agent=FEATURES,
            topic=RATINGS,
            run_id=options.run_id,
            views=options.views,
            catalogue=options.catalogue,
        )
        self.ingest = FeatureIngest(writer, store_patience_s=options.store_patience_s)
        self.metrics = FeatureMetrics(self.ingest)
        self.quality = QualityMonitor(self.ingest, options.store_url, options.training_end)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set, then apply what has been fetched, publish what is owed, and return.

        Raises what stopped the worker: GroupBusy, WriterFenced, StoreAheadOfLog, LogReplaced, StoreUnavailable; what
        it cannot go on without sets ``stopping`` itself, where it fails.
        """
        options = self.options
        try:
            async with open_bus(options.bus_url) as bus:
                await bus.create_topics(*run_topics(options.partitions))
                app = create_features_app(
                    bus,
                    self.ingest,
                    flush_records=options.flush_records,
                    linger_s=options.linger_s,
                    instance_id=options.instance_id,
                )
                beside = (
                    publish_outbox(bus, self.ingest),
                    publish_metrics(bus, self.metrics),
                    publish_quality(bus, self.quality, every_s=options.quality_every_s),
                    follow_store(app, self.ingest),
                    publish_process(bus, FEATURES),
                    _enforce_retention(bus),
                )

                async def finish() -> None:
                    with suppress(BusError, StoreUnavailable):  # what is left goes out with the next worker
                        await drain_outbox(bus, self.ingest)

                await serve_beside(app, stopping, beside, finish)
        finally:
            await asyncio.to_thread(self.quality.close)
            await asyncio.to_thread(self.ingest.close)


async def _enforce_retention(bus: Bus) -> None:
    """Drop what is past its topic's retention, now and every minute, until cancelled."""
    while True:
        try:
            await bus.enforce_retention(time.time_ns() // 1_000_000)
        except BusError as error:
            log.warning("retention not enforced, trying again", error=str(error))
        await asyncio.sleep(_RETENTION_EVERY_S)

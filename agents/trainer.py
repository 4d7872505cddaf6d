"""The trainer: retrain events in, jobs out, and the supervisor that works them off; one process at a time.

An event becomes a row of ``jobs`` in the transaction that moves the offset past it, and is committed at once: however
long a training takes, the log is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from faust.types import TP

from agents.beside import or_stop
from agents.job_store import TRAINER, JobStore
from agents.outbox import drain_outbox, publish_outbox
from agents.store_thread import StoreThread
from agents.trainer_options import TrainerOptions
from agents.training_supervisor import Supervisor
from featurestore.partition_writer import OutboxRow
from streams.app import BatchedApp
from streams.bus import Bus, open_bus
from streams.delivery import batched_topic
from streams.errors import BusError, BusUnavailable, StoreUnavailable
from streams.events import RETRAIN
from streams.gather import gather_batches
from streams.process_metrics import publish_process
from streams.records import TopicPartition
from streams.topics import run_topics

__all__ = ["Trainer", "create_trainer_app"]

_RETRY_S = 0.5

log = structlog.get_logger(__name__)


class Trainer:
    """Runs the trainer of a run. ``supervisor.running`` is the job in work."""

    def __init__(self, options: TrainerOptions) -> None:
        self.options = options
        self.store = JobStore(options.store_url, run_id=options.run_id, train_delay_s=options.train_delay_s)
        self.thread = StoreThread("training-jobs", patience_s=options.store_patience_s)
        self.supervisor = Supervisor(options, self.store, self.thread)

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set; a job's process is killed then, and runs again with the next trainer.

        Raises what stopped it: GroupBusy and WriterFenced where there is another trainer, StoreAheadOfLog, LogReplaced,
        StoreUnavailable; what it cannot go on without sets ``stopping`` itself, where it fails.
        """
        try:
            async with open_bus(self.options.bus_url) as bus:
                await bus.create_topics(*run_topics(self.options.partitions))
                app = create_trainer_app(bus, self.store, self.thread)
                supervising = asyncio.create_task(or_stop(self.supervisor.run(), stopping))
                publishing = asyncio.create_task(or_stop(publish_outbox(bus, self), stopping))
                telling = asyncio.create_task(or_stop(publish_process(bus, TRAINER), stopping))
                draining = asyncio.Event()
                ordering = asyncio.create_task(_after(supervising, stopping, draining))
                try:
                    await app.serve(draining)
                finally:
                    beside = (supervising, publishing, telling, ordering)
                    for task in beside:
                        task.cancel()
                    ended = await asyncio.gather(*beside, return_exceptions=True)
                    with suppress(BusError, StoreUnavailable):  # what is left goes out with the next trainer
                        await drain_outbox(bus, self)
                for error in ended:
                    if isinstance(error, Exception):
                        raise error
        finally:
            await asyncio.to_thread(self.thread.close)
            self.store.close()

    async def outbox(self) -> list[OutboxRow]:
        """The oldest records still to be published."""
        return await self.thread.run(self.store.outbox)

    async def published(self, rows: Sequence[OutboxRow]) -> None:
        """Forget rows that the bus has acknowledged."""
        await self.thread.run(self.store.published, rows)


async def _after(supervising: asyncio.Task[None], stopping: asyncio.Event, draining: asyncio.Event) -> None:
    """The job in work is put back while the partition is still held; then the app may stop."""
    await stopping.wait()
    supervising.cancel()
    await asyncio.wait({supervising})
    draining.set()


def create_trainer_app(bus: Bus, store: JobStore, thread: StoreThread) -> BatchedApp:
    """A Faust app with the one agent ``trainer``, which reads ``retrain`` on from where ``store`` is."""

    async def start_offsets(assigned: set[TP]) -> Mapping[TP, int]:
        topic, held = await _log_of(bus)
        ranges = {tp: held[tp] for tp in (TopicPartition(*tp) for tp in assigned)}
        start = await thread.patiently(store.assign, topic, ranges)
        return {TP(*tp): offset for tp, offset in start.items()}

    async def on_revoked(revoked: set[TP]) -> None:
        await thread.run(store.release, [tp.partition for tp in revoked])

    app = BatchedApp(TRAINER, broker=bus.url, start_offsets=start_offsets, on_revoked=on_revoked)

    @app.agent(batched_topic(app, RETRAIN), name=TRAINER)
    async def trainer(stream: Any) -> None:
        async for batches in gather_batches(stream):
            await thread.patiently(store.apply, batches)

    return app


async def _log_of(bus: Bus) -> tuple[Any, Any]:
    """The log and its ends; a broker that goes away in the middle of a rebalance is waited for."""
    while True:
        try:
            return (await bus.topics())[RETRAIN], await bus.offsets(RETRAIN)
        except BusUnavailable as error:
            log.warning("log not there to start from, trying again", error=str(error))
            await asyncio.sleep(_RETRY_S)

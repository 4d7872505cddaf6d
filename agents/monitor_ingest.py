"""Record batches into the monitors: held until a day is whole, closed, and written with all that the day asked for.

State, outbox and offsets change in one transaction: at once where a day emits something, else about once a second,
since the state is megabytes. The offsets are those of the state, so a successor reads again what came after, and comes
to the same. That a day is closed is told right away: whoever steps in time with the monitors waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import cast

import structlog

from agents.day_log import DayLog, DayRecords
from agents.monitor import ClosedDay
from agents.monitor_columns import RatingColumns, ShownSlates, ToldFeedback
from agents.monitor_events import MONITORS
from agents.monitor_records import take_records
from agents.monitor_settings import Facts, MonitorSettings, Predictor
from agents.monitor_step import ClosedStep
from agents.monitor_store import (
    REBUILD,
    ClosedFigures,
    open_monitors,
    read_state,
    write_closed,
    write_days,
    write_requests,
    write_state,
)
from agents.run_monitor import RunMonitor
from agents.store_thread import StoreThread
from featurestore.database import Database
from featurestore.partition_writer import OutboxRow
from featurestore.topics_writer import TopicsWriter
from streams.bus import OffsetRange, TopicInfo
from streams.errors import StateOutdated, StoreError, StoreSetBack, StoreUnavailable
from streams.events import DAY_S, FEEDBACK, IMPRESSIONS, RATINGS
from streams.records import RecordBatch, TopicPartition

__all__ = ["MonitorIngest"]

_LOOK_AGAIN_S = 0.02

log = structlog.get_logger(__name__)


class MonitorIngest:
    """The monitors of a run on a thread of their own. See :class:`agents.ingest.FeatureIngest` for what it is like.

    waiting_for: what the next close waits for beside the logs, for a person; empty for nothing. latest: the figures of
    the last live day that was closed. records: how many were taken in since the start.
    """

    def __init__(
        self,
        store_url: str,
        settings: MonitorSettings,
        facts: Facts,
        predictor: Predictor | None = None,
        *,
        store_patience_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.settings = settings
        self.waiting_for = ""
        self.latest: ClosedFigures | None = None
        self.records = 0
        self.thread = StoreThread("monitors", patience_s=store_patience_s)
        database = open_monitors(store_url, create=True)
        self.writer = TopicsWriter(database, agent=MONITORS, topics=settings.topics, rebuild=REBUILD, wall_ms=wall_ms)
        self._facts = facts
        self._predictor = predictor
        self._monotonic = monotonic
        self._monitor: RunMonitor | None = None
        self._log: DayLog | None = None
        self._step = ClosedStep()
        self._ready: ClosedStep | None = None
        self._decided = 0
        self._told = 0
        self._saved_at = monotonic()
        self._term = 0  # ends whenever partitions are released

    # Partitions

    async def assign(
        self, logs: Mapping[str, TopicInfo], ranges: Mapping[TopicPartition, OffsetRange]
    ) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from.

        Nothing is closed while some partition of the topics is missing: another member of the group has it.
        """
        return await self.thread.patiently(self._assign, logs, ranges)

    def _assign(
        self, logs: Mapping[str, TopicInfo], ranges: Mapping[TopicPartition, OffsetRange]
    ) -> dict[TopicPartition, int]:
        self._forget()
        start = self.writer.assign(logs, ranges)
        wanted = {TopicPartition(topic, p) for topic in self.settings.topics for p in range(logs[topic].partitions)}
        if wanted - set(ranges):
            log.warning("monitors wait for all partitions", held=len(ranges), of=len(wanted))
            self.waiting_for = "all partitions: another worker of the role monitors holds some; there can be one only"
            return start
        progress = read_state(self.writer.database)
        try:
            self._monitor = self._restored(progress.state)
        except StateOutdated as error:
            log.warning("monitors read the log from its start", error=str(error))
            self.writer.begin_anew()
            start = self.writer.assign(logs, ranges)
            self._monitor = self._restored(None)
        self._decided = self._told = progress.closed
        self._log = DayLog(self.writer.cursors)
        self.waiting_for = ""
        return start

    def _restored(self, state: bytes | None) -> RunMonitor:
        wanted = self.settings
        if state is None:
            return RunMonitor(wanted.thresholds, wanted.live_from, wanted.champions, wanted.catalogue)
        return RunMonitor.from_json(state, wanted.thresholds, wanted.live_from, wanted.champions, wanted.catalogue)

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Write what is closed, then nothing more; returns once nothing is under way."""
        self._term += 1
        with suppress(StoreError):  # a successor closes it again
            await self.thread.run(self._save)
        await self.thread.run(self._release, list(partitions))

    def _release(self, partitions: list[TopicPartition]) -> None:
        self._forget()
        self.writer.release(partitions)

    def _forget(self) -> None:
        self._monitor = self._log = self._ready = None
        self._step = ClosedStep()

    # Taking in, and closing days

    async def apply(self, batches: Sequence[RecordBatch]) -> None:
        """Take the batches in, and close what days are whole; waits for what a close needs beside them.

        Raises the store's error when patience ran out. What is of a term before is left alone: it comes again.
        """
        term, n_records = self._term, sum(map(len, batches))
        while True:
            missing = await self.thread.patiently(self._apply, term, batches)
            if term != self._term or self._log is None:
                break
            self.waiting_for = missing
            if not missing:
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        self.records += n_records

    def _apply(self, term: int, batches: Sequence[RecordBatch]) -> str:
        """What the next close waits for, empty for nothing. Again with the same batches, it takes them in once."""
        if term != self._term or self._log is None:
            return ""
        self._write_ready()
        self._log.take(taken for batch in batches for taken in take_records(batch))
        missing = self._close_days(self._log)
        self._tell_closed()
        return missing

    def _close_days(self, held: DayLog) -> str:
        while (boundary := held.next_boundary()) is not None:
            if self._predictor is not None and (missing := self._predictor.waits_for(boundary)):
                return missing
            self._close(held.close())
        return ""

    def _close(self, records: DayRecords) -> None:
        assert self._monitor is not None
        # The end of a run need not be the end of a day, and closes it all the same.
        last_day = -(-records.event_time // DAY_S) - 1 if records.end_of_run else records.event_time // DAY_S - 1
        ratings = cast(RatingColumns, records.columns[RATINGS])
        offsets = {str(tp.partition): c.next_offset for tp, c in records.cursors.items() if tp.topic == RATINGS}
        try:
            closed = self._monitor.close(
                last_day,
                ratings,
                cast(ShownSlates, records.columns[IMPRESSIONS]),
                cast(ToldFeedback, records.columns[FEEDBACK]),
                offsets=offsets,
                foresee=None if self._predictor is None else self._predictor.stars,
                baselines_of=self._facts.baselines,
            )
        except BaseException as error:
            self._forget()  # half of the day is in the monitor by now: nothing of it is to be written
            if not isinstance(error, StoreUnavailable):
                raise
            raise StoreSetBack(f"{error}; the log is read again from the last day that was written") from error
        self._keep(records, closed)

    def _keep(self, records: DayRecords, closed: Sequence[ClosedDay]) -> None:
        assert self._monitor is not None
        self._step.add(records, closed, self._monitor, self.settings, self._facts, decided=self._decided)
        if self._step.days:
            self.latest = self._step.days[-1]
        if self._step.records or self._monotonic() - self._saved_at >= self.settings.save_every_s:
            self._save()

    # Writing

    async def save_if_due(self) -> None:
        """Write what is closed and has waited long enough; whoever runs the monitors calls this now and then."""
        await self.thread.patiently(self._save_if_due)

    def _save_if_due(self) -> None:
        if self._monotonic() - self._saved_at >= self.settings.save_every_s:
            self._save()

    def _save(self) -> None:
        self._write_ready()
        if self._step.cursors is None or self._monitor is None:
            return
        step, self._step = self._step, ClosedStep()
        step.end(self._monitor, self.settings.run_id)
        self._ready = step
        self._write_ready()

    def _write_ready(self) -> None:
        """Write the step that is ready, be it one that a store which was away has refused before."""
        step = self._ready
        if step is None or step.cursors is None:
            return

        def write(database: Database) -> None:
            write_state(database, step.closed, step.state)
            write_requests(database, step.requests)
            write_days(database, step.days)

        committed = self.writer.commit(step.cursors, step.sources, write, step.records)
        if not committed and self.writer.cursors != step.cursors:
            raise StoreSetBack(f"{self.writer.database.label}: expected its own last step, found another one")
        self._ready = None
        self._decided = max(self._decided, step.closed)
        self._told = max(self._told, step.closed)
        self._saved_at = self._monotonic()

    def _tell_closed(self) -> None:
        """That days are closed, though their state is not written yet: nothing was emitted since the last that was."""
        if self._ready is None and self._step.closed > self._told:
            closed = self._step.closed
            self.writer.write(lambda database: write_closed(database, closed))
            self._told = closed

    async def check(self) -> None:
        """Raise StoreSetBack where the store has lost what was applied, StoreUnavailable where it is away."""
        await self.thread.run(self.writer.check)

    async def outbox(self) -> list[OutboxRow]:
        """The oldest records still to be published."""
        return await self.thread.run(self.writer.outbox)

    async def published(self, rows: Sequence[OutboxRow]) -> None:
        """Forget outbox rows that the bus has acknowledged."""
        await self.thread.run(self.writer.published, rows)

    # What others look at

    def ahead(self) -> frozenset[TopicPartition]:
        """Partitions to read no further for now, since too much waits for others."""
        held = self._log
        return held.ahead() if held is not None and held.held > self.settings.held_records else frozenset()

    def behind(self) -> frozenset[TopicPartition]:
        """Partitions that the next close waits for, while others have their tick."""
        return frozenset() if self._log is None else self._log.behind()

    @property
    def held(self) -> int:
        """Records that wait for their day."""
        return 0 if self._log is None else self._log.held

    @property
    def ended(self) -> bool:
        """Whether the end of the run is closed and written."""
        cursors = self.writer.cursors
        return bool(cursors) and all(c.end_of_run for tp, c in cursors.items() if tp.topic == RATINGS)

    @property
    def closed(self) -> int:
        """Event time up to which all days are closed; 0 before the first."""
        return max(self._told, self._step.closed)

    def close(self) -> None:
        """Wait for the transaction under way, then close the store."""
        self.thread.close()
        self.writer.close()

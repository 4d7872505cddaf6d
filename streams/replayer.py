"""The replayer: a dataset's ratings published in their total order, the training part at once, the live part in time.

The stream of a run is fixed by its data and options: ratings numbered from 1, and boundary ticks between them
(``streams.ticks``). Speed, pauses and restarts decide only when records come, and how many heartbeats lie between.
A replay that ended anywhere, by a signal or a crash, goes on from the tails of its partitions (``streams.resume``).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import numpy as np

from streams.bus import Bus, Producer
from streams.chunks import read_chunks
from streams.clock import Clock, SystemClock
from streams.control import ControlListener
from streams.dataset import Dataset
from streams.drift import DriftedDataset, parse_drifts
from streams.errors import ConfigError
from streams.events import RATINGS, Control, Tick
from streams.pacing import arrival_gaps, schedule
from streams.playback import Playback
from streams.progress import ProgressMeter, ReplayProgress
from streams.publisher import RatingsPublisher
from streams.replay_options import DEFAULT_SPEED, ReplayOptions, parse_date, parse_start
from streams.resume import PartitionTail, own_tails
from streams.split import WeekSplit, auto_start, split_at_week
from streams.ticks import end_of_run_time
from streams.topics import run_topics

__all__ = ["ReplayOptions", "ReplayPlan", "ReplayProgress", "ReplaySummary", "Replayer", "plan_replay", "with_drift"]


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a run publishes: ratings 1 to ``n_training`` at once, the others up to ``n_total`` in time."""

    split: WeekSplit
    n_training: int
    n_total: int


def with_drift(dataset: Dataset, options: ReplayOptions) -> Dataset:
    """``dataset`` with the drift in it that ``options`` ask for; as it is where they ask for none, or it has it.

    Raises ConfigError for a drift that cannot be put into this data.
    """
    if not options.drift or isinstance(dataset, DriftedDataset):
        return dataset
    start = parse_start(options.start)
    return DriftedDataset(
        dataset,
        parse_drifts(options.drift),
        start=auto_start(dataset) if start is None else start,
        seed=options.seed,
        lateness_s=options.lateness_s,
    )


def plan_replay(dataset: Dataset, options: ReplayOptions) -> ReplayPlan:
    """The plan of ``options`` on ``dataset``, which has its drift in it (:func:`with_drift`).

    Raises ConfigError where ``until`` lies before the live part, or a drift begins after the end; DataError for a
    dataset without ratings.
    """
    # Weeks count in the data as it is: drift must not move where they begin.
    start = dataset.start if isinstance(dataset, DriftedDataset) else parse_start(options.start)
    split = split_at_week(dataset, week=options.week, start=start)
    n_total = split.n_training + split.n_live
    if options.until is not None:
        until = parse_date(options.until, "until")
        if until < split.cutoff:
            begin = np.datetime64(split.cutoff, "s")
            raise ConfigError(
                f"until: expected a date after {begin}, when week {split.week} begins, found {options.until}"
            )
        n_total = dataset.position_of(until)
    if options.limit is not None:
        n_total = min(n_total, split.n_training + options.limit)
    if isinstance(dataset, DriftedDataset):
        for drift, begins in zip(dataset.drifts, dataset.begins, strict=True):
            if dataset.position_of(begins) >= n_total:
                raise ConfigError(
                    f"drift {drift}: expected a week that begins before the run ends, found one from "
                    f"{np.datetime64(begins, 's')} on, after all of its {n_total:,} ratings; "
                    "choose an earlier week or a later end"
                )
    return ReplayPlan(split, split.n_training, n_total)


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """How a replay ended.

    position: the ordinal up to which everything is on the log, of ``total``; resumed_from: where this replay began.
    n_ratings, n_ticks: records published this time (a tick counts once per partition). event_time: of the rating at
    ``position``, None before the first. shifted_s: by how much the schedule was moved because log or process could
    not keep it. completed: the end of the run is on every partition.
    """

    run_id: str
    position: int
    total: int
    resumed_from: int
    n_ratings: int
    n_ticks: int
    event_time: int | None
    elapsed_s: float
    shifted_s: float
    completed: bool

    @property
    def already_complete(self) -> bool:
        """True if there was nothing left to publish."""
        return self.completed and self.n_ratings == self.n_ticks == 0

    @property
    def events_per_s(self) -> float:
        """Ratings published per second of wall time."""
        return self.n_ratings / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Replayer:
    """Publishes one run: ``run_id`` is the ``source`` of all its records. ``on_progress``: ten times a second.

    append: also where the log holds another run, which time goes back behind.
    """

    def __init__(
        self,
        dataset: Dataset,
        bus: Bus,
        options: ReplayOptions,
        *,
        run_id: str,
        clock: Clock | None = None,
        on_progress: Callable[[ReplayProgress], None] | None = None,
        append: bool = False,
    ) -> None:
        self._dataset = with_drift(dataset, options)
        self._bus = bus
        self._options = options
        self._run_id = run_id
        self._append = append
        self._clock = clock or SystemClock()
        self.plan = plan_replay(self._dataset, options)
        self._arrival, self._pace_per_unit = self._choose_arrival()
        pace = self._pace_per_unit * (options.rate or options.speed or DEFAULT_SPEED)
        self._playback = Playback(self._clock, pace, self._report)
        self._meter = ProgressMeter(self._clock, self.plan.n_training, self.plan.n_total, on_progress)

    def stop(self) -> None:
        """End after what is being sent: :meth:`replay` flushes and returns. For signal handlers."""
        self._playback.stop()

    @property
    def paused(self) -> bool:
        return self._playback.pacer.paused

    @property
    def speed(self) -> float:
        """Of the live part, in the unit the run was started with (--speed or --rate); inf for as fast as possible."""
        return self._playback.live_pace / self._pace_per_unit

    async def replay(self) -> ReplaySummary:
        """Publish what the log does not hold yet, and wait until it is durable.

        Raises PartitionMismatch where ``ratings`` exists with another partition count, ConfigError where it holds
        another run, and BusError where the log
        takes no more; what was published then is a prefix of each partition, and another replay goes on from it.
        """
        began = self._clock.monotonic()
        await self._bus.create_topics(*run_topics(self._options.partitions))
        async with self._bus.producer() as producer, self._listening(producer):
            tails = await own_tails(self._bus, RATINGS, self._run_id, beside_runs=self._append)
            start = min(tail.ordinal for tail in tails)
            self._playback.start_at(start, self._dataset.timestamp_at(start - 1) if start else None)
            publisher = RatingsPublisher(producer, self._run_id, tails)
            completed = all(tail.end_of_run for tail in tails) or await self._publish(publisher, start, tails)
            await publisher.flush()
        self._report(final=True)
        return ReplaySummary(
            run_id=self._run_id,
            position=self._playback.position,
            total=self.plan.n_total,
            resumed_from=start,
            n_ratings=publisher.n_ratings,
            n_ticks=publisher.n_ticks,
            event_time=self._playback.event_time,
            elapsed_s=self._clock.monotonic() - began,
            shifted_s=self._playback.pacer.shifted_s,
            completed=completed,
        )

    def _choose_arrival(self) -> tuple[str, float]:
        """The arrival pattern, and its virtual seconds per unit of rate or speed."""
        options, plan = self._options, self.plan
        n_live = plan.n_total - plan.n_training
        if options.rate is None or options.arrival != "recorded" or n_live == 0:
            return options.arrival, 1.0
        span = self._dataset.timestamp_at(plan.n_total - 1) - self._dataset.timestamp_at(plan.n_training)
        # Ratings of one second have no gaps to scale: only an even spacing gives them the rate that was asked for.
        return ("recorded", span / n_live) if span else ("steady", 1.0)

    @asynccontextmanager
    async def _listening(self, producer: Producer) -> AsyncIterator[None]:
        """Take requests, from before the tails are read: on a log full of others' records that takes seconds."""
        listener = await ControlListener.open(self._bus, producer, self._run_id, self._take)
        task = asyncio.create_task(listener.run(), name="replay-control")
        # A control topic that cannot be read ends the replay: nobody could pause or stop it.
        task.add_done_callback(lambda done: None if done.cancelled() else self.stop())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def _take(self, request: Control) -> None:
        """One request of the ``control`` topic. A speed is in the unit that the run was started with."""
        match request.action:
            case "stop":
                self._playback.stop()
            case "pause":
                self._playback.pause()
            case "resume":
                self._playback.resume()
            case "speed":
                pace = math.inf if request.speed is None else request.speed * self._pace_per_unit
                self._playback.set_live_pace(pace)

    def _report(self, *, final: bool = False) -> None:
        playback = self._playback
        self._meter.report(
            playback.position,
            playback.event_time,
            paused=playback.pacer.paused,
            shifted_s=playback.pacer.shifted_s,
            final=final,
        )

    async def _publish(self, publisher: RatingsPublisher, start: int, tails: list[PartitionTail]) -> bool:
        """Everything from position ``start`` on: what is due at once, the rest in time, and the end of the run.

        False if it was stopped before the end.
        """
        total = self.plan.n_total
        # What one partition holds already was due when it was published: the others get theirs at once.
        live_from = min(max(self.plan.n_training, *(tail.ordinal for tail in tails)), total)
        await self._publish_ratings(publisher, start, live_from)
        if self._playback.stopped:
            return False
        end = end_of_run_time(self._playback.event_time, int(self._clock.time()))
        await publisher.tick(Tick(end, self._run_id, total, end_of_run=True))
        return True

    async def _publish_ratings(self, publisher: RatingsPublisher, start: int, live_from: int) -> None:
        """From position ``start`` on: those before ``live_from`` at once, the others by a schedule that begins then."""
        options, total = self._options, self.plan.n_total
        rng = np.random.default_rng(options.seed)
        arrival, previous, due, live = "recorded", None, 0.0, False
        async with aclosing(read_chunks(self._dataset, start, total, options.partitions, border=live_from)) as chunks:
            async for chunk in chunks:
                if not live and chunk.first_ordinal > live_from:
                    arrival, previous, due, live = self._arrival, None, 0.0, True
                    self._playback.go_live()
                timestamps = chunk.ratings.arrives
                gaps = arrival_gaps(arrival, timestamps, previous, rng)
                plan = schedule(timestamps, gaps, chunk.ticks, previous=previous, previous_due=due)
                await self._playback.play(publisher, chunk, plan)
                if self._playback.stopped:
                    return
                previous, due = int(timestamps[-1]), float(plan.due[-1])

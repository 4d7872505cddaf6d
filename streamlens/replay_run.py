"""From settings to a replay: the dataset opened, the run found or begun, and one replayer at a time on it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamlens.settings import Settings
from streams.bus import open_bus
from streams.dataset import DEFAULT_DATASET, Dataset, open_dataset
from streams.drift import GROUND_TRUTH, DriftedDataset, GroundTruth
from streams.errors import ConfigError
from streams.process_metrics import publish_process
from streams.progress import ReplayProgress
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, ReplayPlan, ReplaySummary, plan_replay, with_drift
from streams.run import RunFolder, WeekSplitInfo, open_run, start_run

__all__ = ["PreparedReplay", "continue_run", "prepare_run"]


@dataclass(frozen=True, slots=True)
class PreparedReplay:
    """A run and what it publishes."""

    run: RunFolder
    dataset: Dataset
    options: ReplayOptions
    plan: ReplayPlan

    @property
    def ground_truth(self) -> GroundTruth | None:
        """What is injected into the run; None for a run without drift."""
        if not isinstance(self.dataset, DriftedDataset):
            return None
        split = self.plan.split
        return GroundTruth(
            run_id=self.run.run_id,
            seed=self.options.seed,
            start=split.start,
            cutoff=split.cutoff,
            n_training=self.plan.n_training,
            n_total=self.plan.n_total,
            drifts=self.dataset.injected(self.plan.n_total),
        )

    def describe(self) -> str:
        """Run, data and its two parts, on one line."""
        live = self.plan.n_total - self.plan.n_training
        parts = f"{self.plan.n_training:,} training and {live:,} live ratings"
        return ", ".join([f"run {self.run.run_id}: {self.dataset.name}", parts, *self.options.drift])

    async def replay(
        self,
        stopping: asyncio.Event,
        on_progress: Callable[[ReplayProgress], None] | None = None,
        *,
        append: bool = False,
    ) -> ReplaySummary:
        """Publish until done or until ``stopping`` is set. Raises ConfigError while another process replays the run,
        and where the bus holds another run, unless it is to ``append``."""
        with self.run.claim("replayer"):
            truth = self.ground_truth
            if truth is not None and not (self.run.path / GROUND_TRUTH).exists():
                self.run.write(GROUND_TRUTH, truth.encode())
            async with open_bus(self.run.bus_url) as bus:
                told = _Told(on_progress)
                replayer = Replayer(
                    self.dataset, bus, self.options, run_id=self.run.run_id, on_progress=told, append=append
                )
                beside = [
                    asyncio.create_task(_stop_when(stopping, replayer)),
                    asyncio.create_task(publish_process(bus, "replayer", beside=told.metrics)),
                ]
                try:
                    summary = await replayer.replay()
                finally:
                    for task in beside:
                        task.cancel()
                    await asyncio.gather(*beside, return_exceptions=True)
            if summary.completed:
                self.run.complete()
        return summary


class _Told:
    """What the replayer said last, handed on and kept."""

    def __init__(self, on_progress: Callable[[ReplayProgress], None] | None) -> None:
        self._on_progress = on_progress
        self._at: ReplayProgress | None = None

    def __call__(self, at: ReplayProgress) -> None:
        self._at = at
        if self._on_progress is not None:
            self._on_progress(at)

    def metrics(self) -> dict[str, float]:
        """``replay.published`` and ``replay.total`` records, ``replay.rate`` in events/s, ``replay.paused`` 0 or 1."""
        at = self._at
        if at is None:
            return {}
        return {
            "replay.published": at.position,
            "replay.total": at.total,
            "replay.rate": at.events_per_s,
            "replay.paused": float(at.paused),
        }


async def _stop_when(stopping: asyncio.Event, replayer: Replayer) -> None:
    await stopping.wait()
    replayer.stop()


def prepare_run(
    settings: Settings, *, new_run: bool = False, limit: int | None = None, until: str | None = None
) -> PreparedReplay:
    """The run that the settings ask for, begun or gone on with; it becomes the current one."""
    wanted = settings.replay
    options = ReplayOptions(
        week=wanted.week,
        start=wanted.start,
        speed=math.inf if wanted.speed == "max" else wanted.speed,
        rate=wanted.rate,
        arrival=wanted.arrival,
        limit=limit,
        until=until,
        partitions=settings.partitions,
        seed=wanted.seed,
        drift=wanted.drift,
        lateness_s=settings.features.lateness_s,
    )
    name = _lasting_name(wanted.data or DEFAULT_DATASET)
    data = open_dataset(name)
    dataset = with_drift(data, options)
    plan = plan_replay(dataset, options)
    if settings.bus is not None:  # a mistake in its URL or login shall leave no run behind that must be resumed on it
        asyncio.run(_reach(settings.bus))
    run = start_run(
        settings.var,
        data=name,
        data_fingerprint=data.fingerprint,
        options=options.as_dict(),
        split=WeekSplitInfo(plan.split.start, plan.split.cutoff, plan.n_training, plan.split.n_live),
        new_run=new_run,
        bus_url=settings.bus,
        store_url=settings.store,
    )
    return PreparedReplay(run, dataset, options, plan)


async def _reach(bus_url: str) -> None:
    async with open_bus(bus_url):
        pass


def continue_run(settings: Settings, run_id: str) -> PreparedReplay:
    """A run that exists, with the options it was begun with. Raises ConfigError where its data has changed."""
    run = open_run(settings.var, run_id)
    kept: dict[str, Any] = dict(run.info.options)
    if kept["speed"] == "max":
        kept["speed"] = math.inf
    options = ReplayOptions(**kept)
    data = open_dataset(run.info.data)
    if data.fingerprint != run.info.data_fingerprint:
        raise ConfigError(
            f"run {run_id}: expected the data it began with, found {run.info.data} with other content; "
            "begin another run with --new-run"
        )
    dataset = with_drift(data, options)
    return PreparedReplay(run, dataset, options, plan_replay(dataset, options))


def _lasting_name(data: str) -> str:
    """A folder by its absolute path, so that the run finds it from any directory."""
    folder = Path(data).expanduser()
    return str(folder.resolve()) if folder.exists() else data

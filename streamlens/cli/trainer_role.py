"""``streamlens worker --role trainer``: answer the retrain events of a run."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

from streamlens.cli.console import StatusLine, text

if TYPE_CHECKING:
    from agents.trainer import Trainer
    from agents.trainer_options import TrainerOptions
    from agents.training_supervisor import Supervisor
    from streamlens.target import Target

__all__ = ["work_trainer"]

_WATCH_S = 0.25


async def work_trainer(target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool) -> None:
    """Until ``stopping`` is set. until_end: or once run and monitors have ended, and no job is left that can run."""
    from agents.trainer import Trainer
    from streamlens.logs import configure_logs
    from streamlens.presence import announced
    from streams.errors import ConfigError

    if rebuild:
        raise ConfigError("--rebuild: the trainer's jobs are no view of the log; remove trainer.db to answer all anew")
    configure_logs(target.settings.log)
    with ExitStack() as held:
        if target.folder:
            held.enter_context(announced(target.folder, "trainer"))
        trainer = Trainer(trainer_options(target))
        watching = asyncio.create_task(_watch(trainer, stopping, until_end, quiet))
        try:
            await trainer.run(stopping)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


def trainer_options(target: Target) -> TrainerOptions:
    """What the run and the settings say."""
    from agents.thresholds import default_thresholds, load_thresholds
    from agents.trainer_options import TrainerOptions
    from streams.events import DAY_S

    settings, thresholds = target.settings, target.settings.monitors.thresholds
    return TrainerOptions(
        bus_url=target.bus_url,
        store_url=target.store_url,
        models=target.models,
        jobs=target.models.with_name("jobs"),
        run_id=target.run_id,
        partitions=target.partitions,
        training_end=target.training_end(),
        champion=settings.experiment.champion,
        kinds=settings.experiment.kinds,
        rating_model=settings.loop.rating_model,
        train_delay_s=settings.loop.train_delay_days * DAY_S,
        lateness_s=settings.features.lateness_s,
        monitored=settings.loop.aligned,
        aligned=settings.loop.aligned,
        gates=(load_thresholds(thresholds) if thresholds else default_thresholds()).gates,
        data=target.data,
        time_limit_s=settings.trainer.time_limit_s,
        memory_limit_mib=settings.trainer.memory_limit_mib,
        max_attempts=settings.trainer.max_attempts,
        niceness=settings.trainer.niceness,
        store_patience_s=settings.features.store_patience_s,
    )


async def _watch(trainer: Trainer, stopping: asyncio.Event, until_end: bool, quiet: bool) -> None:
    """Keep the status line, and end the trainer with the run where that was asked for."""
    with StatusLine(quiet) as line:
        while True:
            await asyncio.sleep(_WATCH_S)
            supervisor = trainer.supervisor
            job = supervisor.running
            line.show(f"{job.kind} {job.model}  {job.progress}" if job else _describe(supervisor))
            if until_end and supervisor.idle_at_end:
                stopping.set()


def _describe(supervisor: Supervisor) -> str:
    waits = supervisor.waiting_for
    return f"{text(supervisor.answered)} jobs answered{'  waits for ' if waits else ''}{waits}"

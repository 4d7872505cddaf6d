"""``streamlens worker``: keep the features of a run, or another role."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import moment, text
from streamlens.cli.loop_role import use_one_blas_thread, work_loop
from streamlens.cli.monitors_role import work_monitors
from streamlens.cli.reactive_role import work_reactive
from streamlens.cli.roles import refuse_while_at_work, run_role
from streamlens.cli.trainer_role import work_trainer
from streamlens.signals import run_until_signal

if TYPE_CHECKING:
    from agents.worker import FeatureWorker, WorkerOptions
    from featurestore.catalogue import Catalogue
    from streamlens.target import Target

__all__ = ["register"]


class Role(StrEnum):
    """Each is a process of its own, with a store of its own."""

    FEATURES = "features"
    LOOP = "loop"
    TRAINER = "trainer"
    MONITORS = "monitors"
    REACTIVE = "reactive"


def register(app: typer.Typer) -> None:
    app.command()(worker)


def worker(
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop once the end of the run is applied.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Throw the store away; recompute it from the log.")
    ] = False,
    quiet: options.Quiet = False,
    role: Annotated[
        Role,
        typer.Option("--role", help="Keep the features, make slates, monitor the run, train, or answer slates."),
    ] = Role.FEATURES,
    run: options.RunId = None,
    bus: options.Bus = None,
    store: options.Store = None,
    with_parent: options.WithParent = False,
) -> None:
    """Keep the features of the run, or another role, until Ctrl-C; without a run, wait for one."""
    if role is Role.LOOP:
        use_one_blas_thread()
    with suppress(KeyboardInterrupt):  # Ctrl-C before there is anything to drain
        from streamlens.waiting import once_there

        async def find() -> Target:
            return await _find_work(run, bus, store)

        async def main(stopping: asyncio.Event) -> None:
            target = await once_there(find, stopping, options.say_waiting)
            if target is not None:
                if target.run and target.run.info.completed_at and not (run or until_end or quiet):
                    next_run = "`streamlens replay` begins another, which needs a worker started after it"
                    typer.echo(f"run {target.run_id} is already published in full; {next_run}", err=True)
                if role is Role.LOOP:
                    await work_loop(target, stopping, until_end=until_end, rebuild=rebuild, quiet=quiet)
                elif role is Role.TRAINER:
                    await work_trainer(target, stopping, until_end=until_end, rebuild=rebuild, quiet=quiet)
                elif role is Role.REACTIVE:
                    await work_reactive(target, stopping, until_end=until_end, rebuild=rebuild, quiet=quiet)
                elif role is Role.MONITORS:
                    await work_monitors(target, stopping, until_end=until_end, rebuild=rebuild, quiet=quiet)
                else:
                    await _work(target, stopping, until_end, rebuild, quiet)

        run_until_signal(main, with_parent=with_parent)


async def _find_work(run: str | None, bus: str | None, store: str | None) -> Target:
    """The run with its log; a demo's is left to the worker that the demo brings along, unless it is asked for."""
    from streamlens.presence import holder
    from streamlens.waiting import NothingYet

    target = options.find_target(run, bus=bus, store=store)
    async with target.open_bus():
        pass  # a worker that came before its run leaves nothing behind
    if target.data is None:
        target.catalogue()  # nor a store without movies
    demo = holder(target.folder, "demo") if target.folder and not run else None
    if demo is not None:
        found = f"run {target.run_id}: the demo, process {demo}, has a worker of its own"
        raise NothingYet(found, f"the end of the demo, process {demo}, which has a worker of its own")
    return target


async def _work(target: Target, stopping: asyncio.Event, until_end: bool, rebuild: bool, quiet: bool) -> None:
    from agents.worker import FeatureWorker
    from streamlens.logs import configure_logs

    configure_logs(target.settings.log)
    catalogue = target.catalogue(new_store=rebuild)
    if rebuild:
        _forget_store(target)
    await run_role(
        target,
        "worker",
        lambda own_id: FeatureWorker(_worker_options(target, catalogue, own_id)),
        stopping,
        members="members",
        describe=_describe,
        ended=_ended,
        until_end=until_end,
        quiet=quiet,
    )


def _worker_options(target: Target, catalogue: Catalogue | None, own_id: str | None) -> WorkerOptions:
    from agents.worker import WorkerOptions
    from featurestore.view_settings import ViewSettings

    wanted = target.settings.features
    return WorkerOptions(
        bus_url=target.bus_url,
        store_url=target.store_url,
        run_id=target.run_id,
        partitions=target.partitions,
        views=ViewSettings(
            lateness_s=wanted.lateness_s,
            session_gap_s=wanted.session_gap_s,
            popularity_half_life_days=wanted.popularity_half_life_days,
            taste_half_life_days=wanted.taste_half_life_days,
        ),
        catalogue=catalogue,
        flush_records=wanted.flush_records,
        linger_s=wanted.linger_ms / 1_000,
        store_patience_s=wanted.store_patience_s,
        training_end=target.training_end(),
        quality_every_s=wanted.quality_every_s,
        instance_id=own_id,
    )


def _forget_store(target: Target) -> None:
    from featurestore.database import drop_store, store_label

    refuse_while_at_work(target, "worker", f"is writing {store_label(target.store_url)}")
    drop_store(target.store_url)


def _ended(features: FeatureWorker) -> bool:
    """On Kafka, others may have the rest."""
    return features.ingest.writer.ended


def _describe(features: FeatureWorker) -> str:
    latest = features.metrics.latest
    if not latest:
        return ""
    clock = min((cursor.clock for cursor in features.ingest.writer.cursors.values()), default=0)
    p99 = latest.get("features.latency_ms.p99")
    return (
        f"{moment(clock)}  {text(int(latest['features.ratings']))} ratings  "
        f"{text(round(latest['features.throughput']))}/s  lag {text(int(latest['features.lag']))}"
        f"{'' if p99 is None else f'  p99 {text(p99)} ms'}  late {text(int(latest['features.late']))}  "
        f"duplicates {text(int(latest['features.duplicates']))}  dead-lettered {text(int(latest['features.invalid']))}"
    )

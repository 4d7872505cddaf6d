"""``streamlens worker --role loop``, and the loop's part of ``streamlens status``."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from streamlens.cli.console import StatusLine, heading, moment, print_table, text

if TYPE_CHECKING:
    from agents.loop_worker import LoopOptions, LoopWorker
    from streamlens.heartbeat import Heartbeat
    from streamlens.target import Target

__all__ = ["loop_options", "print_loop", "print_tallies", "use_one_blas_thread", "work_loop"]

_ROLE = "loop"
_WATCH_S = 0.25


def use_one_blas_thread() -> None:
    """Before numpy is there: the loop's small products are faster so, and the same on every machine of a kind."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


async def work_loop(target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool) -> None:
    """Make slates until ``stopping`` is set, or all of the run is done and published where ``until_end``."""
    from agents.loop_worker import LoopWorker
    from streamlens.heartbeat import Heartbeat
    from streamlens.logs import configure_logs
    from streamlens.presence import announced
    from streams.membership import instance_id

    configure_logs(target.settings.log)
    loop_options(target)  # refused before anything is thrown away
    if rebuild:
        _forget_store(target)
    with ExitStack() as held:
        if target.folder:
            held.enter_context(announced(target.folder, _ROLE))
        members = (target.folder or target.settings.var) / "loop-members"
        own_id = held.enter_context(instance_id(members)) if target.bus_url.startswith("kafka://") else None
        loop = LoopWorker(loop_options(target, own_id))
        heartbeat = Heartbeat(target.folder or target.settings.var, _ROLE)
        watching = asyncio.create_task(_watch(loop, heartbeat, stopping, until_end, quiet))
        try:
            await loop.run(stopping)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


def loop_options(target: Target, own_id: str | None = None) -> LoopOptions:
    """What the run and the settings say. Raises ConfigError where nothing says when the live part begins, and for
    reactive users of data that has none."""
    from agents.loop_steps import Gate
    from agents.loop_worker import LoopOptions
    from agents.variants import Experiment, Variant
    from models.kinds import MODELS
    from streamlens.feedback_source import tells_feedback
    from streams.errors import ConfigError
    from streams.events import DAY_S

    settings = target.settings
    live_from = target.training_end()
    if live_from is None:
        raise ConfigError(
            f"loop of {target.bus_url}: expected to know where the training part ends, found no run and no data; "
            "set STREAMLENS_REPLAY_DATA to what the replayer has"
        )
    variants = settings.experiment.variants
    for variant in variants:
        if variant.model != "champion" and variant.model not in MODELS:
            raise ConfigError(
                f"experiment.variants: {variant.name}: expected champion or one of {', '.join(MODELS)} as its model, "
                f"found {variant.model!r}"
            )
    return LoopOptions(
        bus_url=target.bus_url,
        store_url=target.store_url,
        models=target.models,
        run_id=target.run_id,
        partitions=target.partitions,
        experiment=Experiment(settings.experiment.name, tuple(Variant(v.name, v.weight, v.model) for v in variants)),
        gate=Gate(live_from, settings.loop.aligned, settings.loop.train_delay_days * DAY_S),
        records_at_once=settings.loop.records_at_once,
        tells_feedback=tells_feedback(target),
        linger_s=settings.features.linger_ms / 1_000,
        store_patience_s=settings.features.store_patience_s,
        instance_id=own_id,
    )


def _forget_store(target: Target) -> None:
    from agents.loop_store import drop_loop_store, loop_url
    from streamlens.presence import holder
    from streams.errors import ConfigError

    at_work = holder(target.folder, _ROLE) if target.folder else None
    if at_work is not None:
        raise ConfigError(f"--rebuild: process {at_work} makes the slates of this run; stop it first")
    drop_loop_store(loop_url(target.store_url))


async def _watch(loop: LoopWorker, heartbeat: Heartbeat, stopping: asyncio.Event, until_end: bool, quiet: bool) -> None:
    """Keep status line and heartbeat, and end the worker with the run where that was asked for."""
    published = 0
    with StatusLine(quiet) as line:
        while True:
            await asyncio.sleep(_WATCH_S)
            if loop.metrics.published > published:
                published = loop.metrics.published
                heartbeat.beat()
            steps = loop.ingest.steps
            cursors = steps.writer.cursors.values()
            waits = sorted({why for why in steps.waits.values() if why})
            line.show(_describe(loop.metrics.latest, min((c.clock for c in cursors), default=0), waits))
            if until_end and cursors and all(c.end_of_run for c in cursors):
                stopping.set()


def _describe(latest: dict[str, float], clock: int, waits: list[str]) -> str:
    slates = sum(value for name, value in latest.items() if name.startswith("loop.slates."))
    rates = [f"{name.removeprefix('loop.ctr.')} {value:.2%}" for name, value in latest.items() if ".ctr." in name]
    return (
        f"{moment(clock)}  {text(int(slates))} slates  {text(round(latest.get('loop.throughput', 0)))}/s  "
        f"lag {text(int(latest.get('loop.lag', 0)))}{'  CTR ' if rates else ''}{', '.join(rates)}"
        f"{'  waits for ' if waits else ''}{waits[0] if waits else ''}"
    )


def print_loop(found: dict[str, Any], process: int | None) -> None:
    """How far it is, what it waits for, and the variants so far."""
    who = "not running" if process is None else f"process {process}"
    typer.echo(f"loop      {moment(found['clock'])}; {text(found['lag'])} records behind; {who}")
    for why in found["waits"]:
        typer.echo(f"waits     for {why}")
    if found["variants"]:
        heading("variants so far:")
        print_tallies(found["variants"])


def print_tallies(variants: dict[str, dict[str, Any]]) -> None:
    """Counts of each variant; where nothing was told of their slates, only of these."""
    if all(one["ctr"] is None for one in variants.values()):
        print_table(["variant", "slates"], [[name, one["slates"]] for name, one in variants.items()])
        return
    print_table(
        ["variant", "slates", "shown", "clicks", "ctr"],
        [
            [name, one["slates"], one["shown"], one["clicks"], None if one["ctr"] is None else f"{one['ctr']:.2%}"]
            for name, one in variants.items()
        ],
    )

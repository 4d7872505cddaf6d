"""``streamlens worker --role loop``, and the loop's part of ``streamlens status``."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import typer

from streamlens.cli.console import heading, moment, print_table, text
from streamlens.cli.roles import live_from, refuse_while_at_work, run_role

if TYPE_CHECKING:
    from agents.loop_worker import LoopOptions, LoopWorker
    from streamlens.target import Target

__all__ = ["loop_options", "print_loop", "print_tallies", "use_one_blas_thread", "work_loop"]

_ROLE = "loop"


def use_one_blas_thread() -> None:
    """Before numpy is there: the loop's small products are faster so, and the same on every machine of a kind."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


async def work_loop(target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool) -> None:
    """Make slates until ``stopping`` is set, or all of the run is done and published where ``until_end``."""
    from agents.loop_worker import LoopWorker
    from streamlens.logs import configure_logs

    configure_logs(target.settings.log)
    loop_options(target)  # refused before anything is thrown away
    if rebuild:
        _forget_store(target)
    await run_role(
        target,
        _ROLE,
        lambda own_id: LoopWorker(loop_options(target, own_id)),
        stopping,
        members="loop-members",
        describe=_describe,
        ended=_ended,
        until_end=until_end,
        quiet=quiet,
    )


def loop_options(target: Target, own_id: str | None = None) -> LoopOptions:
    """What the run and the settings say. Raises ConfigError where nothing says when the live part begins, and for
    reactive users of data that has none."""
    from agents.alignment import Gate
    from agents.loop_worker import LoopOptions
    from agents.variants import Experiment, Variant
    from models.kinds import MODELS
    from streamlens.feedback_source import tells_feedback
    from streams.errors import ConfigError
    from streams.events import DAY_S

    settings = target.settings
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
        gate=Gate(live_from(target, "loop"), settings.loop.aligned, settings.loop.train_delay_days * DAY_S),
        records_at_once=settings.loop.records_at_once,
        tells_feedback=tells_feedback(target),
        linger_s=settings.features.linger_ms / 1_000,
        store_patience_s=settings.features.store_patience_s,
        instance_id=own_id,
    )


def _forget_store(target: Target) -> None:
    from agents.loop_store import drop_loop_store, loop_url

    refuse_while_at_work(target, _ROLE, "makes the slates of this run")
    drop_loop_store(loop_url(target.store_url))


def _ended(loop: LoopWorker) -> bool:
    """Raises ModelMissing where it would wait for ever, though a person might still help it."""
    from streams.errors import ModelMissing

    steps = loop.ingest.steps
    if steps.no_champion:
        raise ModelMissing(
            f"there is no champion to make slates with: {steps.no_champion}; "
            "make one by `streamlens train --model NAME --promote`, and start the loop again"
        )
    return steps.writer.ended


def _describe(loop: LoopWorker) -> str:
    latest, steps = loop.metrics.latest, loop.ingest.steps
    clock = min((cursor.clock for cursor in steps.writer.cursors.values()), default=0)
    waits = sorted({why for why in steps.waits.values() if why})
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

"""``streamlens worker --role reactive``, and the reactive users' part of ``streamlens status``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from streamlens.cli.console import heading, moment, text
from streamlens.cli.loop_role import print_tallies
from streamlens.cli.roles import refuse_while_at_work, run_role

if TYPE_CHECKING:
    from agents.reactive_worker import ReactiveOptions, ReactiveWorker
    from streamlens.target import Target

__all__ = ["print_reactive", "reactive_options", "work_reactive"]

_ROLE = "reactive"


async def work_reactive(
    target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool
) -> None:
    """Answer slates until ``stopping`` is set, or all of the run is answered and published where ``until_end``."""
    from agents.reactive_worker import ReactiveWorker
    from streamlens.logs import configure_logs

    configure_logs(target.settings.log)
    reactive_options(target)  # refused before anything is thrown away
    if rebuild:
        _forget_store(target)
    await run_role(
        target,
        _ROLE,
        lambda own_id: ReactiveWorker(reactive_options(target, own_id)),
        stopping,
        members="reactive-members",
        describe=_describe,
        ended=lambda users: users.ingest.steps.writer.ended,
        until_end=until_end,
        quiet=quiet,
    )


def reactive_options(target: Target, own_id: str | None = None) -> ReactiveOptions:
    """What the run and the settings say. Raises ConfigError for data whose users' taste nobody knows, and where the
    loop tells what came of its slates."""
    from agents.reactive_worker import ReactiveOptions, check_world
    from streamlens.feedback_source import tells_feedback
    from streams.errors import ConfigError

    check_world(target.data)
    if target.settings.loop.feedback != "reactive":
        raise ConfigError(
            f'--role reactive: expected feedback = "reactive" under [loop], found {target.settings.loop.feedback!r}: '
            "the loop would tell what came of its slates, too; set STREAMLENS_LOOP_FEEDBACK=reactive for both"
        )
    tells_feedback(target)
    return ReactiveOptions(
        bus_url=target.bus_url,
        store_url=target.store_url,
        data=target.data,
        run_id=target.run_id,
        partitions=target.partitions,
        linger_s=target.settings.features.linger_ms / 1_000,
        store_patience_s=target.settings.features.store_patience_s,
        instance_id=own_id,
    )


def _forget_store(target: Target) -> None:
    from agents.reactive_store import drop_reactive_store

    refuse_while_at_work(target, _ROLE, "answers the slates of this run")
    drop_reactive_store(target.store_url)


def _describe(users: ReactiveWorker) -> str:
    latest = users.metrics.latest
    clock = min((cursor.clock for cursor in users.ingest.steps.writer.cursors.values()), default=0)
    rates = [f"{name.removeprefix('reactive.ctr.')} {v:.2%}" for name, v in latest.items() if ".ctr." in name]
    return (
        f"{moment(clock)}  {text(round(latest.get('reactive.throughput', 0)))}/s  "
        f"lag {text(int(latest.get('reactive.lag', 0)))}{'  simulated CTR ' if rates else ''}{', '.join(rates)}"
    )


def print_reactive(found: dict[str, Any], process: int | None) -> None:
    """How far they are, and what they clicked of each variant."""
    who = "not running" if process is None else f"process {process}"
    strangers = f"; {text(found['strangers'])} slates of strangers" if found["strangers"] else ""
    typer.echo(f"reactive  {moment(found['clock'])}; {text(found['lag'])} records behind{strangers}; {who}")
    if found["variants"]:
        heading("clicks of made-up users so far (simulated):")
        print_tallies(found["variants"])

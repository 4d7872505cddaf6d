"""``streamlens worker --role reactive``, and the reactive users' part of ``streamlens status``."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from streamlens.cli.console import StatusLine, heading, moment, text
from streamlens.cli.loop_role import print_tallies

if TYPE_CHECKING:
    from agents.reactive_worker import ReactiveOptions, ReactiveWorker
    from streamlens.heartbeat import Heartbeat
    from streamlens.target import Target

__all__ = ["print_reactive", "reactive_options", "work_reactive"]

_ROLE = "reactive"
_WATCH_S = 0.25


async def work_reactive(
    target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool
) -> None:
    """Answer slates until ``stopping`` is set, or all of the run is answered and published where ``until_end``."""
    from agents.reactive_worker import ReactiveWorker
    from streamlens.heartbeat import Heartbeat
    from streamlens.logs import configure_logs
    from streamlens.presence import announced
    from streams.membership import instance_id

    configure_logs(target.settings.log)
    reactive_options(target)  # refused before anything is thrown away
    if rebuild:
        _forget_store(target)
    with ExitStack() as held:
        if target.folder:
            held.enter_context(announced(target.folder, _ROLE))
        members = (target.folder or target.settings.var) / "reactive-members"
        own_id = held.enter_context(instance_id(members)) if target.bus_url.startswith("kafka://") else None
        users = ReactiveWorker(reactive_options(target, own_id))
        heartbeat = Heartbeat(target.folder or target.settings.var, _ROLE)
        watching = asyncio.create_task(_watch(users, heartbeat, stopping, until_end, quiet))
        try:
            await users.run(stopping)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


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
    from streamlens.presence import holder
    from streams.errors import ConfigError

    at_work = holder(target.folder, _ROLE) if target.folder else None
    if at_work is not None:
        raise ConfigError(f"--rebuild: process {at_work} answers the slates of this run; stop it first")
    drop_reactive_store(target.store_url)


async def _watch(
    users: ReactiveWorker, heartbeat: Heartbeat, stopping: asyncio.Event, until_end: bool, quiet: bool
) -> None:
    """Keep status line and heartbeat, and end the worker with the run where that was asked for."""
    published = 0
    with StatusLine(quiet) as line:
        while True:
            await asyncio.sleep(_WATCH_S)
            if users.metrics.published > published:
                published = users.metrics.published
                heartbeat.beat()
            cursors = users.ingest.steps.writer.cursors.values()
            line.show(_describe(users.metrics.latest, min((c.clock for c in cursors), default=0)))
            if until_end and cursors and all(c.end_of_run for c in cursors):
                stopping.set()


def _describe(latest: dict[str, float], clock: int) -> str:
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

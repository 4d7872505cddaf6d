"""``streamlens worker --role monitors``, and the monitors' part of ``streamlens status``."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import typer

from streamlens.cli.console import StatusLine, heading, moment, print_table, text

if TYPE_CHECKING:
    from agents.monitors_worker import MonitorsOptions, MonitorsWorker
    from streamlens.heartbeat import Heartbeat
    from streamlens.target import Target

__all__ = ["print_monitors", "work_monitors"]

_ROLE = "monitors"
_WATCH_S = 0.25


async def work_monitors(
    target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool
) -> None:
    """Monitor the run until ``stopping`` is set, or its end is closed where ``until_end``."""
    from agents.monitors_worker import MonitorsWorker
    from streamlens.heartbeat import Heartbeat
    from streamlens.logs import configure_logs
    from streamlens.presence import announced
    from streams.membership import instance_id

    configure_logs(target.settings.log)
    if rebuild:
        _forget_store(target)
    with ExitStack() as held:
        if target.folder:
            held.enter_context(announced(target.folder, _ROLE))
        members = (target.folder or target.settings.var) / "monitors-members"
        own_id = held.enter_context(instance_id(members)) if target.bus_url.startswith("kafka://") else None
        monitors = MonitorsWorker(_options(target, own_id))
        heartbeat = Heartbeat(target.folder or target.settings.var, _ROLE)
        watching = asyncio.create_task(_watch(monitors, heartbeat, stopping, until_end, quiet))
        try:
            await monitors.run(stopping)
        finally:
            watching.cancel()
            await asyncio.wait([watching])


def _options(target: Target, own_id: str | None) -> MonitorsOptions:
    from agents.monitor_ingest import MonitorSettings
    from agents.monitors_worker import MonitorsOptions
    from agents.thresholds import default_thresholds, load_thresholds
    from agents.variants import CHAMPION
    from featurestore.catalogue import EMPTY_CATALOGUE
    from streams.errors import ConfigError
    from streams.events import DAY_S

    wanted, of_loop, experiment = target.settings.monitors, target.settings.loop, target.settings.experiment
    live_from = target.training_end()
    if live_from is None:
        raise ConfigError(
            f"monitors of {target.bus_url}: expected to know where the training part ends, found no run and no data; "
            "set STREAMLENS_REPLAY_DATA to what the replayer has"
        )
    settings = MonitorSettings(
        run_id=target.run_id,
        thresholds=default_thresholds() if wanted.thresholds is None else load_thresholds(wanted.thresholds),
        live_from=live_from,
        champions=frozenset(variant.name for variant in experiment.variants if variant.model == CHAMPION),
        model=wanted.model or experiment.champion,
        train_delay_s=of_loop.train_delay_days * DAY_S,
        slates=wanted.slates,
        catalogue=target.catalogue() or EMPTY_CATALOGUE,
    )
    return MonitorsOptions(
        bus_url=target.bus_url,
        store_url=target.store_url,
        models=target.models,
        settings=settings,
        rating_model=of_loop.rating_model,
        partitions=target.partitions,
        linger_s=target.settings.features.linger_ms / 1_000,
        store_patience_s=target.settings.features.store_patience_s,
        instance_id=own_id,
    )


def _forget_store(target: Target) -> None:
    from agents.monitor_store import drop_monitors
    from streamlens.presence import holder
    from streams.errors import ConfigError

    at_work = holder(target.folder, _ROLE) if target.folder else None
    if at_work is not None:
        raise ConfigError(f"--rebuild: process {at_work} monitors this run; stop it first")
    drop_monitors(target.store_url)


async def _watch(
    monitors: MonitorsWorker, heartbeat: Heartbeat, stopping: asyncio.Event, until_end: bool, quiet: bool
) -> None:
    """Keep status line and heartbeat, and end the worker with the run where that was asked for."""
    published = 0
    with StatusLine(quiet) as line:
        while True:
            await asyncio.sleep(_WATCH_S)
            if monitors.metrics.published > published:
                published = monitors.metrics.published
                heartbeat.beat()
            ingest = monitors.ingest
            line.show(_describe(ingest.closed, monitors.metrics.latest, ingest.waiting_for or _waits(monitors)))
            if until_end and ingest.ended:
                stopping.set()


def _waits(monitors: MonitorsWorker) -> str:
    """Where a stage before this one is missing, all that happens here is that days do not close."""
    topics = sorted({tp.topic for tp in monitors.ingest.behind()})
    return f"a tick on {', '.join(topics)}" if topics else ""


def _describe(closed: int, latest: dict[str, float], waiting_for: str) -> str:
    rate = latest.get("monitors.throughput")
    return f"closed {moment(closed)}{'' if rate is None else f'  {text(round(rate))}/s'}" + (
        f"  waits for {waiting_for}" if waiting_for else ""
    )


def print_monitors(found: dict[str, Any], process: int | None) -> None:
    """How far they are, what they asked for, and the last live day: measures, then variants."""
    who = "not running" if process is None else f"process {process}"
    typer.echo(f"monitors  closed {moment(found['closed'])}; {text(found['lag'])} records behind; {who}")
    for request in found["requests"][-3:]:
        typer.echo(f"retrain   {request['id']}: {request['model']}, due {moment(request['due'])}")
    day = found["day"]
    if day is None:
        return
    version = day["version"]
    heading(f"monitored, {moment(day['event_time'])}{'' if version is None else f', {version}'}:")
    columns = ["value", "baseline", "n", "breached_closes"]
    rows = [
        [_named(name, measured["simulated"]), *(_short(measured[column]) for column in columns)]
        for name, measured in day["measures"].items()
    ]
    print_table(["measure", "value", "baseline", "sample", "breached closes"], rows)
    if day["variants"]:
        made_up = any(one["simulated"] for one in day["variants"].values())
        heading(_named("variants", made_up) + ":")
        print_table(
            ["variant", "users", "ctr", "from", "to", "less the champion's", "from", "to"],
            [
                [name, one["users"], *map(_short, one["ctr"]), *map(_short, one["difference"] or (None,) * 3)]
                for name, one in day["variants"].items()
            ],
        )


def _named(name: str, simulated: bool) -> str:
    return f"{name} (simulated)" if simulated else name


def _short(value: float | int | None) -> str | int | None:
    return f"{value:.4g}" if isinstance(value, float) else value

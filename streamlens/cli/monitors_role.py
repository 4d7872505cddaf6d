"""``streamlens worker --role monitors``, and the monitors' part of ``streamlens status``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from streamlens.cli.console import heading, moment, print_table, text
from streamlens.cli.roles import live_from, refuse_while_at_work, run_role

if TYPE_CHECKING:
    from agents.monitors_worker import MonitorsOptions, MonitorsWorker
    from streamlens.target import Target

__all__ = ["print_monitors", "work_monitors"]

_ROLE = "monitors"


async def work_monitors(
    target: Target, stopping: asyncio.Event, *, until_end: bool, rebuild: bool, quiet: bool
) -> None:
    """Monitor the run until ``stopping`` is set, or its end is closed where ``until_end``."""
    from agents.monitors_worker import MonitorsWorker
    from streamlens.logs import configure_logs

    configure_logs(target.settings.log)
    if rebuild:
        _forget_store(target)
    await run_role(
        target,
        _ROLE,
        lambda own_id: MonitorsWorker(_options(target, own_id)),
        stopping,
        members="monitors-members",
        describe=_describe,
        ended=lambda monitors: monitors.ingest.ended,
        until_end=until_end,
        quiet=quiet,
    )


def _options(target: Target, own_id: str | None) -> MonitorsOptions:
    from agents.monitor_settings import MonitorSettings
    from agents.monitors_worker import MonitorsOptions
    from agents.thresholds import default_thresholds, load_thresholds
    from agents.variants import CHAMPION
    from featurestore.catalogue import EMPTY_CATALOGUE
    from streams.events import DAY_S

    wanted, of_loop, experiment = target.settings.monitors, target.settings.loop, target.settings.experiment
    settings = MonitorSettings(
        run_id=target.run_id,
        thresholds=default_thresholds() if wanted.thresholds is None else load_thresholds(wanted.thresholds),
        live_from=live_from(target, "monitors"),
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

    refuse_while_at_work(target, _ROLE, "monitors this run")
    drop_monitors(target.store_url)


def _waits(monitors: MonitorsWorker) -> str:
    """Where a stage before this one is missing, all that happens here is that days do not close."""
    topics = sorted({tp.topic for tp in monitors.ingest.behind()})
    return f"a tick on {', '.join(topics)}" if topics else ""


def _describe(monitors: MonitorsWorker) -> str:
    closed, latest = monitors.ingest.closed, monitors.metrics.latest
    waiting_for = monitors.ingest.waiting_for or _waits(monitors)
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
        [_named(name, measured["simulated"], measured["assumed"]), *(_short(measured[column]) for column in columns)]
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


def _named(name: str, simulated: bool, assumed: bool = False) -> str:
    """With what must not be overlooked."""
    marks = [word for word, so in (("assumed", assumed), ("simulated", simulated)) if so]
    return f"{name} ({', '.join(marks)})" if marks else name


def _short(value: float | int | None) -> str | int | None:
    return f"{value:.4g}" if isinstance(value, float) else value

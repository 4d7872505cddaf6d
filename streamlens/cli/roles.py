"""What all roles of ``streamlens worker`` share: who they are, how they are watched, and when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypeVar

from streamlens.cli.console import StatusLine

if TYPE_CHECKING:
    from streamlens.target import Target

__all__ = ["live_from", "refuse_while_at_work", "run_role"]

_WATCH_S = 0.25


class _Metrics(Protocol):
    published: int


class _Worker(Protocol):
    @property
    def metrics(self) -> _Metrics: ...
    async def run(self, stopping: asyncio.Event) -> None: ...


W = TypeVar("W", bound=_Worker)


async def run_role(
    target: Target,
    role: str,
    make: Callable[[str | None], W],
    stopping: asyncio.Event,
    *,
    members: str,
    describe: Callable[[W], str],
    ended: Callable[[W], bool],
    until_end: bool,
    quiet: bool,
) -> None:
    """Run a worker until ``stopping`` is set, or it has ``ended`` where ``until_end``. Raises what ``ended`` does.

    Meanwhile ``streamlens status`` finds it as ``role``, its heartbeat follows the metrics that the bus takes, and a
    status line says what ``describe`` does, if anything. make: of the worker, by its own id on Kafka, which it keeps
    for life in the folder ``members``.
    """
    from agents.beside import or_stop
    from streamlens.heartbeat import Heartbeat
    from streamlens.presence import announced
    from streams.membership import instance_id

    folder = target.folder or target.settings.var
    with ExitStack() as held:
        if target.folder:
            held.enter_context(announced(target.folder, role))
        on_kafka = target.bus_url.startswith("kafka://")
        worker = make(held.enter_context(instance_id(folder / members)) if on_kafka else None)
        heartbeat = Heartbeat(folder, role)

        async def watch() -> None:
            published = 0
            with StatusLine(quiet) as line:
                while True:
                    await asyncio.sleep(_WATCH_S)
                    if worker.metrics.published > published:
                        published = worker.metrics.published
                        heartbeat.beat()
                    if said := describe(worker):
                        line.show(said)
                    if until_end and ended(worker):
                        stopping.set()

        watching = asyncio.create_task(or_stop(watch(), stopping))
        try:
            await worker.run(stopping)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        if not watching.cancelled():
            watching.result()  # never returns by itself: it has failed, and stopped the worker


def refuse_while_at_work(target: Target, role: str, does: str) -> None:
    """Raises ConfigError where a process is at work in ``role``, whose store is to be thrown away. does: what it does
    with it."""
    from streamlens.presence import holder
    from streams.errors import ConfigError

    at_work = holder(target.folder, role) if target.folder else None
    if at_work is not None:
        raise ConfigError(f"--rebuild: process {at_work} {does}; stop it first")


def live_from(target: Target, who: str) -> int:
    """Event time at which the live part begins. Raises ConfigError where nothing says so, for ``who`` needs it."""
    from streams.errors import ConfigError

    moment = target.training_end()
    if moment is None:
        raise ConfigError(
            f"{who} of {target.bus_url}: expected to know where the training part ends, found no run and no data; "
            "set STREAMLENS_REPLAY_DATA to what the replayer has"
        )
    return moment

"""How soon events are applied again where a worker was killed or stopped: real commands, on a real broker."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from agents.features import FEATURES
from featurestore.reader import FeatureReader
from featurestore.verify import verify
from streamlens.bench.buses import on_kafka, own_bus
from streamlens.bench.workload import world
from streamlens.children import Child, running
from streams.errors import BusError, ConfigError, StoreError, StreamLensError
from streams.events import RATINGS
from streams.kafka import KafkaBus
from streams.run import current_run

__all__ = ["run"]

_POLL_S = 0.005
_PATIENCE_S = 60.0


def run(events: int = 500_000, rate: float = 1_000.0, rounds: int = 5, bus: str | None = None) -> dict[str, Any]:
    """Seconds until every partition goes on, from the signal on, while a replayer publishes ``rate`` events a second.

    restart: ``kill -9`` of the only worker, which is started again at once; takeover: ``kill -9`` of one of two
    workers; handover: one of two is asked to stop. ``events``: in the log at most; the replay ends with the rounds.
    Raises StreamLensError where the store differs from its log afterwards.
    """
    if bus is None or not on_kafka(bus):
        raise ConfigError("--bus: expected kafka://HOST:PORT, found none; on the embedded bus a group has one worker")
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder, own_bus(bus, Path(folder)) as bus_url:
        seconds = asyncio.run(_measure(Path(folder), bus_url, world(events), rate, rounds))
    figures: dict[str, Any] = {"rate": rate}
    for what, each in seconds.items():
        figures[f"{what}_s"] = round(statistics.median(each), 2)
        figures[f"{what}_max_s"] = round(max(each), 2)
        figures[f"{what}_rounds"] = [round(one, 2) for one in each]
    return figures


async def _measure(folder: Path, bus_url: str, dataset: str, rate: float, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"restart": [], "takeover": [], "handover": []}
    var = folder / "var"
    async with AsyncExitStack() as commands, KafkaBus(bus_url) as bus:

        async def start(name: str, *options: str) -> Child:
            log = folder / f"{name}.log"
            child = running(name, log, name, *options, "--quiet", environment={"STREAMLENS_VAR": str(var)})
            return await commands.enter_async_context(child)

        options = ("--data", dataset, "--week", "1", "--start", "1990-01-01", "--arrival", "poisson")
        replayer = await start("replay", *options, "--rate", str(rate), "--bus", bus_url)
        store_url = await _store_of_run(var)
        one = await start("worker")
        await _shared(bus, 1)
        await _flowing(store_url)
        for _ in range(rounds):
            began = time.monotonic()
            await one.kill()
            one, before = await start("worker"), _applied(store_url)
            seconds["restart"].append(await _flowing(store_url, before) - began)
            for what, end in (("takeover", Child.kill), ("handover", Child.stop)):
                other = await start("worker")
                await _shared(bus, 2)
                await _flowing(store_url)
                began = time.monotonic()
                await end(other)
                seconds[what].append(await _flowing(store_url) - began)
        if replayer.finished():
            raise ConfigError(f"--events: expected enough for all rounds, found that {dataset} was over before")
        await replayer.stop()
        ends = {tp.partition: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
        await _flowing(store_url, {partition: end - 1 for partition, end in ends.items()})
        await one.stop()
        report = await verify(bus, store_url)
        if not report.ok:
            raise StreamLensError(f"verify: expected the store to equal its log: {report.as_dict()}")
    return seconds


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not await condition():
        if time.monotonic() > deadline:
            raise StreamLensError(f"expected {what} within {_PATIENCE_S:.0f} s")
        await asyncio.sleep(_POLL_S)


async def _store_of_run(var: Path) -> str:
    """The store's URL, once the replayer has begun a run in ``var``."""

    async def begun() -> bool:
        return current_run(var) is not None

    await _until(begun, "the replayer to begin a run")
    found = current_run(var)
    assert found is not None
    return found.store_url


async def _shared(bus: KafkaBus, workers: int) -> None:
    """Wait until so many workers have a share of the partitions."""

    async def shared() -> bool:
        try:
            held = await bus.members(FEATURES)
        except BusError:  # nobody has asked for the group yet
            return False
        return len(held) == workers and all(held)

    await _until(shared, f"{workers} workers to share the partitions")


def _applied(store_url: str) -> dict[int, int]:
    """The next offset of each partition; none before the first worker has made the store."""
    try:
        with FeatureReader(store_url) as reader:
            return {row.partition: row.next_offset for row in reader.applied()}
    except StoreError:
        return {}


async def _flowing(store_url: str, before: dict[int, int] | None = None) -> float:
    """Wait until every partition is applied beyond ``before``, None for now; ``time.monotonic()`` when it was."""
    before = before or _applied(store_url)

    async def flowing() -> bool:
        now = _applied(store_url)
        return bool(now) and all(now[partition] > before.get(partition, 0) for partition in now)

    await _until(flowing, "every partition to go on")
    return time.monotonic()

"""The role ``monitors`` on a bus: Faust, store, outbox, and what arrives on the topics."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agents.monitor_settings import MonitorSettings
from agents.monitor_store import read_requests
from agents.monitors_worker import MonitorsOptions, MonitorsWorker
from streams.bus import Bus, open_bus
from streams.errors import GroupBusy
from streams.events import ALERTS, DAY_S, METRICS, RETRAIN
from streams.testing import collect, eventually
from streams.topics import run_topics
from tests.agents.at_work import at_work
from tests.agents.monitored import LIVE, Logs, falling, tuned
from tests.agents.monitored_run import closed_of

END = (LIVE + 9) * DAY_S


async def publish_logs(bus: Bus, logs: Logs, share: float = 1.0) -> None:
    """The first ``share`` of each partition."""
    async with bus.producer() as producer:
        for (topic, partition), values in logs.values.items():
            for value in values[: int(len(values) * share)]:
                await producer.send(topic, value, partition=partition)
        await producer.flush()
    for values in logs.values.values():
        del values[: int(len(values) * share)]


def options(url: str, folder: Path, **settings: int) -> MonitorsOptions:
    wanted = MonitorSettings("run", tuned(ctr={"for_days": 3}), LIVE * DAY_S, **settings)  # type: ignore[arg-type]
    return MonitorsOptions(url, f"sqlite:///{folder}/features.db", folder / "models", wanted, partitions=2)


@pytest.mark.streamlens_bus("memory", "sqlite", "kafka")
@pytest.mark.parametrize("held_records", [500_000, 60])
async def test_a_run_is_monitored_through_a_restart(streamlens_bus_url: str, tmp_path: Path, held_records: int) -> None:
    """Also where nearly nothing may be held, so that partitions ahead are paused most of the time."""
    logs = falling()
    wanted = options(streamlens_bus_url, tmp_path, held_records=held_records)
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(2))
        await publish_logs(bus, logs, 0.6)
        async with at_work(MonitorsWorker(wanted)) as worker:
            await eventually(lambda: worker.ingest.closed > LIVE * DAY_S)
        await publish_logs(bus, logs)
        async with at_work(MonitorsWorker(wanted)) as worker:
            (event,) = map(json.loads, await collect(bus, RETRAIN, 1))
            await eventually(lambda: worker.ingest.closed == END)
        (alert,) = map(json.loads, await collect(bus, ALERTS, 1))
        metrics = [json.loads(value) for value in await collect(bus, METRICS, 10)]
    assert (event["id"], alert["name"]) == (f"run/monitors/{LIVE + 3}", "ctr")
    assert [asked.id for asked in read_requests(wanted.store_url)] == [event["id"]]
    assert closed_of(wanted.store_url) == END
    told = {(m["name"], m.get("labels", {}).get("variant")) for m in metrics if m.get("event_time") == END}
    assert {("monitors.ctr", None), ("monitors.ctr.threshold", None), ("monitors.variant.ctr", "champion")} <= told


async def test_a_second_one_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    async with at_work(MonitorsWorker(options(url, tmp_path))) as first:
        await eventually(lambda: bool(first.ingest.writer.cursors))
        with pytest.raises(GroupBusy):
            await MonitorsWorker(options(url, tmp_path)).run(asyncio.Event())

"""Consumers of `metrics` within the test: a recorded run to watch, and a clock to move."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from metric_alert import COOLDOWN_S, watch

from streams import Bus, Metric
from streams.clock import ManualClock
from streams.events import METRICS, Control
from streams.recording import RecordedStream
from streams.testing import eventually, publish

pytestmark = pytest.mark.streamlens_bus("memory", "kafka")

LIMITS = {"features.ratings": 150.0, "features.lag": 1_000.0}


@pytest.fixture
async def alerts(streamlens_bus: Bus, streamlens_clock: ManualClock) -> AsyncIterator[list[Metric]]:
    told: list[Metric] = []
    task = asyncio.create_task(watch(streamlens_bus, LIMITS, told.append, streamlens_clock))
    yield told
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_in_a_recorded_run_the_first_value_above_its_limit_is_told(
    streamlens_bus: Bus, streamlens_stream: RecordedStream, alerts: list[Metric]
) -> None:
    await streamlens_stream.publish(streamlens_bus)
    await eventually(lambda: len(alerts) > 0)
    run = [msgspec.json.decode(value, type=Metric) for value in streamlens_stream.values(METRICS)]
    assert alerts == [next(metric for metric in run if metric.name == "features.ratings" and metric.value > 150)]


async def test_it_is_told_again_after_the_cooldown_only(
    streamlens_bus: Bus, streamlens_clock: ManualClock, alerts: list[Metric]
) -> None:
    async def measured(name: str, value: float) -> None:
        await publish(streamlens_bus, METRICS, Metric(name, value, streamlens_clock.time()))

    await measured("features.ratings", 151)
    await publish(streamlens_bus, METRICS, Control("run", "stop"))  # no metric
    await measured("features.ratings", 152)
    await measured("features.lag", 1_001)
    await eventually(lambda: len(alerts) == 2)  # so what came before the lag has been seen
    streamlens_clock.advance(COOLDOWN_S)
    await measured("features.ratings", 153)
    await eventually(lambda: len(alerts) == 3)
    assert [metric.value for metric in alerts] == [151, 1_001, 153]

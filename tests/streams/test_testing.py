"""Waiting, collecting and publishing in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from streams.bus import Bus, open_bus
from streams.errors import UnknownTopic
from streams.events import METRICS, RETRAIN, Metric
from streams.retrain import RetrainRequested
from streams.testing import collect, eventually, publish, publish_retrain
from streams.topics import run_topics


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        await bus.create_topics(*run_topics(1))
        yield bus


async def test_a_condition_may_be_a_coroutine(bus: Bus) -> None:
    async def has_one() -> bool:
        return any(held.end for held in (await bus.offsets(METRICS)).values())

    waiting = asyncio.create_task(eventually(has_one))
    await publish(bus, METRICS, Metric("lag", 1.0, 0.0))
    await waiting


async def test_a_condition_that_never_holds_is_named() -> None:
    def never() -> bool:
        return False

    with pytest.raises(TimeoutError, match=r"never.* within 0\.02 s"):
        await eventually(never, within_s=0.02)


async def test_what_was_published_is_collected_in_order_under_its_key(bus: Bus) -> None:
    metrics = [Metric("lag", float(value), 0.0) for value in range(3)]
    await publish(bus, METRICS, *metrics, key="lag")
    assert await collect(bus, METRICS, 3) == [msgspec.json.encode(metric) for metric in metrics]
    async with await bus.consumer(METRICS) as consumer:
        assert (await consumer.fetch())[0].keys == [b"lag"] * 3


async def test_too_few_records_are_counted(bus: Bus) -> None:
    await publish(bus, METRICS, Metric("lag", 1.0, 0.0))
    with pytest.raises(TimeoutError, match=r"metrics: expected 2 records within 0\.1 s, found 1"):
        await collect(bus, METRICS, 2, within_s=0.1)


async def test_publishing_on_a_topic_that_is_not_there_is_an_error(bus: Bus) -> None:
    with pytest.raises(UnknownTopic):
        await publish(bus, "nowhere", Metric("lag", 1.0, 0.0))


async def test_a_retrain_event_has_an_id_of_its_own_unless_it_is_delivered_again(bus: Bus) -> None:
    events = [await publish_retrain(bus), await publish_retrain(bus, "vae", id="7"), await publish_retrain(bus, id="7")]
    assert [msgspec.json.decode(value, type=RetrainRequested) for value in await collect(bus, RETRAIN, 3)] == events
    assert len({event.id for event in events}) == 2
    assert [event.subject for event in events] == ["mf", "vae", "mf"]

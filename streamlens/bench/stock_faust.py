"""The yardstick on Kafka: stock Faust, its own transport and ``take_events()``, writing with the same bulk writes.

What it takes at once goes to the store as our worker's batches do; the difference is how records reach the agent.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import faust
import numpy as np
from faust.types import EventT

from agents.ingest import FeatureIngest
from featurestore.catalogue import Catalogue
from featurestore.writer import FeatureWriter
from streams.bus import open_bus
from streams.dataset import open_movies
from streams.events import RATINGS
from streams.kafka_settings import KafkaAddress
from streams.records import RecordBatch, join_values

__all__ = ["stock_events_per_s"]

_TAKEN = 10_000
_WITHIN_S = 0.05


def stock_events_per_s(bus_url: str, store_url: str, dataset: str) -> float:
    """Ratings per second from the first event that the agent gets to the last rating committed in the store."""
    return asyncio.run(_stock(bus_url, store_url, dataset))


async def _stock(bus_url: str, store_url: str, dataset: str) -> float:
    address = KafkaAddress.parse(bus_url)
    ingest = FeatureIngest(
        FeatureWriter(store_url, agent="stock", topic=RATINGS, catalogue=Catalogue(open_movies(dataset).values()))
    )
    async with open_bus(bus_url) as bus:
        held = await bus.offsets(RATINGS)
        await ingest.assign((await bus.topics())[RATINGS], held)
    app = faust.App(
        address.wire("stock-faust"),
        broker=[f"kafka://{server}" for server in address.servers],
        store="memory://",
        topic_disable_leader=True,
        topic_partitions=len(held),
        web_enabled=False,
        autodiscover=False,
    )
    began: list[float] = []
    done = asyncio.Event()

    @app.agent(app.topic(address.wire(RATINGS), value_serializer="raw", key_serializer="raw"))
    async def features(stream: Any) -> None:
        async for events in stream.take_events(_TAKEN, within=_WITHIN_S):
            began.append(time.perf_counter())
            await ingest.apply(_batches(events))
            cursors = ingest.writer.cursors
            if all(cursors[tp.partition].next_offset >= r.end for tp, r in held.items()):
                done.set()

    await app.start()
    await done.wait()
    seconds = time.perf_counter() - (began[0] - _WITHIN_S)  # what it takes first came in that time
    ratings = sum(cursor.ratings for cursor in ingest.writer.cursors.values())
    await app.stop()
    ingest.close()
    return ratings / seconds


def _batches(events: Sequence[EventT[Any]]) -> list[RecordBatch]:
    by_partition: dict[int, list[Any]] = defaultdict(list)
    for event in events:
        by_partition[event.message.partition].append(event.message)
    batches = []
    for partition, messages in by_partition.items():
        values = [message.value for message in messages]
        batches.append(
            RecordBatch(
                topic=RATINGS,
                partition=partition,
                offsets=np.array([message.offset for message in messages], np.int64),
                timestamps_ms=np.array([int(message.timestamp * 1_000) for message in messages], np.int64),
                next_offset=messages[-1].offset + 1,
                lines=join_values(values),
                _values=values,
            )
        )
    return batches

"""The yardstick of publishing to Kafka: aiokafka's own ``send_batch``, fed with records that are in memory already."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.bus import TopicSpec, open_bus
from streams.events import RATINGS
from streams.kafka_batch import MAX_BATCH_BYTES
from streams.kafka_settings import KafkaAddress, kafka_settings
from streams.records import RecordBatch

__all__ = ["send_batch_events_per_s"]

_TOPIC = "send-batch"


def send_batch_events_per_s(bus_url: str) -> float:
    """Records per second, to the last acknowledgement, of publishing the log's ratings once more to another topic.

    It makes no world, encodes no JSON and chooses no partition: all that is left are record batches and requests.
    Idempotent and compressed as the bus is, though lz4 is at aiokafka's level, 9.
    """
    return asyncio.run(_send_batches(bus_url))


async def _send_batches(bus_url: str) -> float:
    address, settings = KafkaAddress.parse(bus_url), kafka_settings()
    async with open_bus(bus_url) as bus:
        batches: list[RecordBatch] = []
        async with await bus.consumer(RATINGS) as consumer:
            while fetched := await consumer.fetch(timeout_s=0.5):
                batches += fetched
        records = [(batch.partition, list(zip(batch.keys, batch.values, strict=True))) for batch in batches]
        await bus.create_topics(TopicSpec(_TOPIC, len(consumer.assignment)))
    producer = AIOKafkaProducer(
        bootstrap_servers=list(address.servers),
        enable_idempotence=True,
        compression_type=None if settings.compression == "none" else settings.compression,
        max_batch_size=MAX_BATCH_BYTES,
        **settings.client_options(),
    )
    await producer.start()
    try:
        began = time.perf_counter()
        for partition, pairs in records:
            await _send(producer, address.wire(_TOPIC), partition, pairs)
        await producer.flush()
        return sum(map(len, batches)) / (time.perf_counter() - began)
    finally:
        await producer.stop()


async def _send(producer: Any, topic: str, partition: int, pairs: list[tuple[bytes | None, bytes]]) -> None:
    batch = producer.create_batch()
    for key, value in pairs:
        if batch.append(timestamp=None, key=key, value=value) is None:  # it is full
            await producer.send_batch(batch, topic, partition=partition)
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value)
    await producer.send_batch(batch, topic, partition=partition)

"""Where a source stopped: each partition's tail, read backwards to the source's own last record.

A source publishes in one order per partition, so its last record there says all: what lies at or before it in that
order is on the log, what lies after is not. That holds after any crash, with no state beside the log.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from streams.bus import Bus, Consumer
from streams.errors import BusUnavailable
from streams.events import RatingsRecord
from streams.records import TopicPartition

__all__ = ["NOTHING", "PartitionTail", "own_tails"]

_FIRST_WINDOW = 1_000
_LAST_WINDOW = 10_000
_EMPTY_FETCHES = 10

_decoder = msgspec.json.Decoder(RatingsRecord)


class PartitionTail(NamedTuple):
    """A source's last record on a partition: ratings up to ``ordinal`` and ticks up to ``event_time`` are there."""

    ordinal: int
    event_time: int
    end_of_run: bool


NOTHING = PartitionTail(0, -1, False)
"""Of a partition that holds no record of the source."""


async def own_tails(bus: Bus, topic: str, source: str) -> list[PartitionTail]:
    """The tail of ``source`` on each partition of ``topic``, by partition number.

    Reads back from the high-water mark in growing windows: one small read where nobody else published since.
    """
    ranges = await bus.offsets(topic)
    async with await bus.consumer(topic) as consumer:
        return [
            await _own_tail(consumer, tp, ranges[tp].start, ranges[tp].end, source)
            for tp in sorted(ranges, key=lambda tp: tp.partition)
        ]


async def _own_tail(consumer: Consumer, tp: TopicPartition, start: int, end: int, source: str) -> PartitionTail:
    window = _FIRST_WINDOW
    while end > start:
        begin = max(start, end - window)
        for value in reversed(await _values(consumer, tp, begin, end)):
            tail = _tail(value, source)
            if tail is not None:
                return tail
        end, window = begin, min(window * 4, _LAST_WINDOW)
    return NOTHING


async def _values(consumer: Consumer, tp: TopicPartition, begin: int, end: int) -> list[bytes]:
    """The values at offsets ``begin`` to ``end``."""
    values: list[bytes] = []
    consumer.seek(tp, begin)
    empty = 0
    while consumer.position(tp) < end:
        batches = await consumer.fetch(partitions=[tp], max_records=end - consumer.position(tp))
        empty = 0 if batches else empty + 1
        if empty == _EMPTY_FETCHES:
            raise BusUnavailable(
                f"{tp.topic}/{tp.partition}: expected records up to offset {end}, found none after "
                f"{consumer.position(tp)} in {empty} s; is the bus up?"
            )
        for batch in batches:
            values += batch.values
    return values


def _tail(value: bytes, source: str) -> PartitionTail | None:
    """What a record says of its source's progress; None if it is another source's or no record at all."""
    try:
        record = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # somebody else's garbage: the consumers of the topic dead-letter it
    if record.source != source or record.event_id is None:
        return None
    event_time = record.event_time if record.type == "tick" else record.timestamp
    return PartitionTail(record.event_id, event_time, record.end_of_run)

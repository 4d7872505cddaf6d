"""Where a source stopped: each partition's tail, read backwards to the source's own last record.

A source publishes in one order per partition, so its last record there says all: what lies at or before it in that
order is on the log, what lies after is not. That holds after any crash, with no state beside the log.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from streams.bus import Bus, Consumer
from streams.errors import BusUnavailable, ConfigError
from streams.events import RatingsRecord, Tick
from streams.records import TopicPartition

__all__ = ["NOTHING", "PartitionTail", "own_tails"]

_FIRST_WINDOW = 1_000
_LAST_WINDOW = 10_000
_EMPTY_FETCHES = 10

_IDENTITY = re.compile(rb'\{"source":"([^"\\]*)","event_id":([0-9]{1,18}),')
_decoder = msgspec.json.Decoder(RatingsRecord)


class PartitionTail(NamedTuple):
    """A source's last record on a partition: ratings up to ``ordinal`` are there, and ticks up to ``event_time``.

    Of a rating, -1 stands for the event time: a late one says nothing of how far time has come. The ticks before it
    are there, as their ordinals tell.
    """

    ordinal: int
    event_time: int
    end_of_run: bool

    def holds(self, tick: Tick) -> bool:
        """True if the tick is on the partition already."""
        return tick.event_time <= self.event_time or (tick.event_id or 0) < self.ordinal


NOTHING = PartitionTail(0, -1, False)
"""Of a partition that holds no record of the source."""


async def own_tails(bus: Bus, topic: str, source: str, *, beside_runs: bool = False) -> list[PartitionTail]:
    """The tail of ``source`` on each partition of ``topic``, by partition number.

    Reads back from the high-water mark in growing windows: one small read where nobody else published since.
    Raises ConfigError, unless ``beside_runs``, at a tick of another run: two runs on one log would take turns in time,
    and most of one would count as late. Ratings of others, which tell no time, are no run.
    """
    ranges = await bus.offsets(topic)
    async with await bus.consumer(topic) as consumer:
        try:
            return [
                await _own_tail(consumer, tp, ranges[tp].start, ranges[tp].end, source, beside_runs)
                for tp in sorted(ranges, key=lambda tp: tp.partition)
            ]
        except _OtherRun as other:
            raise ConfigError(
                f"bus {bus.url}: expected no run but {source} in topic {topic}, found run {other}; name another bus or "
                "another prefix (--bus kafka://HOST:PORT/PREFIX), or add --append to publish behind it"
            ) from None


class _OtherRun(Exception):
    """There is a tick of another source."""


async def _own_tail(
    consumer: Consumer, tp: TopicPartition, start: int, end: int, source: str, beside_runs: bool
) -> PartitionTail:
    window = _FIRST_WINDOW
    while end > start:
        begin = max(start, end - window)
        for value in reversed(await _values(consumer, tp, begin, end)):
            tail = _tail(value, source, beside_runs)
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


def _tail(value: bytes, source: str, beside_runs: bool) -> PartitionTail | None:
    """What a record says of its source's progress; None if it is another source's or no record at all."""
    try:
        record = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _malformed_tail(value, source)
    if record.source != source or record.event_id is None:
        if record.type == "tick" and not beside_runs:
            raise _OtherRun(record.source or "of no name")
        return None
    event_time = record.event_time if record.type == "tick" else -1
    return PartitionTail(record.event_id, event_time, record.end_of_run)


def _malformed_tail(value: bytes, source: str) -> PartitionTail | None:
    """Of a malformed record that was injected (it begins with its identity); None for somebody else's garbage."""
    identity = _IDENTITY.match(value)
    if identity is None or identity[1] != source.encode():
        return None
    return PartitionTail(int(identity[2]), -1, False)

"""What the log holds that the store has not applied: since when it waits, and up to which event time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.freshness import LogAhead
from featurestore.reader import AppliedOffset
from streams.batch import RatingBatch, decode_ratings
from streams.bus import Bus, Consumer
from streams.errors import OffsetOutOfRange
from streams.events import RATINGS
from streams.records import RecordBatch, TopicPartition

__all__ = ["log_ahead"]

_TAIL = 50
"""The newest records of a partition that are looked at for its event time: some may be invalid, late or far ahead."""


async def log_ahead(bus: Bus, applied: Sequence[AppliedOffset]) -> LogAhead | None:
    """A bounded look at what follows the ``applied`` offsets of ``ratings``: the first record of each, and its tail.

    None where the bus holds another log than the store was built from, or none.
    """
    topic = (await bus.topics()).get(RATINGS)
    rows = {row.partition: row for row in applied}
    if topic is None or any(row.log_id != topic.log_id for row in rows.values()):
        return None
    waiting: list[int] = []
    newest = 0
    ranges = await bus.offsets(RATINGS)
    async with await bus.consumer(RATINGS) as consumer:
        for tp, held in ranges.items():
            next_offset = max(rows[tp.partition].next_offset if tp.partition in rows else 0, held.start)
            if next_offset >= held.end:
                continue
            waiting += [int(batch.timestamps_ms[0]) for batch in await _read(consumer, tp, next_offset, 1)]
            for batch in await _read(consumer, tp, max(next_offset, held.end - _TAIL), _TAIL):
                newest = max(newest, _event_time(decode_ratings(batch)))
    return LogAhead(len(ranges), tuple(waiting), newest)


def _event_time(tail: RatingBatch) -> int:
    """The latest tick, or the median of the ratings: a foreign rating from years ahead moves no time."""
    times: list[int] = tail.tick_time.tolist()
    if len(tail.timestamp):
        times.append(int(np.median(tail.timestamp)))
    return max(times, default=0)


async def _read(consumer: Consumer, tp: TopicPartition, offset: int, n: int) -> list[RecordBatch]:
    consumer.seek(tp, offset)
    try:
        return await consumer.fetch(max_records=n, partitions=[tp])
    except OffsetOutOfRange:  # retention came in between: what is gone does not wait
        return []

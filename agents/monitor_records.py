"""Record batches of ratings, impressions and feedback as what the monitors take in: columns, ticks, and garbage.

Garbage never raises: what is no valid record is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from agents.monitor_columns import Columns, RatingColumns, ShownSlates, ToldFeedback
from agents.slate_reader import identities_of, read_records
from models.ranking import NO_MOVIE
from models.slates import SLATE_SIZE
from streams.batch import InvalidRecord, decode_ratings
from streams.events import FEEDBACK, IMPRESSIONS, RATINGS, Feedback, Slate
from streams.records import Int64s, RecordBatch

__all__ = ["NOTHING", "TOPICS", "TakenRecords", "take_records"]

TOPICS = (RATINGS, IMPRESSIONS, FEEDBACK)
"""What monitors read; impressions and feedback only where a loop makes slates."""

R = TypeVar("R", Slate, Feedback)


@dataclass(frozen=True, slots=True, eq=False)
class TakenRecords:
    """The valid records of one record batch, in log order, its ticks, and what was invalid.

    offset: int64 (n,), of each of ``columns``. tick_position: how many of these stand before the tick; tick_offset:
    where it stands; tick_time: its event time; tick_end: whether the run ends with it. clock: event time of the latest
    tick, heartbeats included, 0 for none.
    """

    topic: str
    partition: int
    next_offset: int
    published_ms: int
    columns: Columns
    offset: Int64s
    tick_position: list[int]
    tick_offset: list[int]
    tick_time: list[int]
    tick_end: list[bool]
    clock: int
    invalid: list[InvalidRecord]


def take_records(batch: RecordBatch) -> list[TakenRecords]:
    """Decode and check one batch of one of :data:`TOPICS`.

    Whatever a record does to the decoder must not stop the stream: it is found, and set aside.
    """
    try:
        return [_take_ratings(batch) if batch.topic == RATINGS else _take_others(batch)]
    except Exception as error:
        if len(batch) == 1:
            return [_rejected(batch, f"cannot be taken in: {error!r}")]
        middle = len(batch) // 2
        return [*take_records(batch.slice(0, middle)), *take_records(batch.slice(middle, len(batch)))]


def _take_ratings(batch: RecordBatch) -> TakenRecords:
    rated = decode_ratings(batch)
    boundary = rated.tick_boundary
    n_ticks = int(boundary.sum())
    return TakenRecords(
        topic=batch.topic,
        partition=batch.partition,
        next_offset=batch.next_offset,
        published_ms=rated.published_ms,
        columns=RatingColumns(
            timestamp=rated.timestamp,
            user_id=rated.user_id,
            source=rated.source,
            event_id=rated.event_id,
            movie_id=rated.movie_id,
            half_stars=rated.half_stars,
            predicted=np.full(len(rated), np.nan, np.float32),
            sources=tuple(rated.sources),
        ),
        offset=rated.offset,
        tick_position=rated.tick_position[boundary].tolist(),
        tick_offset=rated.tick_offset[boundary].tolist(),
        tick_time=rated.tick_time[boundary].tolist(),
        tick_end=[rated.end_of_run and number == n_ticks - 1 for number in range(n_ticks)],
        clock=int(rated.tick_time.max(initial=0)),
        invalid=rated.invalid,
    )


def _take_others(batch: RecordBatch) -> TakenRecords:
    read = read_records(batch)
    return TakenRecords(
        topic=batch.topic,
        partition=batch.partition,
        next_offset=batch.next_offset,
        published_ms=int(batch.timestamps_ms[-1]),
        columns=_COLUMNS[batch.topic](read.records),
        offset=np.array(read.offsets, np.int64),
        tick_position=[tick.position for tick in read.ticks],
        tick_offset=[tick.offset for tick in read.ticks],
        tick_time=[tick.event_time for tick in read.ticks],
        tick_end=[tick.end_of_run for tick in read.ticks],
        clock=read.clock,
        invalid=read.invalid,
    )


def _rejected(batch: RecordBatch, reason: str) -> TakenRecords:
    """A batch of one record that holds nothing but that record as invalid."""
    return TakenRecords(
        topic=batch.topic,
        partition=batch.partition,
        next_offset=batch.next_offset,
        published_ms=int(batch.timestamps_ms[-1]),
        columns=NOTHING[batch.topic],
        offset=np.zeros(0, np.int64),
        tick_position=[],
        tick_offset=[],
        tick_time=[],
        tick_end=[],
        clock=0,
        invalid=[InvalidRecord(batch.first_offset, reason, batch.values[0])],
    )


def _identity(records: Sequence[R]) -> dict[str, Any]:
    identities = identities_of(records)
    return {
        "timestamp": _column(records, "timestamp"),
        "user_id": _column(records, "user_id"),
        "source": identities.source,
        "event_id": identities.event_id,
        "sources": identities.sources,
    }


def _slates(records: Sequence[Slate]) -> ShownSlates:
    movies = np.full((len(records), SLATE_SIZE), NO_MOVIE, np.int64)
    for row, record in enumerate(records):
        shown = record.movie_ids[:SLATE_SIZE]  # what is judged are the first ten
        movies[row, : len(shown)] = shown
    return ShownSlates(
        **_identity(records),
        movie_ids=movies,
        variant=_names(records, "variant"),
        version=_names(records, "model_version"),
    )


def _feedback(records: Sequence[Feedback]) -> ToldFeedback:
    return ToldFeedback(
        **_identity(records),
        n_shown=_column(records, "n_shown"),
        n_clicked=np.array([len(record.clicked) for record in records], np.int64),
        n_ratings=_column(records, "n_ratings"),
        simulated=np.array([record.simulated for record in records], bool),
        variant=_names(records, "variant"),
    )


def _column(records: Sequence[R], name: str) -> Int64s:
    return np.fromiter(map(attrgetter(name), records), np.int64, len(records))


def _names(records: Sequence[R], name: str) -> Any:
    names = np.empty(len(records), np.object_)
    names[:] = [getattr(record, name) for record in records]
    return names


_COLUMNS: dict[str, Callable[[list[Any]], Columns]] = {IMPRESSIONS: _slates, FEEDBACK: _feedback}

NOTHING: dict[str, Columns] = {
    RATINGS: RatingColumns(
        **_identity([]),
        movie_id=np.zeros(0, np.int64),
        half_stars=np.zeros(0, np.int64),
        predicted=np.zeros(0, np.float32),
    ),
    IMPRESSIONS: _slates([]),
    FEEDBACK: _feedback([]),
}
"""No records of each topic."""

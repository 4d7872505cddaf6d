"""Record batches of ratings, impressions and feedback as what the monitors take in: columns, ticks, and garbage.

Garbage never raises: what is no valid record is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import numpy as np

from agents.monitor_columns import Columns, RatingColumns, ShownSlates, ToldFeedback
from models.ranking import NO_MOVIE
from models.slates import SESSION_GAP_S, SLATE_SIZE
from streams.batch import NO_IDENTITY, InvalidRecord, decode_ratings
from streams.events import EARLIEST_TIMESTAMP, FEEDBACK, IMPRESSIONS, RATINGS, Feedback, Slate, Tick
from streams.records import Int64s, RecordBatch

__all__ = ["NOTHING", "TOPICS", "TakenRecords", "rejected_record", "take_records"]

TOPICS = (RATINGS, IMPRESSIONS, FEEDBACK)
"""What monitors read; impressions and feedback only where a loop makes slates."""

_INT64_MAX = 2**63 - 1
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    IMPRESSIONS: msgspec.json.Decoder(Slate | Tick),
    FEEDBACK: msgspec.json.Decoder(Feedback | Tick),
}

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


def take_records(batch: RecordBatch) -> TakenRecords:
    """Decode and check one batch of one of :data:`TOPICS`."""
    return _take_ratings(batch) if batch.topic == RATINGS else _take_others(batch)


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
    records: list[Any] = []
    offsets: list[int] = []
    ticks: list[tuple[int, int, Tick]] = []
    invalid: list[InvalidRecord] = []
    clock = 0
    decoded = _decode(batch)
    for offset, published_ms, record, at in zip(
        batch.offsets.tolist(), batch.timestamps_ms.tolist(), decoded, range(len(batch)), strict=True
    ):
        why = record if isinstance(record, str) else _fault(record, published_ms // 1_000)
        if why:
            invalid.append(InvalidRecord(offset, why, batch.values[at]))
        elif not isinstance(record, Tick):
            records.append(record)
            offsets.append(offset)
        else:
            clock = max(clock, record.event_time)
            if not record.heartbeat:
                ticks.append((len(records), offset, record))
    return TakenRecords(
        topic=batch.topic,
        partition=batch.partition,
        next_offset=batch.next_offset,
        published_ms=int(batch.timestamps_ms[-1]),
        columns=_COLUMNS[batch.topic](records),
        offset=np.array(offsets, np.int64),
        tick_position=[position for position, _, _ in ticks],
        tick_offset=[offset for _, offset, _ in ticks],
        tick_time=[tick.event_time for _, _, tick in ticks],
        tick_end=[tick.end_of_run for _, _, tick in ticks],
        clock=clock,
        invalid=invalid,
    )


def rejected_record(batch: RecordBatch, reason: str) -> TakenRecords:
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


def _decode(batch: RecordBatch) -> Sequence[Any]:
    """A record for each value, or why it is none."""
    decoder = _decoders[batch.topic]
    if batch.lines:
        try:
            decoded = decoder.decode_lines(batch.lines)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decoded = []
        if len(decoded) == len(batch):
            return decoded
    found: list[Any] = []
    for value in batch.values:
        try:
            found.append(decoder.decode(value))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            found.append(f"not a record of {batch.topic}: {error}")
    return found


def _fault(record: Slate | Feedback | Tick, published_s: int) -> str:
    """Why a decoded record cannot count, empty where it can."""
    if isinstance(record, Tick):
        if not EARLIEST_TIMESTAMP <= record.event_time <= published_s:
            return f"tick: event_time expected 1990 to its publishing time {published_s}, found {record.event_time}"
        return ""
    latest = published_s + SESSION_GAP_S  # a session is over that much after its last rating
    if not EARLIEST_TIMESTAMP <= record.timestamp <= latest:
        return f"timestamp: expected 1990 to its publishing time {published_s}, found {record.timestamp}"
    numbers = [record.user_id]
    numbers += record.movie_ids if isinstance(record, Slate) else [record.n_shown, record.n_ratings]
    if not all(0 <= number <= _INT64_MAX for number in numbers):
        return "ids and counts: expected integers from 0 to 2^63 - 1, found others"
    if isinstance(record, Feedback) and len(record.clicked) > record.n_shown:
        return f"clicked: expected at most n_shown, {record.n_shown}, found {len(record.clicked)}"
    return ""


def _identity(records: Sequence[R]) -> dict[str, Any]:
    named = [record.source is not None and 0 <= (record.event_id or 0) <= _INT64_MAX for record in records]
    named = [known and record.event_id is not None for known, record in zip(named, records, strict=True)]
    sources = sorted({str(record.source) for record, known in zip(records, named, strict=True) if known})
    code = {name: number for number, name in enumerate(sources)}
    return {
        "timestamp": _column(records, "timestamp"),
        "user_id": _column(records, "user_id"),
        "source": np.array(
            [code[str(r.source)] if known else NO_IDENTITY for r, known in zip(records, named, strict=True)], np.int64
        ),
        "event_id": np.array(
            [r.event_id if known else NO_IDENTITY for r, known in zip(records, named, strict=True)], np.int64
        ),
        "sources": tuple(sources),
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

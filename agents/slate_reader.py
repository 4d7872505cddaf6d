"""Records of ``impressions`` and ``feedback`` one by one: what a consumer of either reads from a record batch.

Garbage never raises: what is no valid record is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.slates import SESSION_GAP_S
from streams.batch import NO_IDENTITY, InvalidRecord
from streams.events import EARLIEST_TIMESTAMP, FEEDBACK, IMPRESSIONS, Feedback, Slate, Tick
from streams.records import Int64s, RecordBatch

__all__ = ["BoundaryTick", "Identities", "ReadRecords", "identities_of", "read_records"]

_INT64_MAX = 2**63 - 1
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    IMPRESSIONS: msgspec.json.Decoder(Slate | Tick),
    FEEDBACK: msgspec.json.Decoder(Feedback | Tick),
}


class BoundaryTick(NamedTuple):
    """position: how many records of the batch stand before it. offset: where it stands."""

    position: int
    offset: int
    event_time: int
    end_of_run: bool


@dataclass(frozen=True, slots=True, eq=False)
class ReadRecords:
    """The valid records of one batch, slates or feedback, in log order, its boundary ticks, and what was invalid.

    offsets: of each record. clock: event time of the latest tick, heartbeats included, 0 for none.
    """

    records: list[Any]
    offsets: list[int]
    ticks: list[BoundaryTick]
    clock: int
    invalid: list[InvalidRecord]


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """Who sent n records, as :func:`featurestore.aggregate.find_duplicates` takes it.

    source: int64 (n,), codes into ``sources``, which rise. event_id: int64 (n,). Both NO_IDENTITY where there is none.
    """

    source: Int64s
    event_id: Int64s
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)


def read_records(batch: RecordBatch) -> ReadRecords:
    """Decode and check one batch of either topic."""
    records: list[Any] = []
    offsets: list[int] = []
    ticks: list[BoundaryTick] = []
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
                ticks.append(BoundaryTick(len(records), offset, record.event_time, record.end_of_run))
    return ReadRecords(records, offsets, ticks, clock, invalid)


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


def identities_of(records: Sequence[Slate | Feedback]) -> Identities:
    """Of records, those without one or with ids that int64 cannot hold as such without."""
    named = [
        record.source is not None and record.event_id is not None and 0 <= record.event_id <= _INT64_MAX
        for record in records
    ]
    sources = sorted({str(record.source) for record, known in zip(records, named, strict=True) if known})
    code = {name: number for number, name in enumerate(sources)}
    return Identities(
        np.array(
            [code[str(r.source)] if known else NO_IDENTITY for r, known in zip(records, named, strict=True)], np.int64
        ),
        np.array([r.event_id if known else NO_IDENTITY for r, known in zip(records, named, strict=True)], np.int64),
        tuple(sources),
    )

"""Ratings as columns: a record batch of the ``ratings`` topic decoded, checked, and split from its ticks.

Garbage never raises here: what is not a valid rating or tick is set aside with its reason, and the rest goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import attrgetter

import msgspec
import numpy as np
import numpy.typing as npt

from streams.events import EARLIEST_TIMESTAMP, DeadLetter, RatingsRecord
from streams.records import Int64s, RecordBatch

__all__ = ["KEPT_BYTES", "NO_IDENTITY", "InvalidRecord", "RatingBatch", "decode_ratings"]

NO_IDENTITY = -1
"""``source`` code and ``event_id`` of a record that carries no identity."""

KEPT_BYTES = 256 << 10
"""How much of a record its dead letter keeps, so that any broker takes it: a Kafka broker's own limit is 1 MB."""

_KEPT_REASON = 1_000
_MAX_ESCAPED = -(-KEPT_BYTES // 3) * 4
"""Text may take as much room in JSON as base64 of the largest part that is kept; control characters need more."""

_INT64_MAX = 2**63 - 1
_decoder = msgspec.json.Decoder(RatingsRecord)


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record that is neither a valid rating nor a valid tick."""

    offset: int
    reason: str
    payload: bytes

    def dead_letter(self, topic: str, partition: int) -> DeadLetter:
        """The record for the ``deadletter`` topic; its origin is its identity there.

        Of a record above :data:`KEPT_BYTES` it holds the first part, up to a whole character of text.
        """
        kept, size = self.payload, None
        if len(kept) > KEPT_BYTES:
            kept, size = _without_part_of_a_character(kept[:KEPT_BYTES]), len(kept)
        payload, encoding = base64.b64encode(kept).decode(), "base64"
        with suppress(UnicodeDecodeError):
            text = kept.decode()
            if len(msgspec.json.encode(text)) <= _MAX_ESCAPED:
                payload, encoding = text, "utf-8"
        reason = self.reason if len(self.reason) <= _KEPT_REASON else f"{self.reason[:_KEPT_REASON]}..."
        return DeadLetter(topic, partition, self.offset, reason, payload, encoding, size=size)


def _without_part_of_a_character(cut: bytes) -> bytes:
    try:
        cut.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return cut[: error.start]
    return cut


@dataclass(slots=True, eq=False)
class RatingBatch:
    """The valid ratings of one record batch as columns of shape (n,), its ticks, and what was invalid.

    offset, event_id, user_id, movie_id, timestamp: int64. half_stars: int64, 1 to 10. source: int64 codes into
    ``sources``, ``NO_IDENTITY`` where the record has none. tick_position: how many ratings of the batch stand before
    the tick; tick_offset: where it stands in the log; tick_time: its event time; tick_boundary: False for heartbeats,
    which close nothing; tick_ends_run: whether it is the run's last.
    """

    topic: str
    partition: int
    first_offset: int
    next_offset: int
    published_ms: int
    offset: Int64s
    source: Int64s
    event_id: Int64s
    user_id: Int64s
    movie_id: Int64s
    half_stars: Int64s
    timestamp: Int64s
    sources: list[str]
    tick_position: Int64s
    tick_offset: Int64s
    tick_time: Int64s
    tick_boundary: npt.NDArray[np.bool_]
    tick_ends_run: npt.NDArray[np.bool_]
    invalid: list[InvalidRecord] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def end_of_run(self) -> bool:
        """Whether the run ends in this batch."""
        return bool(self.tick_ends_run.any())

    def cut(self, offset: int) -> tuple[RatingBatch, RatingBatch]:
        """What stands below ``offset``, which lies within the batch, and what stands from there on."""
        n, ticks = int(np.searchsorted(self.offset, offset)), int(np.searchsorted(self.tick_offset, offset))
        columns = ("offset", "source", "event_id", "user_id", "movie_id", "half_stars", "timestamp")
        of_ticks = ("tick_position", "tick_offset", "tick_time", "tick_boundary", "tick_ends_run")
        below, above = ({name: getattr(self, name)[part] for name in columns} for part in (slice(n), slice(n, None)))
        below |= {name: getattr(self, name)[:ticks] for name in of_ticks}
        above |= {name: getattr(self, name)[ticks:] for name in of_ticks}
        above["tick_position"] = above["tick_position"] - n
        return (
            replace(self, next_offset=offset, invalid=[r for r in self.invalid if r.offset < offset], **below),
            replace(self, first_offset=offset, invalid=[r for r in self.invalid if r.offset >= offset], **above),
        )


def _is_flat_lines(lines: bytes, count: int) -> bool:
    """True if each line is one ``{...}`` without inner braces, so that decoding all lines at once keeps them apart."""
    text = np.frombuffer(lines, np.uint8)
    opening, closing = text == ord("{"), text == ord("}")
    newline = np.flatnonzero(text == ord("\n"))
    return bool(
        len(newline) == count - 1
        and opening[0]
        and closing[-1]
        and opening[newline + 1].all()
        and closing[newline - 1].all()
        and np.count_nonzero(opening) == count
        and np.count_nonzero(closing) == count
    )


def _decode(records: RecordBatch) -> tuple[list[RatingsRecord], list[int], list[InvalidRecord]]:
    """The records that are JSON of the right types, their positions, and the others."""
    if records.lines and _is_flat_lines(records.lines, len(records)):
        try:
            decoded = _decoder.decode_lines(records.lines)
        except (msgspec.DecodeError, UnicodeDecodeError):
            decoded = []
        if len(decoded) == len(records):
            return decoded, [], []
    good: list[RatingsRecord] = []
    positions: list[int] = []
    bad: list[InvalidRecord] = []
    for position, value in enumerate(records.values):
        try:
            good.append(_decoder.decode(value))
            positions.append(position)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            bad.append(InvalidRecord(int(records.offsets[position]), f"not a ratings record: {error}", value))
    return good, positions, bad


def _column(records: list[RatingsRecord], name: str) -> Int64s:
    """One integer field of all records; None and what int64 cannot hold become -1, which no check lets through."""
    values: Iterable[int | None] = map(attrgetter(name), records)
    try:
        return np.fromiter(values, np.int64, len(records))
    except (TypeError, OverflowError):
        safe = (v if v is not None and -1 <= v <= _INT64_MAX else -1 for v in map(attrgetter(name), records))
        return np.fromiter(safe, np.int64, len(records))


def _source_codes(records: list[RatingsRecord]) -> tuple[Int64s, list[str]]:
    names = list(map(attrgetter("source"), records))
    distinct = sorted({n for n in names if n is not None})
    if len(distinct) == 1 and None not in names:
        return np.zeros(len(names), np.int64), distinct
    codes: dict[str | None, int] = {name: code for code, name in enumerate(distinct)}
    codes[None] = NO_IDENTITY
    return np.fromiter((codes[n] for n in names), np.int64, len(names)), distinct


def decode_ratings(records: RecordBatch) -> RatingBatch:
    """Decode and check one batch of the ``ratings`` topic.

    A rating is valid if its user and movie ids are not negative, its stars are 0.5 to 5 in halves, and its event time
    lies between 1990 and its own publishing time; a tick if its event time does.

    >>> batch = RecordBatch("ratings", 0, np.array([7]), np.array([2 * 10**12]), 8,
    ...     b'{"user_id":1,"movie_id":2,"rating":4.5,"timestamp":1000000000}')
    >>> decode_ratings(batch).half_stars
    array([9])
    """
    decoded, positions, invalid = _decode(records)
    at = np.asarray(positions, np.int64) if positions or not decoded else np.arange(len(decoded))
    offset = records.offsets[at]
    published_s = records.timestamps_ms[at] // 1000
    user_id, movie_id = _column(decoded, "user_id"), _column(decoded, "movie_id")
    timestamp = _column(decoded, "timestamp")
    twice = np.fromiter(map(attrgetter("rating"), decoded), np.float64, len(decoded)) * 2.0
    with np.errstate(invalid="ignore"):  # NaN and infinity: whatever they become, twice == half_stars fails for them
        half_stars = twice.astype(np.int64)
    source, sources = _source_codes(decoded)
    event_id = _column(decoded, "event_id")
    anonymous = (source == NO_IDENTITY) | (event_id < 0)
    source[anonymous], event_id[anonymous] = NO_IDENTITY, NO_IDENTITY

    valid = (
        (user_id >= 0)
        & (movie_id >= 0)
        & (half_stars >= 1)
        & (half_stars <= 10)
        & (twice == half_stars)
        & (timestamp >= EARLIEST_TIMESTAMP)
        & (timestamp <= published_s)
    )
    ticks: list[int] = []
    types = set(map(attrgetter("type"), decoded))
    if types - {"rating"} or not valid.all():
        for i in np.flatnonzero(~valid | np.array([r.type != "rating" for r in decoded], bool)).tolist():
            record = decoded[i]
            valid[i] = False
            if record.type == "tick" and EARLIEST_TIMESTAMP <= record.event_time <= published_s[i]:
                ticks.append(i)
                continue
            payload = records.values[int(at[i])]
            invalid.append(InvalidRecord(int(offset[i]), _reason(record, int(published_s[i])), payload))
    tick_at = np.asarray(ticks, np.int64)
    before = np.concatenate(([0], np.cumsum(valid))).astype(np.int64)
    keep = slice(None) if valid.all() else valid
    return RatingBatch(
        topic=records.topic,
        partition=records.partition,
        first_offset=records.first_offset,
        next_offset=records.next_offset,
        published_ms=int(records.timestamps_ms[-1]),
        offset=offset[keep],
        source=source[keep],
        event_id=event_id[keep],
        user_id=user_id[keep],
        movie_id=movie_id[keep],
        half_stars=half_stars[keep],
        timestamp=timestamp[keep],
        sources=sources,
        tick_position=before[tick_at],
        tick_offset=offset[tick_at],
        tick_time=np.array([decoded[i].event_time for i in ticks], np.int64),
        tick_boundary=np.array([not decoded[i].heartbeat for i in ticks], bool),
        tick_ends_run=np.array([decoded[i].end_of_run for i in ticks], bool),
        invalid=sorted(invalid, key=attrgetter("offset")),
    )


def _reason(record: RatingsRecord, published_s: int) -> str:
    """Why a decoded record is refused: expected and found, for a person who reads the dead letter."""
    if record.type == "tick":
        return f"tick: event_time expected 1990 to its publishing time {published_s}, found {record.event_time}"
    if record.type != "rating":
        return f"type: expected rating or tick, found {record.type!r}"
    for name, value in (("user_id", record.user_id), ("movie_id", record.movie_id)):
        if not 0 <= value <= _INT64_MAX:
            return f"{name}: expected an integer from 0 to 2^63 - 1, found {'none' if value == -1 else value}"
    if not (0.5 <= record.rating <= 5.0 and record.rating * 2 % 1 == 0):
        return f"rating: expected 0.5 to 5 in half stars, found {'none' if record.rating == -1.0 else record.rating}"
    if not 0 <= record.timestamp <= _INT64_MAX or record.timestamp < EARLIEST_TIMESTAMP:
        return f"timestamp: expected 1990 or later, found {'none' if record.timestamp == -1 else record.timestamp}"
    return f"timestamp: {record.timestamp} lies after the record's own publishing time {published_s}"

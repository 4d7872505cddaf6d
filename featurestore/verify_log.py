"""The rules of the ``ratings`` topic a second time, for ``verify``: record by record, in plain Python.

Nothing here is shared with the decoder or the aggregates of the ingest path, down to the JSON parser, so that one
mistake cannot hide in both. Speed comes second; being obviously right comes first.
"""

from __future__ import annotations

import json
import sys
import zlib
from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np

from streams.events import EARLIEST_TIMESTAMP
from streams.records import Int64s, RecordBatch

__all__ = ["FACT_COLUMNS", "INVALID_COLUMNS", "PartitionPass", "kept_part", "payload_crc"]

FACT_COLUMNS = ("log_offset", "user_id", "movie_id", "half_stars", "timestamp", "late")
INVALID_COLUMNS = ("log_offset", "size", "payload_crc")

Fields = dict[str, Any]

_INT64_MAX = 2**63 - 1
_KEPT = 262_144
_PIECE = 8
"""Records parsed at once where not all of a batch can be: so that a few odd ones do not make the rest slow."""

_HALF_STARS = frozenset(range(1, 11))
_INT, _NUMBER, _TEXT, _FLAG, _NONE = (int,), (int, float), (str,), (bool,), type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "type": _TEXT,
    "source": (str, _NONE),
    "event_id": (int, _NONE),
    "user_id": _INT,
    "movie_id": _INT,
    "rating": _NUMBER,
    "timestamp": _INT,
    "event_time": _INT,
    "heartbeat": _FLAG,
    "end_of_run": _FLAG,
}


def payload_crc(payload: bytes) -> int:
    """A fingerprint of what a dead letter must carry: the record it is about, or the first part of a large one."""
    return zlib.crc32(payload)


def kept_part(value: bytes) -> bytes:
    """As much of a record as its dead letter holds: 256 KiB, less a character of text that they would cut in two.

    >>> [len(kept_part(value)) for value in (b"x" * 300_000, b"x" + "é".encode() * 150_000, bytes([255]) * 300_000)]
    [262144, 262143, 262144]
    """
    if len(value) <= _KEPT:
        return value
    try:
        value[:_KEPT].decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return value[: error.start]
    return value[:_KEPT]


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int | tuple[()] | None:
    """An integer; what is too long for Python to convert becomes a value of no allowed type."""
    limit = sys.get_int_max_str_digits()
    return () if limit and len(digits.lstrip("-")) > limit else int(digits)


@lru_cache(maxsize=1_024)  # most records of a log look alike
def _well_typed(names: tuple[str, ...], types: tuple[type, ...]) -> bool:
    """True if each field that has a meaning has its type; exactly that type, as to isinstance True is an int."""
    return all(found in _TYPES.get(name, (found,)) for name, found in zip(names, types, strict=True))


_plain_json = json.JSONDecoder(parse_constant=_refuse)


def _parse_flat_lines(lines: bytes, count: int) -> list[Fields] | None:
    """All records at once, if each is plainly one flat JSON object; None says to look at them one by one.

    The braces, of which each line must hold one pair at its ends, prove that no object spans two lines; the colons
    prove that no key stands twice in one object; without a backslash there is no escape to judge.
    """
    flat = (
        lines[:1] == b"{"
        and lines[-1:] == b"}"
        and lines.count(b"}\n{") == lines.count(b"\n") == count - 1
        and lines.count(b"{") == lines.count(b"}") == count
        and b"\\" not in lines
    )
    if not flat:
        return None
    try:
        records = _plain_json.decode("[" + lines.decode().replace("\n", ",") + "]")
    except ValueError:
        return None
    if len(records) != count or sum(map(len, records)) != lines.count(b":"):
        return None
    return records if all(_well_typed(tuple(r), tuple(map(type, r.values()))) for r in records) else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its keys, repeated ones too."""


_careful_json = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer, object_pairs_hook=_Pairs)


def _parse(value: bytes) -> Fields | None:
    """One record's fields, or None if it is no JSON object of the right types; the last of equal keys counts."""
    try:
        if b"\\u" in value:
            # An escaped half of a surrogate pair is no text. Latin-1 keeps the bytes around it out of the question.
            text = json.dumps(_careful_json.decode(value.decode("latin-1")), ensure_ascii=False)
            text.encode()
        pairs = _careful_json.decode(value.decode(errors="surrogateescape"))
        if not isinstance(pairs, _Pairs):
            return None
        if not _well_typed(tuple(name for name, _ in pairs), tuple(type(value) for _, value in pairs)):
            return None
        if not all(isfinite(value) for name, value in pairs if name == "rating"):
            return None  # beyond a double, even where a later key of the same name is not
        fields = dict(pairs)
        for name in ("type", "source"):  # other text is skipped unread, as no view depends on it
            (fields.get(name) or "").encode()
    except (ValueError, OverflowError, RecursionError):
        return None
    return fields


def _parse_all(batch: RecordBatch) -> list[Fields | None]:
    records = None if batch.lines is None else _parse_flat_lines(batch.lines, len(batch))
    if records is not None:
        return list(records)
    values, fields = batch.values, list[Fields | None]()
    for start in range(0, len(values), _PIECE):
        piece = values[start : start + _PIECE]
        fields += _parse_flat_lines(b"\n".join(piece), len(piece)) or map(_parse, piece)
    return fields


def _half_stars(fields: Fields, published_s: int) -> int | None:
    """The stars of a valid rating, doubled; None if it is not valid."""
    ids_are_valid = 0 <= fields.get("user_id", -1) <= _INT64_MAX and 0 <= fields.get("movie_id", -1) <= _INT64_MAX
    twice = fields.get("rating", -1) * 2
    if ids_are_valid and twice in _HALF_STARS and EARLIEST_TIMESTAMP <= fields.get("timestamp", -1) <= published_s:
        return int(twice)
    return None


@dataclass(slots=True)
class PartitionPass:
    """One pass over one partition of the log, from its first record on: counters, clocks, identities.

    :meth:`read` takes the records in order and gives back the ratings to aggregate.
    """

    lateness_s: int
    ratings: int = 0
    duplicates: int = 0
    late: int = 0
    invalid: int = 0
    clock: int = 0
    closed: int = 0
    end_of_run: bool = False
    published_ms: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    """Per source the highest id so far."""

    def read(self, batch: RecordBatch) -> tuple[list[Int64s], list[Int64s]]:
        """The batch's ratings, duplicates left out, as FACT_COLUMNS; and its invalid records, as INVALID_COLUMNS."""
        facts, refused = array("q"), array("q")
        published, offsets = (batch.timestamps_ms // 1000).tolist(), batch.offsets.tolist()
        for at, fields in enumerate(_parse_all(batch)):
            kind = None if fields is None else fields.get("type", "rating")
            if fields is not None and kind == "rating":
                half_stars = _half_stars(fields, published[at])
                if half_stars is not None:
                    if self._is_new(fields):
                        facts.extend(self._fact(offsets[at], fields, half_stars))
                    continue
            elif fields is not None and kind == "tick" and self._tick(fields, published[at]):
                continue
            self.invalid += 1
            value = batch.values[at]
            refused.extend((offsets[at], len(value), payload_crc(kept_part(value))))
        self.published_ms = int(batch.timestamps_ms[-1])
        return _columns(facts, len(FACT_COLUMNS)), _columns(refused, len(INVALID_COLUMNS))

    def _is_new(self, fields: Fields) -> bool:
        source, event_id = fields.get("source"), fields.get("event_id")
        if source is None or event_id is None or not 0 <= event_id <= _INT64_MAX:
            return True  # no identity: a fact, taken as it comes
        if event_id <= self.newest.get(source, -1):
            self.duplicates += 1
            return False
        self.newest[source] = event_id
        return True

    def _fact(self, offset: int, fields: Fields, half_stars: int) -> tuple[int, ...]:
        timestamp = fields["timestamp"]
        is_late = timestamp < self.closed - self.lateness_s
        self.ratings += 1
        self.late += is_late
        return offset, fields["user_id"], fields["movie_id"], half_stars, timestamp, is_late

    def _tick(self, fields: Fields, published_s: int) -> bool:
        """Apply a tick; False if it is not valid."""
        event_time = fields.get("event_time", -1)
        is_float = abs(fields.get("rating", 0)) <= sys.float_info.max  # too large a number has not a rating's type
        if not is_float or not EARLIEST_TIMESTAMP <= event_time <= published_s:
            return False
        self.clock = max(self.clock, event_time)
        if not fields.get("heartbeat", False):
            self.closed = max(self.closed, event_time)
        self.end_of_run |= fields.get("end_of_run", False)
        return True


def _columns(rows: array[int], width: int) -> list[Int64s]:
    table = np.frombuffer(rows, np.int64).reshape(-1, width)
    return [np.ascontiguousarray(table[:, column]) for column in range(width)]

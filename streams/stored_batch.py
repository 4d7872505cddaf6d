"""How the embedded log stores a record batch: columns joined to one blob each, and a checksum over them.

Values and keys are joined by newlines where none of them holds one, as nearly all JSON does: then a batch is written
and read as it is, whatever its count. Otherwise they stand end to end, with their lengths beside them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from streams.records import Int64s, RecordBatch, TopicPartition, join_values, split_values

__all__ = ["CorruptBatch", "Pending", "StoredBatch", "checksum", "decode", "encode"]

_HEADER = struct.Struct("<qqq")
_NO_KEY = -1


class CorruptBatch(ValueError):
    """A stored batch whose bytes are not those that were written."""


@dataclass(slots=True, eq=False)
class Pending:
    """Consecutive records of one partition on their way to the log, published at ``timestamp_ms``.

    values, keys: lines; keys None where no record has one. ``plain`` False: one record, and its value or key is not a
    line (it holds a newline, or the key is empty, which a line reads as no key).
    """

    count: int
    timestamp_ms: int
    values: bytes
    keys: bytes | None
    plain: bool = True

    @classmethod
    def record(cls, value: bytes, key: bytes | None, timestamp_ms: int) -> Pending:
        """A single record.

        >>> Pending.record(b"a\\nb", b"1", 0).plain
        False
        """
        plain = b"\n" not in value and (key is None or (key != b"" and b"\n" not in key))
        return cls(1, timestamp_ms, value, key, plain)

    @property
    def size(self) -> int:
        """About how many bytes it holds, in memory and in the log."""
        return len(self.values) + len(self.keys or b"") + 128


class StoredBatch(NamedTuple):
    """A row of the log: ``n`` records that end before ``end_offset``.

    ``timestamps``: int64 per record; None where all are ``published_ms``, which otherwise is the newest.
    ``lengths``, ``key_lengths``: int32 per record (-1: no key), None where values and keys are lines.
    """

    end_offset: int
    n: int
    published_ms: int
    checksum: int
    timestamps: bytes | None
    values: bytes
    lengths: bytes | None
    keys: bytes | None
    key_lengths: bytes | None


def checksum(batch: StoredBatch) -> int:
    """CRC-32 over everything but the field itself."""
    crc = zlib.crc32(_HEADER.pack(batch.end_offset, batch.n, batch.published_ms))
    for column in batch[4:]:
        if column is not None:
            crc = zlib.crc32(column, crc)
    return crc


def encode(parts: Sequence[Pending], base_offset: int) -> StoredBatch:
    """One stored batch of the consecutive ``parts``; its first record gets ``base_offset``."""
    count = sum(part.count for part in parts)
    published_ms = max(part.timestamp_ms for part in parts)
    timestamps = values = lengths = keys = key_lengths = None
    if any(part.timestamp_ms != published_ms for part in parts):
        timestamps = _int64([part.timestamp_ms for part in parts], [part.count for part in parts]).tobytes()
    if all(part.plain for part in parts):
        values = parts[0].values if len(parts) == 1 else b"\n".join([part.values for part in parts])
        if any(part.keys is not None for part in parts):
            keys = b"\n".join([b"\n" * (part.count - 1) if part.keys is None else part.keys for part in parts])
    else:
        each_value = [value for part in parts for value in _values(part)]
        each_key = [key for part in parts for key in _keys(part)]
        values, lengths = b"".join(each_value), np.fromiter(map(len, each_value), "<i4").tobytes()
        keys = b"".join([key for key in each_key if key is not None])
        key_lengths = np.array([_NO_KEY if key is None else len(key) for key in each_key], "<i4").tobytes()
    row = StoredBatch(base_offset + count, count, published_ms, 0, timestamps, values, lengths, keys, key_lengths)
    return row._replace(checksum=checksum(row))


def _int64(numbers: Sequence[int], repeats: Sequence[int]) -> Int64s:
    return np.repeat(np.array(numbers, "<i8"), repeats)


def _values(part: Pending) -> list[bytes]:
    return split_values(part.values, part.count) if part.plain else [part.values]


def _keys(part: Pending) -> list[bytes | None]:
    if part.keys is None:
        return [None] * part.count
    return [key or None for key in split_values(part.keys, part.count)] if part.plain else [part.keys]


def decode(tp: TopicPartition, rows: Sequence[StoredBatch]) -> RecordBatch:
    """The records of consecutive rows as one batch. Raises CorruptBatch, naming the offset."""
    first = rows[0].end_offset - rows[0].n
    expected = first
    for row in rows:
        if row.end_offset - row.n != expected or checksum(row) != row.checksum:
            raise CorruptBatch(f"the batch at offset {expected}")
        expected = row.end_offset
    each_value: list[bytes] | None = None
    if any(row.lengths is not None for row in rows):
        each_value = [value for row in rows for value in _stored_values(row)]
        lines = join_values(each_value)
    else:
        lines = rows[0].values if len(rows) == 1 else b"\n".join([row.values for row in rows])
    each_key: list[bytes | None] | None = None
    key_lines: bytes | None = None
    if any(row.key_lengths is not None for row in rows):
        each_key = [key for row in rows for key in _stored_keys(row)]
    elif any(row.keys is not None for row in rows):
        key_lines = b"\n".join([b"\n" * (row.n - 1) if row.keys is None else row.keys for row in rows])
    return RecordBatch(
        topic=tp.topic,
        partition=tp.partition,
        offsets=np.arange(first, expected, dtype=np.int64),
        timestamps_ms=_stored_timestamps(rows),
        next_offset=expected,
        lines=lines,
        _values=each_value,
        _keys=each_key,
        key_lines=key_lines,
    )


def _stored_timestamps(rows: Sequence[StoredBatch]) -> Int64s:
    if all(row.timestamps is None for row in rows):
        return _int64([row.published_ms for row in rows], [row.n for row in rows])
    return np.concatenate(
        [
            _int64([row.published_ms], [row.n])
            if row.timestamps is None
            else np.frombuffer(row.timestamps, "<i8").astype(np.int64)
            for row in rows
        ]
    )


def _stored_values(row: StoredBatch) -> list[bytes]:
    if row.lengths is None:
        return split_values(row.values, row.n)
    return [value for value in _cut(row.values, row.lengths) if value is not None]


def _stored_keys(row: StoredBatch) -> list[bytes | None]:
    if row.key_lengths is not None:
        return list(_cut(row.keys or b"", row.key_lengths))
    if row.keys is None:
        return [None] * row.n
    return [key or None for key in split_values(row.keys, row.n)]


def _cut(joined: bytes, lengths: bytes) -> Iterator[bytes | None]:
    at = 0
    for length in np.frombuffer(lengths, "<i4").tolist():
        if length == _NO_KEY:
            yield None
        else:
            yield joined[at : at + length]
            at += length

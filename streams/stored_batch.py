"""How the embedded log stores a record batch: one MessagePack array of columns, with a checksum over them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
import numpy as np

from streams.records import Int64s, RecordBatch, TopicPartition, join_values

__all__ = ["CorruptBatch", "Pending", "decode_batch", "encode_batch"]


class CorruptBatch(ValueError):
    """A stored batch whose bytes are not what was written."""


class Pending(msgspec.Struct, gc=False):
    """Consecutive records of one partition on their way to the log; keys None where no record has one.

    ``lines`` and ``key_lines`` are joined by newlines; where one holds a newline itself, ``values`` has them instead.
    """

    count: int
    timestamp_ms: int
    lines: bytes | None
    key_lines: bytes | None
    values: list[bytes] | None = None
    keys: list[bytes | None] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        values = len(self.lines) if self.lines is not None else sum(map(len, self.values or ()))
        return values + len(self.key_lines or b"") + 64

    @classmethod
    def one(cls, value: bytes, key: bytes | None, timestamp_ms: int) -> Pending:
        """A single record."""
        plain = b"\n" not in value and (key is None or (b"\n" not in key and key != b""))
        if plain:
            return cls(1, timestamp_ms, value, key)
        return cls(1, timestamp_ms, None, None, [value], [key])


class _Stored(msgspec.Struct, array_like=True, gc=False):
    """``timestamps``: one for all records, or int64 bytes; ``values``: lines, or one by one; ``keys`` likewise."""

    checksum: int
    count: int
    timestamps: int | bytes
    values: bytes | list[bytes]
    keys: bytes | list[bytes | None] | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def _checksum(values: bytes | list[bytes], keys: bytes | list[bytes | None] | None) -> int:
    crc = 0
    for part in (values, keys):
        for piece in part if isinstance(part, list) else (part,):
            crc = zlib.crc32(piece or b"", crc)
    return crc


def encode_batch(parts: Sequence[Pending]) -> bytes:
    """One stored batch of consecutive parts of the same partition."""
    count = sum(part.count for part in parts)
    first = parts[0].timestamp_ms
    timestamps: int | bytes = first
    if any(part.timestamp_ms != first for part in parts):
        each = np.repeat([part.timestamp_ms for part in parts], [part.count for part in parts])
        timestamps = each.astype("<i8").tobytes()
    values: bytes | list[bytes]
    keys: bytes | list[bytes | None] | None = None
    if all(part.lines is not None for part in parts):
        values = b"\n".join([part.lines for part in parts if part.lines is not None])
        if any(part.key_lines is not None for part in parts):
            keys = b"\n".join([part.key_lines or b"\n" * (part.count - 1) for part in parts])
    else:
        values, keys = [], []
        for part in parts:
            values += part.values if part.values is not None else (part.lines or b"").split(b"\n")
            keys += part.keys if part.keys is not None else _split_keys(part)
    return _encoder.encode(_Stored(_checksum(values, keys), count, timestamps, values, keys))


def _split_keys(part: Pending) -> list[bytes | None]:
    if part.key_lines is None:
        return [None] * part.count
    return [key or None for key in part.key_lines.split(b"\n")]


def decode_batch(tp: TopicPartition, base_offset: int, payload: bytes) -> RecordBatch:
    """The records of a stored batch. Raises CorruptBatch."""
    try:
        stored = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise CorruptBatch(str(error)) from error
    values, keys = stored.values, stored.keys
    if _checksum(values, keys) != stored.checksum:
        raise CorruptBatch("its checksum does not fit")
    count = stored.count
    timestamps: Int64s
    if isinstance(stored.timestamps, bytes):
        timestamps = np.frombuffer(stored.timestamps, "<i8").astype(np.int64, copy=False)
    else:
        timestamps = np.full(count, stored.timestamps, np.int64)
    one_by_one = values if isinstance(values, list) else None
    return RecordBatch(
        topic=tp.topic,
        partition=tp.partition,
        offsets=np.arange(base_offset, base_offset + count),
        timestamps_ms=timestamps,
        next_offset=base_offset + count,
        lines=values if isinstance(values, bytes) else join_values(values),
        _values=one_by_one,
        _keys=keys if isinstance(keys, list) else None,
        key_lines=keys if isinstance(keys, bytes) else None,
    )

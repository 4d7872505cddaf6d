"""Records on their way to Kafka: cut to what one record batch may hold, and written as one."""

from __future__ import annotations

import struct
from collections import deque
from itertools import repeat
from typing import NamedTuple

from aiokafka.codec import lz4_encode
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

__all__ = ["MAX_BATCH_BYTES", "Part", "encode_record_batch", "parts_of_lines"]

MAX_BATCH_BYTES = 900_000
"""Of keys and values in one record batch: with what surrounds them it stays below a broker's usual limit of 1 MiB."""

_RECORD_OVERHEAD = 12
_NO_LIMIT = 1 << 30

_LENGTH_AT, _CRC_AT, _ATTRIBUTES_AT, _RECORDS_AT = 8, 17, 21, 61
"""Where these stand in a batch; the length is that of all behind it, the checksum that from the attributes on."""
_LZ4_LEVEL = 1
"""The fast one, as librdkafka's. aiokafka's 9 takes seven times as long, for a batch of ratings a fifth smaller."""

_NO_HEADERS: list[tuple[str, bytes | None]] = []


class Part(NamedTuple):
    """Consecutive records of one send; ``keys`` None where none has one. ``size``: about what they take on the wire."""

    timestamp_ms: int
    values: list[bytes]
    keys: list[bytes | None] | None
    size: int

    @classmethod
    def record(cls, value: bytes, key: bytes | None, timestamp_ms: int) -> Part:
        """A single record."""
        return cls(
            timestamp_ms, [value], None if key is None else [key], len(value) + len(key or b"") + _RECORD_OVERHEAD
        )


def parts_of_lines(lines: bytes, keys: bytes | None, count: int, timestamp_ms: int) -> list[Part]:
    """``count`` values and keys (empty for none) joined by newlines, in parts of at most MAX_BATCH_BYTES each."""
    each_key = None if keys is None else _split_keys(keys)
    size = len(lines) + len(keys or b"") + count * _RECORD_OVERHEAD
    return _cut(Part(timestamp_ms, lines.split(b"\n"), each_key, size), MAX_BATCH_BYTES)


def _split_keys(keys: bytes) -> list[bytes | None]:
    each: list[bytes | None] = [*keys.split(b"\n")]
    # Nearly always all have one, and a pass over them is saved.
    return [key or None for key in each] if b"" in each else each


def _cut(whole: Part, max_bytes: int) -> list[Part]:
    """The same records in pieces of about equal size, none above ``max_bytes`` where single records allow it."""
    count = len(whole.values)
    pieces = -(-whole.size // max_bytes)
    if pieces == 1 or count == 1:
        return [whole]
    step = -(-count // min(pieces, count))
    cut = []
    for at in range(0, count, step):
        values = whole.values[at : at + step]
        keys = None if whole.keys is None else whole.keys[at : at + step]
        size = sum(map(len, values)) + sum(len(key or b"") for key in keys or ()) + len(values) * _RECORD_OVERHEAD
        piece = Part(whole.timestamp_ms, values, keys, size)
        cut += [piece] if size <= max_bytes else _cut(piece, max_bytes)
    return cut


def encode_record_batch(parts: list[Part], compression: str, producer_id: int, epoch: int, sequence: int) -> bytearray:
    """A Kafka record batch of these records. compression: none or lz4."""
    builder = DefaultRecordBatchBuilder(
        2,
        DefaultRecordBatch.CODEC_NONE,
        is_transactional=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        batch_size=_NO_LIMIT,
    )
    at = 0
    for part in parts:
        count = len(part.values)
        keys = repeat(None) if part.keys is None else part.keys
        # A C loop: a Python one takes three times as long.
        appending = map(
            builder.append, range(at, at + count), repeat(part.timestamp_ms), keys, part.values, repeat(_NO_HEADERS)
        )
        deque(appending, maxlen=0)
        at += count
    batch: bytearray = builder.build()
    return _compressed(batch) if compression == "lz4" else batch


def _compressed(batch: bytearray) -> bytearray:
    """The batch with its records as one lz4 frame; as it is, where that would not be smaller."""
    records: bytes = lz4_encode(bytes(memoryview(batch)[_RECORDS_AT:]), _LZ4_LEVEL)
    if len(records) >= len(batch) - _RECORDS_AT:
        return batch
    packed = bytearray(batch[:_RECORDS_AT]) + records
    struct.pack_into(">i", packed, _LENGTH_AT, len(packed) - _LENGTH_AT - 4)
    struct.pack_into(">h", packed, _ATTRIBUTES_AT, DefaultRecordBatch.CODEC_LZ4)
    struct.pack_into(">I", packed, _CRC_AT, calc_crc32c(memoryview(packed)[_ATTRIBUTES_AT:]))
    return packed

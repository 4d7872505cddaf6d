"""Record batches as Kafka's own reader takes them apart again."""

from __future__ import annotations

import random

import pytest
from aiokafka.record.memory_records import MemoryRecords

from streams.kafka_batch import MAX_BATCH_BYTES, Part, encode_record_batch, parts_of_lines

LINES = b"\n".join(b'{"user_id":%d,"movie_id":7,"rating":3.5}' % i for i in range(1_000))
KEYS = b"\n".join(b"%d" % i if i % 3 else b"" for i in range(1_000))


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_batch_is_read_back_as_it_was_written(compression: str) -> None:
    parts = [*parts_of_lines(LINES, KEYS, 1_000, 1_234), Part.record(b"last", None, 5_678)]
    encoded = encode_record_batch(parts, compression, producer_id=9, epoch=2, sequence=77)
    records = MemoryRecords(bytes(encoded))
    batch = records.next_batch()
    assert not records.has_next()
    assert batch.validate_crc()
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (9, 2, 77)
    found = list(batch)
    assert [record.value for record in found] == [*LINES.split(b"\n"), b"last"]
    assert [record.key for record in found] == [key or None for key in KEYS.split(b"\n")] + [None]
    assert [record.timestamp for record in found] == [1_234] * 1_000 + [5_678]
    assert [record.offset for record in found] == list(range(1_001))


def test_lz4_makes_a_batch_smaller_but_never_larger() -> None:
    def sizes(value: bytes) -> list[int]:
        parts = [Part.record(value, None, 1)]
        return [len(encode_record_batch(parts, compression, 1, 0, 0)) for compression in ("none", "lz4")]

    plain, packed = sizes(LINES)
    assert packed < plain / 3
    plain, packed = sizes(random.Random(0).randbytes(1_000))
    assert packed == plain


def test_a_large_send_is_cut_into_batches_that_a_broker_takes() -> None:
    lines = b"\n".join(b"%0200d" % i for i in range(10_000))
    parts = parts_of_lines(lines, None, 10_000, 1)
    assert len(parts) == 3
    assert all(part.size <= MAX_BATCH_BYTES for part in parts)
    assert b"\n".join(value for part in parts for value in part.values) == lines

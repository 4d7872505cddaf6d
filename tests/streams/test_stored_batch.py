"""What goes into the log comes out of it, whatever the bytes; and changed bytes are noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.records import TopicPartition
from streams.stored_batch import CorruptBatch, Pending, StoredBatch, decode, encode

TP = TopicPartition("t", 3)
Record = tuple[bytes, bytes | None, int]

lines = st.binary(max_size=12)
records = st.lists(st.tuples(lines, st.none() | lines, st.integers(0, 3)), min_size=1, max_size=12)


def stored(batches: list[list[Record]], base: int) -> list[StoredBatch]:
    rows: list[StoredBatch] = []
    for batch in batches:
        rows.append(encode([Pending.record(*record) for record in batch], base))
        base += len(batch)
    return rows


@given(st.lists(records, min_size=1, max_size=4), st.integers(0, 1_000))
def test_records_round_trip(batches: list[list[Record]], base: int) -> None:
    """The offsets too, over several stored batches read as one."""
    sent = [record for batch in batches for record in batch]
    read = decode(TP, stored(batches, base))
    assert list(zip(read.values, read.keys, read.timestamps_ms.tolist(), strict=True)) == sent
    assert read.offsets.tolist() == list(range(base, base + len(sent)))
    assert (read.tp, read.next_offset) == (TP, base + len(sent))


@given(records, st.data())
def test_a_changed_byte_is_noticed(batch: list[Record], data: st.DataObject) -> None:
    (row,) = stored([[*batch, (b"never empty", None, 0)]], 0)
    at = data.draw(st.integers(0, len(row.values) - 1))
    changed = row.values[:at] + bytes([row.values[at] ^ 1]) + row.values[at + 1 :]
    with pytest.raises(CorruptBatch):
        decode(TP, [row._replace(values=changed)])

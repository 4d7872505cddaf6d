"""The partitioner against the client that every Kafka user of Python has."""

from __future__ import annotations

import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as kafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.murmur2 import murmur2, partition_for, partitions_of_ids


@given(st.binary(max_size=40))
def test_the_hash_is_kafkas(key: bytes) -> None:
    assert murmur2(key) == kafka_murmur2(bytearray(key)) & 0xFFFFFFFF


@given(st.lists(st.integers(0, 2**63 - 1), max_size=30), st.integers(1, 64))
def test_ids_go_where_their_decimal_keys_go(ids: list[int], partitions: int) -> None:
    chosen = partitions_of_ids(np.array(ids, np.int64), partitions)
    assert chosen.tolist() == [partition_for(b"%d" % i, partitions) for i in ids]


@pytest.mark.parametrize("partitions", [1, 4, 8])
def test_every_partition_gets_its_share(partitions: int) -> None:
    share = np.bincount(partitions_of_ids(np.arange(10_000), partitions), minlength=partitions) / 10_000
    assert abs(share - 1 / partitions).max() < 0.02

"""Kafka's partitioner: murmur2 of the key, as the Java client and aiokafka compute it.

The same key lands on the same partition on every bus and with every client (librdkafka: ``murmur2_random``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.records import Int64s

__all__ = ["murmur2", "partition_for", "partitions_of_ids"]

_SEED = 0x9747B28C
_M = 0x5BD1E995
_R = 24
_MASK = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF

_UInt32s = npt.NDArray[np.uint32]


def murmur2(key: bytes) -> int:
    """The 32-bit hash of ``key``, unsigned.

    >>> murmur2(b"21") - 2**32  # the Java client's own test vector
    -973932308
    """
    length = len(key)
    h = _SEED ^ length
    aligned = length & ~3
    for i in range(0, aligned, 4):
        k = int.from_bytes(key[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> _R)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length > aligned:
        h = (h ^ int.from_bytes(key[aligned:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of ``key`` in a topic of ``partitions``.

    >>> partition_for(b"1", 4)
    3
    """
    return (murmur2(key) & _POSITIVE) % partitions


def partitions_of_ids(ids: Int64s, partitions: int) -> Int64s:
    """The partitions of ids used as keys in ASCII decimal, as :func:`partition_for` gives them one by one.

    ids: int64 of shape (n,), not negative. Returns int64 of shape (n,). Raises ValueError for a negative id.

    >>> partitions_of_ids(np.array([1, 31, 1260759144]), 4).tolist() == [
    ...     partition_for(key, 4) for key in (b"1", b"31", b"1260759144")]
    True
    """
    ids = np.asarray(ids, np.int64)
    if len(ids) == 0:
        return np.empty(0, np.int64)
    if int(ids.min()) < 0:
        raise ValueError(f"expected ids of 0 and more, found {int(ids.min())}")
    n_digits = np.searchsorted(_POWERS, ids, "right") + 1
    result = np.empty(len(ids), np.int64)
    for width in np.flatnonzero(np.bincount(n_digits)).tolist():
        at = n_digits == width
        result[at] = (_hash_of_width(ids[at], width) & np.uint32(_POSITIVE)).astype(np.int64) % partitions
    return result


def _hash_of_width(ids: Int64s, width: int) -> _UInt32s:
    """murmur2 of ids that all have ``width`` decimal digits, four digits (one hash word) at a time."""
    m = np.uint32(_M)
    h = np.full(len(ids), _SEED ^ width, np.uint32)
    rest = width
    while rest >= 4:
        rest -= 4
        k = _WORDS[4][ids // 10**rest % 10_000] * m
        k = (k ^ (k >> np.uint32(_R))) * m
        h = (h * m) ^ k
    if rest:
        h = (h ^ _WORDS[rest][ids % 10**rest]) * m
    h = (h ^ (h >> np.uint32(13))) * m
    return h ^ (h >> np.uint32(15))


def _digit_words(width: int) -> _UInt32s:
    """The ASCII digits of 0 to 10^width - 1, zero-padded, as little-endian words."""
    numbers = np.arange(10**width, dtype=np.uint32)
    words = np.zeros(len(numbers), np.uint32)
    for place in range(width):
        digit = numbers // np.uint32(10 ** (width - 1 - place)) % np.uint32(10) + np.uint32(ord("0"))
        words |= digit << np.uint32(8 * place)
    return words


_WORDS = {width: _digit_words(width) for width in (1, 2, 3, 4)}
_POWERS = np.array([10**k for k in range(1, 19)], np.int64)

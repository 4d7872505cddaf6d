"""Records as the bus hands them over: one partition's consecutive records, held as columns.

A record batch is what the log stores, what a fetch returns and what batched delivery hands to an agent; values stay
joined until somebody asks for them one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["RecordBatch", "TopicPartition", "join_values", "split_values"]

Int64s = npt.NDArray[np.int64]


class TopicPartition(NamedTuple):
    """A topic and one of its partitions; compares equal to Faust's ``TP``."""

    topic: str
    partition: int


def join_values(values: list[bytes]) -> bytes | None:
    """The values as newline-delimited lines, or None if one of them holds a newline.

    >>> join_values([b'{"a":1}', b'{"a":2}'])
    b'{"a":1}\\n{"a":2}'
    """
    lines = b"\n".join(values)
    return lines if lines.count(b"\n") == len(values) - 1 else None


def split_values(lines: bytes, count: int) -> list[bytes]:
    """The inverse of :func:`join_values`."""
    return lines.split(b"\n") if count else []


@dataclass(slots=True, eq=False)
class RecordBatch:
    """Consecutive records of one partition.

    offsets: int64 (n,), rising, with gaps where the log has them (compaction, transaction markers).
    timestamps_ms: int64 (n,), wall time of publishing in milliseconds since the epoch.
    next_offset: where a reader goes on; above the last offset.
    lines: the values joined by newlines, or None when a value holds a newline (then ``_values`` has them).
    key_lines: the keys likewise, empty for a record without one; None when ``_keys`` has them, or none has a key.
    """

    topic: str
    partition: int
    offsets: Int64s
    timestamps_ms: Int64s
    next_offset: int
    lines: bytes | None
    _values: list[bytes] | None = None
    _keys: list[bytes | None] | None = None
    key_lines: bytes | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    @property
    def n_bytes(self) -> int:
        """How many bytes the values hold."""
        return len(self.lines) if self.lines is not None else sum(map(len, self.values))

    @property
    def first_offset(self) -> int:
        return int(self.offsets[0])

    @property
    def last_offset(self) -> int:
        return int(self.offsets[-1])

    @property
    def values(self) -> list[bytes]:
        """The records' values, one by one; an absent value (a tombstone) is empty."""
        if self._values is None:
            assert self.lines is not None
            self._values = split_values(self.lines, len(self))
        return self._values

    @property
    def keys(self) -> list[bytes | None]:
        """The records' keys; None where a record has none."""
        if self._keys is None:
            if self.key_lines is None:
                self._keys = [None] * len(self)
            else:
                self._keys = [key or None for key in split_values(self.key_lines, len(self))]
        return self._keys

    def slice(self, start: int, stop: int) -> RecordBatch:
        """Records ``start`` to ``stop`` (positions in this batch, not offsets) as a batch of their own."""
        stop = min(stop, len(self))
        whole = stop == len(self)
        if whole and start == 0:
            return self
        values = self.values[start:stop]
        return RecordBatch(
            topic=self.topic,
            partition=self.partition,
            offsets=self.offsets[start:stop],
            timestamps_ms=self.timestamps_ms[start:stop],
            next_offset=self.next_offset if whole else int(self.offsets[stop]),
            lines=join_values(values),
            _values=values,
            _keys=self.keys[start:stop] if self._has_keys else None,
        )

    @property
    def _has_keys(self) -> bool:
        return self._keys is not None or self.key_lines is not None

    @staticmethod
    def concat(batches: list[RecordBatch]) -> RecordBatch:
        """One batch of consecutive batches of the same partition."""
        if len(batches) == 1:
            return batches[0]
        parts = [b.lines for b in batches]
        lines = None if None in parts else b"\n".join([p for p in parts if p is not None])
        keyless = not any(b._has_keys for b in batches)
        key_parts = [b.key_lines for b in batches]
        key_lines = None if None in key_parts else b"\n".join([p for p in key_parts if p is not None])
        return RecordBatch(
            topic=batches[0].topic,
            partition=batches[0].partition,
            offsets=np.concatenate([b.offsets for b in batches]),
            timestamps_ms=np.concatenate([b.timestamps_ms for b in batches]),
            next_offset=batches[-1].next_offset,
            lines=lines,
            _values=[v for b in batches for v in b.values] if lines is None else None,
            _keys=None if keyless or key_lines is not None else [k for b in batches for k in b.keys],
            key_lines=key_lines,
        )

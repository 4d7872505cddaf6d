"""Records to publish, joined as lines: batches of one topic, cheap to store and to send."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

__all__ = ["Lines", "Page"]

_MOST_LINES = 2_000
"""Of one batch: about half a megabyte."""

_encode = msgspec.json.Encoder().encode


class Lines(NamedTuple):
    """Records of one topic, values and keys joined by newlines, as a producer's ``send_batch`` takes them."""

    topic: str
    n_records: int
    keys: bytes
    lines: bytes


class Page:
    """The records of one topic so far."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.values: list[bytes] = []
        self.keys: list[bytes] = []

    def put(self, record: msgspec.Struct, user_id: int | None = None) -> None:
        """Under the key of a user, or without one."""
        self.values.append(_encode(record))
        self.keys.append(b"" if user_id is None else b"%d" % user_id)

    def batches(self) -> Iterable[Lines]:
        for first in range(0, len(self.values), _MOST_LINES):
            values, keys = (part[first : first + _MOST_LINES] for part in (self.values, self.keys))
            yield Lines(self.topic, len(values), b"\n".join(keys), b"\n".join(values))

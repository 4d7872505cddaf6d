"""``malformed``: 0.1, 1 or 5 % of the records are no ratings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.events import Rating
from streams.synthetic.draws import Draws

__all__ = ["SORTS", "Malformed", "malformed_payload"]

_SHARES = {"low": 0.001, "middle": 0.01, "high": 0.05}
SORTS = ("truncated", "wrong type", "rating out of range", "negative id", "before 1990", "missing field")
"""What can be wrong with a record; the code of a sort is its place here, from 1."""


def malformed_payload(code: int, rating: Rating) -> bytes:
    """What is published in place of ``rating``: a record with the defect ``code``, on one line.

    It begins with its identity, so that a replayer finds where it stopped even if this is its last record.

    >>> malformed_payload(1, Rating(12, 34, 4.5, 1_000_000_000, "run", 7))
    b'{"source":"run","event_id":7,"user_id":12,"movie_id":34,"rat'
    """
    wrong: dict[str, Any] = {
        "source": rating.source,
        "event_id": rating.event_id,
        "user_id": rating.user_id,
        "movie_id": rating.movie_id,
        "rating": rating.rating,
        "timestamp": rating.timestamp,
    }
    match SORTS[code - 1]:
        case "wrong type":
            wrong["rating"] = f"{rating.rating:g} stars"
        case "rating out of range":
            wrong["rating"] = rating.rating + 5.0
        case "negative id":
            wrong["user_id"] = -1 - rating.user_id
        case "before 1990":
            wrong["timestamp"] = 0  # a clock that was never set
        case "missing field":
            del wrong["movie_id"]
    payload = msgspec.json.encode(wrong)
    return payload[: payload.index(b'"rating"') + 4] if SORTS[code - 1] == "truncated" else payload


@dataclass(frozen=True, slots=True)
class Malformed:
    """From the beginning on, some records are replaced by what no consumer can count, each sort as often.

    Its strength is the chance of each record. A malformed record stands where the rating stood, on the partition of
    its user. Records that are late, or malformed already, are passed over.
    """

    share: float
    draws: Draws

    @staticmethod
    def learn(upstream: Upstream) -> Malformed:
        return Malformed(_SHARES[upstream.spec.strength], upstream.draws)

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        chosen = begun & rows.faultless & (self.draws.uniform("malformed", rows.key) < self.share)
        code = (self.draws.bits("sort", rows.key) % np.uint64(len(SORTS))).astype(np.uint8) + np.uint8(1)
        return replace(rows, malformed=np.where(chosen, code, rows.malformed)), chosen

    def parameters(self) -> dict[str, Any]:
        return {"share": self.share, "sorts": list(SORTS)}

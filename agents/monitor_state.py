"""The monitor's state as JSON, with what it must match: the River that its detectors are of, and the thresholds.

No pickle, whose loading runs code. A state of another River, of other thresholds, or one that is damaged is refused;
the log still has all that it was made of.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Self

import msgspec

from agents.day_sums import DayBookState
from agents.detectors import DetectorState, river_version
from agents.measures import Baseline
from agents.monitor_columns import PackedArray
from agents.slate_outcomes import OpenSlatesState
from agents.taste_book import TasteBookState
from agents.thresholds import Thresholds
from streams.errors import StateOutdated

__all__ = ["NEXT", "MonitorState", "WaitingState", "decode_state", "encode_state"]

_VERSION = 5  # raise it when what a state holds changes


class WaitingState(msgspec.Struct, frozen=True):
    """Columns as JSON holds them."""

    sources: tuple[str, ...]
    arrays: dict[str, PackedArray]


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a monitor holds. seen_movies: ids and counts; arrays of one length. simulated: see ``Monitor``."""

    live_day: int
    model_day: int
    closed_day: int | None
    asked_day: int | None
    waiting: dict[str, WaitingState]
    seen_users: PackedArray
    audience: PackedArray
    seen_movies: tuple[PackedArray, PackedArray]
    stars: PackedArray
    profile: tuple[PackedArray, PackedArray, PackedArray] | None
    training_stars: PackedArray | None
    taste: TasteBookState
    slates: OpenSlatesState
    book: DayBookState
    baselines: dict[str, Baseline]
    floors: dict[str, int]
    breached: dict[str, int]
    alerting: list[str]
    detectors: dict[str, DetectorState]
    fired: dict[str, int]
    simulated: bool


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    river: str
    thresholds: str
    crc32: int
    state: msgspec.Raw

    @classmethod
    def around(cls, body: bytes, thresholds: Thresholds) -> Self:
        return cls(
            version=_VERSION,
            river=river_version(),
            thresholds=hashlib.sha256(msgspec.json.encode(thresholds, order="sorted")).hexdigest()[:16],
            crc32=zlib.crc32(body),
            state=msgspec.Raw(body),
        )


def encode_state(state: MonitorState, thresholds: Thresholds) -> bytes:
    """JSON of a state and of what it belongs to."""
    return msgspec.json.encode(_Envelope.around(msgspec.json.encode(state), thresholds))


def decode_state(data: bytes, thresholds: Thresholds) -> MonitorState:
    """Raises StateOutdated for a state that is damaged or belongs to other thresholds or another River."""
    try:
        found = msgspec.json.decode(data, type=_Envelope)
        body = bytes(found.state)
        wanted = _Envelope.around(body, thresholds)
        for name in ("version", "river", "thresholds", "crc32"):
            if (has := getattr(found, name)) != (wants := getattr(wanted, name)):
                raise StateOutdated(f"monitor state: expected {name} {wants}, found {has}; {NEXT}")
        return msgspec.json.decode(body, type=MonitorState)
    except msgspec.DecodeError as error:
        raise StateOutdated(f"monitor state: expected JSON of its schema, found {error}; {NEXT}") from error


NEXT = "delete it, and the monitor reads the log from its start"
"""What to do about a state that is refused."""

"""Columns that wait until their day is closed, in whatever portions and order they came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from agents.monitor_columns import Columns, FeedbackColumns, RatingColumns, SlateColumns, pack, unpack
from agents.monitor_state import WaitingState
from models.slates import SLATE_SIZE
from streams.events import DAY_S

__all__ = ["DayColumns", "WaitingColumns"]

DayColumns = tuple[RatingColumns, SlateColumns, FeedbackColumns]

_NONE = np.zeros(0, np.int64)
_IDENTITY: dict[str, Any] = {"timestamp": _NONE, "user_id": _NONE, "source": _NONE, "event_id": _NONE}
_EMPTY: dict[str, Columns] = {
    "ratings": RatingColumns(**_IDENTITY, movie_id=_NONE, half_stars=_NONE, predicted=np.zeros(0, np.float32)),
    "slates": SlateColumns(**_IDENTITY, movie_ids=np.zeros((0, SLATE_SIZE), np.int64)),
    "feedback": FeedbackColumns(
        **_IDENTITY, n_shown=_NONE, n_clicked=_NONE, n_ratings=_NONE, simulated=np.zeros(0, bool)
    ),
}


class WaitingColumns:
    """By kind: ``ratings``, ``slates``, ``feedback``."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Columns]] = {kind: [empty] for kind, empty in _EMPTY.items()}

    def add(self, kind: str, columns: Columns | None) -> None:
        if columns is not None and len(columns):
            self._parts[kind].append(columns)

    def days_to(self, day: int, closed_day: int | None) -> Iterator[tuple[int, DayColumns]]:
        """Each day after ``closed_day`` (days since the epoch) up to ``day`` that has records, and these in order.

        What came late, for days that are closed, counts with the first of them; they are forgotten at once.
        """
        held = {kind: type(parts[0]).concat(parts) for kind, parts in self._parts.items()}
        end = (day + 1) * DAY_S
        self._parts = {kind: [columns.take(columns.timestamp >= end)] for kind, columns in held.items()}
        now = {kind: columns.take(columns.timestamp < end).in_order() for kind, columns in held.items()}
        days = np.unique(np.concatenate([c.timestamp for c in now.values()]) // DAY_S)
        on_time = days[days > (-1 if closed_day is None else closed_day)]
        if not len(on_time) and len(days):
            on_time = np.array([day])  # only late ones came
        return _by_day(now, on_time.tolist())

    def state(self) -> dict[str, WaitingState]:
        found = {}
        for kind, parts in self._parts.items():
            held = type(parts[0]).concat(parts)
            found[kind] = WaitingState(held.sources, {name: pack(array) for name, array in held.arrays().items()})
        return found

    @classmethod
    def of(cls, state: Mapping[str, WaitingState]) -> Self:
        waiting = cls()
        for kind, held in state.items():
            arrays = {name: unpack(array) for name, array in held.arrays.items()}
            waiting._parts[kind] = [type(_EMPTY[kind])(**arrays, sources=held.sources)]
        return waiting


def _by_day(now: Mapping[str, Columns], days: list[int]) -> Iterator[tuple[int, DayColumns]]:
    for number, day in enumerate(days):
        since = 0 if number == 0 else day * DAY_S
        yield (
            day,
            tuple(  # type: ignore[misc]
                c.take((c.timestamp >= since) & (c.timestamp < (day + 1) * DAY_S)) for c in now.values()
            ),
        )

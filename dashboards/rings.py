"""Bounded memory of what was read: each ring keeps the newest rows and forgets the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.metrics import Floats

__all__ = ["ColumnRing", "Point", "Series", "SeriesRing"]

_FIRST_ROWS = 64


class ColumnRing:
    """The last ``size`` rows of a structured dtype; memory grows with what was added, up to that.

    >>> ring = ColumnRing(np.dtype([("x", np.int64)]), size=2)
    >>> for x in (1, 2, 3): ring.add((x,))
    >>> ring.rows()["x"].tolist(), len(ring), ring.added
    ([2, 3], 2, 3)
    """

    def __init__(self, dtype: np.dtype[np.void], size: int) -> None:
        self._size = size
        self._rows = np.zeros(min(size, _FIRST_ROWS), dtype)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self._size)

    def add(self, row: tuple[Any, ...]) -> None:
        """Keep ``row``, in the place of the oldest where there is no room."""
        if self.added == len(self._rows) < self._size:
            grown = np.zeros(min(self._size, 2 * len(self._rows)), self._rows.dtype)
            grown[: self.added] = self._rows
            self._rows = grown
        self._rows[self.added % len(self._rows)] = row
        self.added += 1

    def rows(self) -> npt.NDArray[np.void]:
        """A copy of what is kept, oldest first."""
        if self.added <= len(self._rows):
            return self._rows[: self.added].copy()
        return np.roll(self._rows, -(self.added % len(self._rows)))


@dataclass(frozen=True, slots=True)
class Point:
    """A measured value. at: wall time, seconds since the epoch; event_time likewise, 0 where it has none."""

    at: float
    value: float
    event_time: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Values of one metric, oldest first: float64 (n,) each. at: wall time; event_time: 0 where there is none."""

    name: str
    labels: Mapping[str, str]
    at: Floats
    value: Floats
    event_time: Floats

    def __len__(self) -> int:
        return len(self.at)

    @property
    def last(self) -> Point | None:
        return Point(float(self.at[-1]), float(self.value[-1]), int(self.event_time[-1])) if len(self.at) else None

    def since(self, wall_s: float) -> Series:
        """What was measured at ``wall_s`` or later."""
        wanted = self.at >= wall_s
        return Series(self.name, self.labels, self.at[wanted], self.value[wanted], self.event_time[wanted])


_POINT = np.dtype([("at", np.float64), ("value", np.float64), ("event_time", np.float64)])


class SeriesRing:
    """The last values of one metric with one set of labels."""

    def __init__(self, name: str, labels: Mapping[str, str], size: int) -> None:
        self.name, self.labels = name, dict(labels)
        self._ring = ColumnRing(_POINT, size)
        self.last: Point | None = None

    def add(self, point: Point) -> None:
        """Keep ``point``; one that is older than the last is passed over, so that a series stays in its order."""
        if self.last is not None and point.at < self.last.at:
            return
        self._ring.add((point.at, point.value, point.event_time))
        self.last = point

    def series(self) -> Series:
        rows = self._ring.rows()
        return Series(self.name, self.labels, *(np.ascontiguousarray(rows[c]) for c in ("at", "value", "event_time")))

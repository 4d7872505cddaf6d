"""What a kind of drift is: learned from the stream it is put into, then applied to columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from streams.dataset import Movie
from streams.drift.columns import Bools, DriftColumns
from streams.drift.spec import DriftSpec
from streams.synthetic.draws import Draws

__all__ = ["Effect", "Upstream"]


class Effect(Protocol):
    """A drift with all it needs to know. Rows may come in any portions: the same row fares the same in each."""

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        """The rows after the drift, and which of them it changed, added or dropped.

        begun: rows that are in the stream and not before the drift's beginning; no others may be touched.
        """
        ...

    def parameters(self) -> dict[str, Any]:
        """What was injected, as JSON values, for the ground truth."""
        ...


@dataclass(frozen=True, slots=True)
class Upstream:
    """The stream a drift is put into, as the drifts named before it leave it.

    begins: event time, seconds since the epoch. draws: the random numbers of this drift alone.
    """

    spec: DriftSpec
    begins: int
    lateness_s: int
    draws: Draws
    movies: Callable[[], dict[int, Movie]]
    _rows: Callable[[], Iterator[DriftColumns]]
    _rows_from_start: Callable[[], Iterator[DriftColumns]]

    def affected_part(self) -> Iterator[DriftColumns]:
        """The rows from the drift's beginning on that say something."""
        for rows in self._rows():
            yield rows.take((rows.timestamp >= self.begins) & ~rows.dropped & rows.well_formed)

    def whole(self) -> Iterator[DriftColumns]:
        """All rows from the start of the data on that say something."""
        for rows in self._rows_from_start():
            yield rows.take(~rows.dropped & rows.well_formed)

"""``late``: 0.1, 1 or 5 % of the records come later than the lateness bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.events import DAY_S
from streams.synthetic.draws import Draws

__all__ = ["LATEST_S", "Late"]

_SHARES = {"low": 0.001, "middle": 0.01, "high": 0.05}
_SOONEST_S, LATEST_S = DAY_S, 10 * DAY_S
"""Beyond the bound. A day at least: lateness is judged by day boundaries, and one always lies in between."""


@dataclass(frozen=True, slots=True)
class Late:
    """From the beginning on, some records arrive the lateness bound and one to ten days after their event time.

    Its strength is the chance of each record. The record itself stays as it is, its event time too; it stands in the
    stream where it arrives. Records that are malformed, or late already, are passed over.
    """

    share: float
    lateness_s: int
    draws: Draws

    @staticmethod
    def learn(upstream: Upstream) -> Late:
        return Late(_SHARES[upstream.spec.strength], upstream.lateness_s, upstream.draws)

    @property
    def longest_s(self) -> int:
        """The longest delay there is."""
        return self.lateness_s + LATEST_S

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        chosen = begun & rows.faultless & (self.draws.uniform("late", rows.key) < self.share)
        beyond = self.draws.uniform("delay", rows.key) * (LATEST_S - _SOONEST_S)
        delay = self.lateness_s + _SOONEST_S + beyond.astype(np.int64)
        return replace(rows, arrival=np.where(chosen, rows.timestamp + delay, rows.arrival)), chosen

    def parameters(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "lateness_s": self.lateness_s,
            "shortest_delay_s": self.lateness_s + _SOONEST_S,
            "longest_delay_s": self.longest_s,
        }

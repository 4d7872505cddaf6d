"""``volume-drop``: 20, 40 or 70 % of the ratings do not come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.synthetic.draws import Draws

__all__ = ["VolumeDrop"]

_SHARES = {"low": 0.20, "middle": 0.40, "high": 0.70}


@dataclass(frozen=True, slots=True)
class VolumeDrop:
    """From the beginning on, each rating is left out with the chance that its strength gives, whoever gave it."""

    share: float
    draws: Draws

    @staticmethod
    def learn(upstream: Upstream) -> VolumeDrop:
        return VolumeDrop(_SHARES[upstream.spec.strength], upstream.draws)

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        chosen = begun & (self.draws.uniform("drop", rows.key) < self.share)
        return replace(rows, dropped=rows.dropped | chosen), chosen

    def parameters(self) -> dict[str, Any]:
        return {"share": self.share}

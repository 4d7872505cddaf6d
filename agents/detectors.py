"""Drift detectors of River on standardised signals, with a state that survives restarts to the bit.

Each watches one signal (:mod:`agents.signals`). ``every`` units of it make an observation, their mean: fewer calls, and
nearly normal values. The first ``warm_up`` observations tell level and spread; from
then on the detector gets standard deviations, cut at +-``CLIP``, so that its settings mean the same on every signal.
After it has fired it warms up anew: the new level is what it watches from there.

- ``page-hinkley``: Page, "Continuous Inspection Schemes", Biometrika 1954. On independent normal observations it is
  a CUSUM, which fires by chance about every ``exp(2 * delta * threshold) / (2 * delta ** 2)`` of them on each side.
- ``adwin``: Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.

River is imported on first use: it takes 120 MB and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from agents.thresholds import DetectorRule
from models.metrics import Floats

__all__ = ["CLIP", "Detector", "DetectorState", "river_version"]

CLIP = 4.0
"""Standard deviations: one odd observation does not make a drift."""

_SMALLEST_SPREAD = 1e-9
_PAGE_HINKLEY = ("_sum_increase", "_sum_decrease", "_min_increase", "_max_decrease")


class DetectorState(msgspec.Struct, frozen=True, kw_only=True):
    """``Detector`` as JSON holds it. river: of the detector within, None before the warm-up is over."""

    pending: list[float]
    warm_up: list[float]
    level: float | None = None
    spread: float | None = None
    latest: float | None = None
    river: dict[str, float] | bytes | None = None


class Detector:
    """One detector, fed in event order; ``level``, ``spread`` and ``latest`` (observation) say what it saw.

    statistic: the highest that Page-Hinkley compared with its threshold in the last :meth:`feed`, in standard
    deviations; None where it compared nothing, and of ADWIN, which compares every cut of its window.
    """

    def __init__(self, rule: DetectorRule, state: DetectorState | None = None) -> None:
        """Raises ValueError for a state that River does not take."""
        self._rule = rule
        self._pending: list[float] = []
        self._warm_up: list[float] = []
        self._river: Any = None
        self.level: float | None = None
        self.spread: float | None = None
        self.latest: float | None = None
        self.statistic: float | None = None
        if state is not None:
            self._pending, self._warm_up = list(state.pending), list(state.warm_up)
            self.level, self.spread, self.latest = state.level, state.spread, state.latest
            if state.river is not None:
                self._river = _restored(rule, state.river)

    def feed(self, units: Floats) -> int:
        """Take in units (n,), in order; how often the detector fired meanwhile. How they are cut matters to
        ``statistic`` alone."""
        self.statistic = None
        values = np.concatenate([self._pending, units])
        n = len(values) // self._rule.every
        self._pending = values[n * self._rule.every :].tolist()
        observations = values[: n * self._rule.every].reshape(n, self._rule.every).mean(axis=1)
        return sum(map(self._observe, observations.tolist()))

    def state(self) -> DetectorState:
        return DetectorState(
            pending=self._pending,
            warm_up=self._warm_up,
            level=self.level,
            spread=self.spread,
            latest=self.latest,
            river=None if self._river is None else _state_of(self._river),
        )

    def _restart(self) -> None:
        self._warm_up, self._river, self.level, self.spread = [], None, None, None

    def _observe(self, value: float) -> bool:
        self.latest = value
        if self._river is None or self.level is None or self.spread is None:
            self._warm_up.append(value)
            if len(self._warm_up) == self._rule.warm_up:
                self._begin()
            return False
        self._river.update(_standardised(value, self.level, self.spread))
        if self._rule.kind == "page-hinkley":
            self.statistic = max(_statistic(self._river, self._rule.mode), self.statistic or 0.0)
        if not self._river.drift_detected:
            return False
        self._restart()
        return True

    def _begin(self) -> None:
        """River's detector starts with the warm-up behind it, in which it may not fire."""
        seen = np.array(self._warm_up)
        self.level, self.spread = float(seen.mean()), max(float(seen.std(ddof=1)), _SMALLEST_SPREAD)
        self._river = _made(self._rule)
        for value in self._warm_up:
            self._river.update(_standardised(value, self.level, self.spread))
        self._warm_up = []


def _standardised(value: float, level: float, spread: float) -> float:
    return min(max((value - level) / spread, -CLIP), CLIP)


def _statistic(river: Any, mode: str) -> float:
    """Of Page-Hinkley: how far its sums have moved from their extremes, in the directions that count."""
    up, down = river._sum_increase - river._min_increase, river._max_decrease - river._sum_decrease
    return float(up if mode == "up" else down if mode == "down" else max(up, down))


def river_version() -> str:
    """Of which a state is."""
    from importlib.metadata import version

    return version("river")


def _made(rule: DetectorRule) -> Any:
    from river import drift

    patience = rule.warm_up + 1
    if rule.kind == "adwin":
        adwin: Any = drift.ADWIN
        return adwin(delta=rule.delta, clock=1, grace_period=patience)
    return drift.PageHinkley(
        min_instances=patience, delta=rule.delta, threshold=rule.threshold, alpha=1.0, mode=rule.mode
    )


def _state_of(river: Any) -> dict[str, float] | bytes:
    """Its numbers; of ADWIN, which keeps them in Rust, the bytes that it restores itself from (no pickle)."""
    if (helper := getattr(river, "_helper", None)) is not None:
        held: bytes = helper.__getstate__()
        return held
    return {"n": river._x_mean.n, "mean": river._x_mean._mean} | {name: getattr(river, name) for name in _PAGE_HINKLEY}


def _restored(rule: DetectorRule, state: Mapping[str, float] | bytes) -> Any:
    river = _made(rule)
    if isinstance(state, bytes) != (rule.kind == "adwin"):
        raise ValueError(f"detector: expected the state of {rule.kind}, found another's")
    if isinstance(state, bytes):
        river._helper.__setstate__(state)
        return river
    if set(state) != {"n", "mean", *_PAGE_HINKLEY}:
        raise ValueError(f"detector: expected the numbers of {rule.kind}, found {', '.join(state)}")
    river._x_mean.n, river._x_mean._mean = state["n"], state["mean"]
    for name in _PAGE_HINKLEY:
        setattr(river, name, state[name])
    return river

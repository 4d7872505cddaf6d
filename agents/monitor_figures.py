"""A closed day as figures: what the store keeps of it, and the metrics that are published."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from agents.measures import ASSUMED, OF_FEEDBACK
from agents.metric_source import ASSUMED_LABEL, SIMULATED
from agents.monitor import ClosedDay
from agents.monitor_store import ClosedFigures, VariantFigures
from agents.run_monitor import RunMonitor, Variant
from agents.thresholds import Rule, Thresholds
from agents.variant_difference import ratio_difference, ratio_of
from models.bootstrap import Interval
from streams.records import Int64s

__all__ = ["Figure", "figures_of", "metrics_of"]

Figure = tuple[str, float, dict[str, str]]
"""Name, value and labels of a metric."""


def figures_of(day: ClosedDay, monitor: RunMonitor, *, whole: bool) -> ClosedFigures:
    """whole: the day is the last one closed, so that what variants have by now is theirs on that day."""
    return ClosedFigures(
        metrics=day.metrics,
        alerts=[alert.name for alert in day.alerts],
        severity=day.decision.severity,
        retrain=day.decision.retrain,
        version=monitor.version,
        n_late=day.n_late,
        variants=_variants(monitor) if whole else {},
    )


def _variants(monitor: RunMonitor) -> dict[str, VariantFigures]:
    shown = [variant.clicks.sums for name, variant in monitor.variants.items() if name in monitor.champions]
    champion = np.concatenate(shown) if shown else np.zeros((0, 2), np.int64)
    return {
        name: _of_variant(variant, None if name in monitor.champions else champion)
        for name, variant in sorted(monitor.variants.items())
    }


def _of_variant(variant: Variant, champion: Int64s | None) -> VariantFigures:
    difference = None if champion is None else ratio_difference(variant.clicks.sums, champion)
    return VariantFigures(
        measures={name: one.value for name, one in variant.measures.items() if one.value is not None},
        ctr=_plain(ratio_of(variant.clicks.sums)),
        difference=None if difference is None else _plain(difference),
        users=len(variant.clicks.user_id),
        simulated=variant.monitor.simulated,
    )


def _plain(interval: Interval) -> tuple[float, float, float]:
    found = (interval.value, interval.low, interval.high)
    return found if all(map(math.isfinite, found)) else (0.0, 0.0, 0.0)


def metrics_of(day: ClosedFigures, thresholds: Thresholds) -> Iterator[Figure]:
    """``monitors.MEASURE`` with its baseline and thresholds, detectors' readings and theirs, and the variants' figures.

    Whatever is insufficient is absent. What made-up users did has the label ``simulated``, what rests on assumptions
    ``assumed``.
    """
    for name, measured in day.metrics.measures.items():
        if measured.value is None:
            continue
        marks = _made_up(measured.simulated) | _assumed(name)
        yield f"monitors.{name}", measured.value, marks
        rule = thresholds.rules.get(name)
        if measured.baseline is not None:
            yield f"monitors.{name}.baseline", measured.baseline.value, marks
            for bound, change in _bounds(rule):
                limit = measured.baseline.value * (1 + change)
                yield f"monitors.{name}.threshold", limit, {"bound": bound} | marks
        elif rule is not None and rule.above is not None:
            yield f"monitors.{name}.threshold", rule.above, {"bound": "high"}
        yield f"monitors.{name}.breached_closes", measured.breached_closes, marks
        if rule is not None:
            yield f"monitors.{name}.for_days", rule.for_days, marks
    for name, reading in day.metrics.detectors.items():
        for what in ("level", "spread", "latest", "statistic"):
            if (value := getattr(reading, what)) is not None:
                yield f"monitors.detector.{what}", value, {"detector": name} | _made_up(reading.simulated)
        if (own := thresholds.detectors.get(name)) is not None:
            what, limit = ("significance", own.delta) if own.kind == "adwin" else ("threshold", own.threshold)
            yield f"monitors.detector.{what}", limit, {"detector": name} | _made_up(reading.simulated)
    for name, variant in day.variants.items():
        made_up = _made_up(variant.simulated)
        for measure, value in variant.measures.items():
            marks = (made_up if measure in OF_FEEDBACK else {}) | _assumed(measure)
            yield f"monitors.variant.{measure}", value, {"variant": name} | marks
        for bound, value in zip(("value", "low", "high"), variant.ctr, strict=True):
            yield "monitors.variant.ctr_since_start", value, {"variant": name, "bound": bound} | made_up
        for bound, value in zip(("value", "low", "high"), variant.difference or (), strict=False):
            yield "monitors.variant.ctr_difference", value, {"variant": name, "bound": bound} | made_up


def _made_up(simulated: bool) -> dict[str, str]:
    return SIMULATED if simulated else {}


def _assumed(name: str) -> dict[str, str]:
    return ASSUMED_LABEL if name in ASSUMED else {}


def _bounds(rule: Rule | None) -> Iterator[tuple[str, float]]:
    """Below and above what part of the baseline a rule is breached."""
    for name, bound, sign in (("fall", "low", -1), ("rise", "high", 1), ("change", "low", -1), ("change", "high", 1)):
        limit = getattr(rule, name, None)
        if limit is not None:
            yield bound, sign * limit

"""Whether a model is to be trained anew: a pure function of what was measured at a day close.

CRITICAL: a rule of that severity was breached long enough. SCHEDULE: several rules of that severity are, or one to
investigate while a detector fired within its window. INVESTIGATE only alerts. CRITICAL and SCHEDULE ask for a training
unless the last one was asked for within the cooldown.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from agents.measures import ASSUMED, Measure
from agents.thresholds import Rule, Severity, Thresholds
from streams.events import DAY_S
from streams.retrain import RetrainRequest

__all__ = [
    "Decision",
    "DetectorReading",
    "Metrics",
    "breaches",
    "evidence_of",
    "retrain_request",
    "rounded",
    "should_retrain",
]

_DIGITS = 6
_CHANGE_DIGITS = 9
"""A change that is a threshold but for rounding is at it: 0.85 of a baseline is a fall of 15 %."""


class DetectorReading(msgspec.Struct, frozen=True, kw_only=True):
    """A detector at a day close. fired_day: the last one on which it fired. level, spread, latest: of its signal.

    statistic: the highest that Page-Hinkley compared with its threshold on this day. simulated: the signal is made of
    what made-up users did.
    """

    signal: str
    fired_day: int | None = None
    level: float | None = None
    spread: float | None = None
    latest: float | None = None
    statistic: float | None = None
    simulated: bool = False


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision rests on. day: just closed, in days since the epoch. asked_day: of the last retrain event.

    offsets: of the log up to which this was measured, by partition.
    """

    day: int
    measures: dict[str, Measure]
    detectors: dict[str, DetectorReading] = {}
    asked_day: int | None = None
    offsets: dict[str, int] = {}

    @property
    def event_time(self) -> int:
        """The end of the day: seconds since the epoch."""
        return (self.day + 1) * DAY_S


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """severity: what was found, whether or not the cooldown lets it be asked for. retrain: whether it is."""

    severity: Severity | Literal["none"] = "none"
    retrain: bool = False
    reasons: list[str] = []
    evidence: dict[str, Any] = {}
    cooldown_until: int | None = None


def breaches(rule: Rule, measure: Measure) -> bool:
    """Whether a measure is at its threshold or beyond; never one that is insufficient, or has nothing to compare with.

    >>> from agents.measures import Baseline
    >>> rule = Rule(severity="critical", fall=0.15, window_days=1, min_sample=1)
    >>> measured = Measure(n=9, value=0.85, baseline=Baseline(1.0, "fixed"), first_day=1, last_day=1)
    >>> breaches(rule, measured), breaches(rule, msgspec.structs.replace(measured, value=0.8501))
    (True, False)
    """
    if measure.value is None:
        return False
    if rule.above is not None:
        return measure.value > rule.above
    change = _change(measure)
    if change is None:
        return False
    if rule.fall is not None:
        return change <= -rule.fall
    if rule.rise is not None:
        return change >= rule.rise
    return rule.change is not None and abs(change) >= rule.change


def should_retrain(metrics: Metrics, thresholds: Thresholds) -> Decision:
    """The decision at a day close, with its reasons and evidence (numbers of six digits)."""
    rules = thresholds.rules
    fired: dict[Severity, list[str]] = {"critical": [], "schedule": [], "investigate": []}
    for name, measured in metrics.measures.items():
        if breaches(rules[name], measured) and measured.breached_closes >= rules[name].for_days:
            fired[rules[name].severity].append(name)
    drifting = [name for name, reading in metrics.detectors.items() if reading.fired_day == metrics.day]
    confirmed = _confirmed(metrics, fired["investigate"])
    severity: Severity | Literal["none"] = "none"
    named = [*fired["schedule"], *fired["investigate"]]
    if fired["critical"]:
        severity, named = "critical", [*fired["critical"], *named]
    elif len(fired["schedule"]) >= thresholds.schedule_at_least or confirmed:
        severity = "schedule"
    elif named or drifting:
        severity = "investigate"
    asks = severity in ("critical", "schedule")
    until = None if metrics.asked_day is None else metrics.asked_day + thresholds.cooldown_days
    cooling = until is not None and metrics.day < until
    detectors = list(dict.fromkeys([*drifting, *confirmed]))
    return Decision(
        severity=severity,
        retrain=asks and not cooling,
        reasons=[
            *(_reason(name, rules[name], metrics.measures[name]) for name in named),
            *(f"drift of {metrics.detectors[name].signal} ({name})" for name in detectors),
        ],
        evidence=_evidence(metrics, thresholds, named, detectors) if severity != "none" else {},
        cooldown_until=until if asks and cooling else None,
    )


def retrain_request(decision: Decision, *, asked_by: str = "monitors") -> RetrainRequest:
    """What a decision to retrain publishes. Raises ValueError for one that asks for nothing."""
    if not decision.retrain or decision.severity not in ("critical", "schedule"):
        raise ValueError(f"decision: expected one to retrain, found {decision.severity}")
    severity: Literal["critical", "schedule"] = "critical" if decision.severity == "critical" else "schedule"
    return RetrainRequest(
        reason="; ".join(decision.reasons), severity=severity, asked_by=asked_by, evidence=decision.evidence
    )


def evidence_of(name: str, measured: Measure, thresholds: Thresholds) -> dict[str, Any]:
    """The measure ``name`` as evidence: JSON values, numbers of six digits, and the assumptions that it rests on."""
    found: dict[str, Any] = {
        "value": rounded(measured.value),
        "n": measured.n,
        "window": [_date(measured.first_day), _date(measured.last_day)],
        "breached_closes": measured.breached_closes,
        "severity": thresholds.rules[name].severity,
    }
    if measured.baseline is not None:
        found["baseline"] = rounded(measured.baseline.value)
        found["baseline_from"] = measured.baseline.origin
        found["change"] = rounded(_change(measured))
    if measured.simulated:
        found["simulated"] = True
    if name in ASSUMED:
        found["assumptions"] = msgspec.to_builtins(thresholds.assumptions)
    return found


def rounded(value: float | None) -> float | None:
    """As evidence holds it: six digits."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _confirmed(metrics: Metrics, names: list[str]) -> list[str]:
    """Detectors that fired within the window of a rule to investigate."""
    since = [metrics.measures[name].first_day for name in names]
    readings = metrics.detectors.items()
    return [name for name, r in readings if since and r.fired_day is not None and r.fired_day >= min(since)]


def _evidence(metrics: Metrics, thresholds: Thresholds, names: list[str], detectors: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: evidence_of(name, metrics.measures[name], thresholds) for name in names}
    if detectors:
        found["detectors"] = {name: _reading(metrics.detectors[name]) for name in detectors}
    found["closed"] = _date(metrics.day)
    found["offsets"] = metrics.offsets
    return found


def _reading(reading: DetectorReading) -> dict[str, Any]:
    fired = None if reading.fired_day is None else _date(reading.fired_day)
    found = {"signal": reading.signal, "fired": fired, "latest": rounded(reading.latest)}
    return found | {"simulated": True} if reading.simulated else found


def _reason(name: str, rule: Rule, measured: Measure) -> str:
    what = name.replace("_", " ")
    change = _change(measured)
    if rule.above is not None or change is None:
        return f"{what} {rounded(measured.value)} above {rule.above}"
    lasted = f" for {measured.breached_closes} days" if rule.for_days > 1 else ""
    return f"{what} {change * 100:+.1f} %{lasted}"


def _change(measured: Measure) -> float | None:
    if measured.value is None or measured.baseline is None or measured.baseline.value == 0:
        return None
    return round(measured.value / measured.baseline.value - 1, _CHANGE_DIGITS)


def _date(day: int) -> str:
    return f"{datetime.fromtimestamp(day * DAY_S, UTC):%Y-%m-%d}"

"""Whether a challenger takes the champion's place, and whether it keeps it: pure decisions over a trial."""

from __future__ import annotations

from typing import Any

from agents.jobs import Decision
from agents.thresholds import Gates
from models.bootstrap import Interval
from models.trials import Trial

__all__ = ["evidence_of", "judge_challenger", "judge_in_shadow", "too_few_slates"]

_DIGITS = 6


def too_few_slates(n_slates: int, gates: Gates) -> str | None:
    """The reason to reject without a trial; None where there are enough.

    >>> too_few_slates(499, Gates(min_slates=500))
    'too few slates: 499 of 500 since what the champion has learnt from'
    """
    if n_slates >= gates.min_slates:
        return None
    return f"too few slates: {n_slates:,} of {gates.min_slates:,} since what the champion has learnt from"


def judge_challenger(difference: Interval, confidence: float) -> tuple[Decision, str]:
    """Promote where the whole interval of (challenger - champion) lies above zero.

    >>> judge_challenger(Interval(0.01, -0.002, 0.02), 0.95)
    ('reject', 'inconclusive: CTR +0.0100, 95 % interval -0.0020 to +0.0200')
    """
    if difference.low > 0:
        return "promote", f"better: {_shown(difference, confidence)}"
    verdict = "worse" if difference.high < 0 else "inconclusive"
    return "reject", f"{verdict}: {_shown(difference, confidence)}"


def judge_in_shadow(difference: Interval, confidence: float) -> tuple[Decision, str]:
    """Roll back where the whole interval of (new champion - old champion) lies below zero.

    >>> [judge_in_shadow(Interval(-0.01, -0.02, high), 0.95)[0] for high in (-0.001, 0.001)]
    ['roll back', 'none']
    """
    if difference.high < 0:
        return "roll back", f"worse than the champion before: {_shown(difference, confidence)}"
    return "none", f"kept: {_shown(difference, confidence)}"


def evidence_of(trial: Trial, confidence: float) -> dict[str, Any]:
    """The trial as JSON values; newcomer and incumbent are challenger and champion, or new and old champion."""
    return {
        "window": [trial.start, trial.end],
        "slates": trial.n_slates,
        "users": trial.n_users,
        "newcomer_ctr": _plain(trial.newcomer.measures["ctr"]),
        "incumbent_ctr": _plain(trial.incumbent.measures["ctr"]),
        "difference": _plain(trial.difference),
        "confidence": confidence,
    }


def _plain(interval: Interval) -> list[float]:
    return [round(value, _DIGITS) for value in (interval.value, interval.low, interval.high)]


def _shown(difference: Interval, confidence: float) -> str:
    low, high = difference.low, difference.high
    return f"CTR {difference.value:+.4f}, {confidence * 100:g} % interval {low:+.4f} to {high:+.4f}"

"""Variants beside each other, as they were clicked: sums over feedback, with intervals. Pure, no Streamlit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dashboards.charts import Row
from models.bootstrap import Interval, ratio_interval
from models.metrics import Floats

__all__ = ["Variant", "control_of", "difference", "over_time", "variants_of", "wilson"]

_Z = 1.959964
"""95 % of a normal distribution lie within so many standard deviations."""
_BINS = 14
_MIN_SHOWN = 200
"""Movies shown: in a shorter stretch of time an interval is so wide that it tells nothing."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What was seen of one variant. ctr, ratings: with 95 % intervals, bootstrapped over users.

    ratings: by session that had a slate; median_s: its median length in seconds.
    """

    name: str
    n_slates: int
    n_users: int
    shown: int
    clicks: int
    ctr: Interval
    ratings: Interval
    median_s: float
    simulated: int


def variants_of(feedback: npt.NDArray[np.void], names: Sequence[str]) -> list[Variant]:
    """Each variant that has feedback, by name. feedback: rows of :data:`dashboards.live_records.FEEDBACK_ROW`."""
    found = []
    for code, name in sorted(enumerate(names), key=lambda pair: pair[1]):
        rows = feedback[feedback["variant"] == code]
        if not len(rows):
            continue
        users, owner = np.unique(rows["user_id"], return_inverse=True)

        def summed(
            values: npt.NDArray[np.generic], owner: npt.NDArray[np.int64] = owner, n: int = len(users)
        ) -> Floats:
            return np.bincount(owner, values, minlength=n).astype(np.float64)

        found.append(
            Variant(
                name=name,
                n_slates=len(rows),
                n_users=len(users),
                shown=int(rows["shown"].sum()),
                clicks=int(rows["clicks"].sum()),
                ctr=ratio_interval(summed(rows["clicks"]), summed(rows["shown"])),
                ratings=ratio_interval(summed(rows["ratings"]), summed(np.ones(len(rows)))),
                median_s=float(np.median(rows["seconds"])),
                simulated=int(rows["simulated"].sum()),
            )
        )
    return found


def control_of(variants: Sequence[Variant]) -> Variant | None:
    """What others are compared with: the champion, else the one that most was shown of."""
    named = next((one for one in variants if one.name == "champion"), None)
    return named or max(variants, key=lambda one: one.shown, default=None)


def difference(ours: Interval, theirs: Interval) -> Interval:
    """Of two independent values, from their intervals (MOVER, Zou and Donner, Statistics in Medicine 27, 2008).

    >>> difference(Interval(3.0, 2.0, 4.0), Interval(1.0, 1.0, 1.0))
    Interval(value=2.0, low=1.0, high=3.0)
    """
    value = ours.value - theirs.value
    low = value - math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    high = value + math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Interval(value, low, high)


def wilson(successes: int, trials: int) -> Interval:
    """A share with its 95 % interval (Wilson, JASA 22, 1927), of independent trials.

    >>> found = wilson(0, 10); found.value, round(found.low, 3), round(found.high, 3)
    (0.0, 0.0, 0.278)
    """
    if not trials:
        return Interval(math.nan, math.nan, math.nan)
    share, z2 = successes / trials, _Z * _Z
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def over_time(feedback: npt.NDArray[np.void], names: Sequence[str], bins: int = _BINS) -> list[Row]:
    """Click rate in percent by variant over event time, as rows of a chart, with Wilson's intervals.

    Stretches of time hold about as many slates each; one in which a variant has shown too little is left out.
    """
    if not len(feedback):
        return []
    edges = np.unique(np.quantile(feedback["event_time"], np.linspace(0, 1, bins + 1)).astype(np.int64))
    bin_of = np.clip(np.searchsorted(edges, feedback["event_time"], side="right") - 1, 0, max(len(edges) - 2, 0))
    rows: list[Row] = []
    for code, name in sorted(enumerate(names), key=lambda pair: pair[1]):
        mine = feedback["variant"] == code
        shown = np.bincount(bin_of[mine], feedback["shown"][mine], minlength=bins).astype(int)
        clicks = np.bincount(bin_of[mine], feedback["clicks"][mine], minlength=bins).astype(int)
        for i in np.flatnonzero(shown >= _MIN_SHOWN).tolist():
            interval = wilson(min(int(clicks[i]), int(shown[i])), int(shown[i]))
            rows.append(
                {
                    "t": float(edges[i]) * 1_000,
                    "value": 100 * interval.value,
                    "low": 100 * interval.low,
                    "high": 100 * interval.high,
                    "n": int(shown[i]),
                    "series": name,
                }
            )
    return rows

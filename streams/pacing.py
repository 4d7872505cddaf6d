"""When each rating of the live part is due: arrival patterns over arrays, and the clock they are held against.

A pattern gives the gaps between ratings in *virtual* seconds; a :class:`Pacer` says how many virtual seconds pass in a
second of wall time. So a run changes speed, pauses or is held up without touching what is already planned.

============ =========================================== ============================
arrival      gap before a rating, virtual seconds        pace, virtual seconds/second
============ =========================================== ============================
recorded     event time since the rating before          speed, or what makes the mean rate
steady       1                                           rate
poisson      exponential with mean 1                     rate
bursty       exponential, mean 0.1 in a burst of 20 on   rate
             average, 18.1 before each burst
============ =========================================== ============================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.clock import Clock
from streams.records import Int64s
from streams.ticks import BoundaryTicks

__all__ = ["ARRIVALS", "MAX_LAG_S", "Pacer", "Schedule", "arrival_gaps", "schedule"]

Float64s = npt.NDArray[np.float64]

ARRIVALS = ("recorded", "steady", "poisson", "bursty")
MAX_LAG_S = 1.0
"""How far a replay may fall behind before its schedule is moved, wall seconds."""

_BURST_SIZE = 20
_BURST_GAP = 0.1
_QUIET_GAP = _BURST_SIZE - (_BURST_SIZE - 1) * _BURST_GAP


def arrival_gaps(arrival: str, timestamps: Int64s, previous: int | None, rng: np.random.Generator) -> Float64s:
    """Gaps before each rating in virtual seconds: float64 (n,), with mean 1 for every arrival but "recorded".

    timestamps: int64 (n,), not falling; previous: the timestamp before, None at the start (no gap). The same
    generator gives the same gaps however the stream is cut into chunks.

    >>> arrival_gaps("recorded", np.array([10, 10, 25]), 7, np.random.default_rng(0))
    array([ 3.,  0., 15.])
    """
    n = len(timestamps)
    if arrival == "recorded":
        return np.diff(timestamps, prepend=timestamps[:1] if previous is None else previous).astype(np.float64)
    if arrival == "steady":
        return np.ones(n)
    if arrival == "poisson":
        return -np.log1p(-rng.random(n))
    draw = rng.random((n, 2))  # a row per rating: rows are drawn in order, so chunks do not matter
    mean = np.where(draw[:, 0] * _BURST_SIZE < 1, _QUIET_GAP, _BURST_GAP)
    gaps: Float64s = -np.log1p(-draw[:, 1]) * mean
    return gaps


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What is due when, in virtual seconds: ratings float64 (n,), boundary ticks (k,), both not falling.

    A tick is due when event time reaches it on the way from one rating to the next.
    """

    due: Float64s
    tick_due: Float64s
    _axis_due: Float64s
    _axis_time: Float64s

    def count_due(self, now: float) -> tuple[int, int]:
        """How many ratings, and how many ticks, are due at virtual time ``now``."""
        return int(np.searchsorted(self.due, now, "right")), int(np.searchsorted(self.tick_due, now, "right"))

    def next_due(self, sent: int, ticked: int) -> float:
        """When the first rating or tick after ``sent`` (< n) and ``ticked`` is due."""
        due = float(self.due[sent])
        return due if ticked == len(self.tick_due) else min(due, float(self.tick_due[ticked]))

    def event_time(self, now: float) -> int:
        """Event time at virtual time ``now``: between two ratings in proportion, never beyond the next one."""
        return int(np.interp(now, self._axis_due, self._axis_time))


def schedule(
    timestamps: Int64s, gaps: Float64s, ticks: BoundaryTicks, *, previous: int | None, previous_due: float
) -> Schedule:
    """The schedule of one chunk (n >= 1) that follows a rating at ``previous`` (event), ``previous_due`` (virtual)."""
    due = previous_due + np.cumsum(gaps)
    axis_due = np.concatenate(([previous_due], due))
    axis_time = np.concatenate(([timestamps[0] if previous is None else previous], timestamps)).astype(np.float64)
    at = ticks.position
    begin, end = axis_time[at], axis_time[at + 1]
    span = np.maximum(end - begin, 1.0)  # zero only at the start of a stream, where the tick is due at once
    share = np.clip((ticks.event_time - begin) / span, 0.0, 1.0)
    tick_due = np.minimum(axis_due[at] + share * (axis_due[at + 1] - axis_due[at]), due[at])
    return Schedule(due, tick_due, axis_due, axis_time)


class Pacer:
    """Virtual time against a clock: ``pace`` virtual seconds a second, ``math.inf`` for as fast as possible."""

    def __init__(self, clock: Clock, pace: float) -> None:
        self._clock = clock
        self._pace = pace
        self._paused = False
        self._anchor = 0.0
        self._anchor_at = clock.monotonic()
        self.shifted_s = 0.0

    @property
    def pace(self) -> float:
        return self._pace

    @property
    def paused(self) -> bool:
        return self._paused

    def now(self) -> float:
        """Virtual seconds since the start; inf when nothing is held back."""
        if self._paused:
            return self._anchor
        if math.isinf(self._pace):
            return math.inf
        return self._anchor + (self._clock.monotonic() - self._anchor_at) * self._pace

    def wait_s(self, due: float) -> float:
        """Wall seconds until virtual time ``due``; negative when it has passed."""
        if self._paused:
            return math.inf
        if math.isinf(self._pace):
            return 0.0
        return (due - self.now()) / self._pace

    def _move_to(self, virtual: float) -> None:
        self._anchor = virtual
        self._anchor_at = self._clock.monotonic()

    def pause(self, reached: float) -> None:
        """Stop virtual time; ``reached`` is how far the replay got, for a pace under which there is no now."""
        if not self._paused:
            self._move_to(self._now_or(reached))
            self._paused = True

    def resume(self) -> None:
        """Let virtual time go on from where it stopped."""
        if self._paused:
            self._paused = False
            self._move_to(self._anchor)

    def set_pace(self, pace: float, reached: float) -> None:
        """Go on at another pace, from now; from ``reached`` where the pace was as fast as possible."""
        self._move_to(self._now_or(reached))
        self._pace = pace

    def _now_or(self, reached: float) -> float:
        """Virtual time; ``reached`` where there is none, as nothing is held back or a huge pace has run off."""
        now = self.now()
        return now if math.isfinite(now) else reached

    def limit_lag(self, next_due: float) -> None:
        """Move the schedule where what is due next is more than MAX_LAG_S late, so that it is due now.

        A short hold-up is caught up at once and the schedule does not drift; after a long one (a stopped process, a
        sleeping laptop, a log that cannot keep up) event time goes on from where it stopped, with no flood.
        """
        late = -self.wait_s(next_due)
        if math.isfinite(late) and late > MAX_LAG_S:
            self.shifted_s += late
            self._move_to(next_due)

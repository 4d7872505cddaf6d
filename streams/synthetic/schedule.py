"""Who rates when: users, their sessions, and how many ratings each holds.

The laws are read off ml-latest-small and kept as few numbers. Half of the users come once and rate some dozens of
movies; the others come back, a few of them a thousand times, the shorter the more often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.events import DAY_S
from streams.records import Int64s
from streams.summary import SESSION_GAP_S
from streams.synthetic.draws import Draws
from streams.synthetic.options import MIN_PER_USER, SyntheticOptions

__all__ = ["FIRST_TIMESTAMP", "LAST_TIMESTAMP", "Schedule", "make_schedule"]

FIRST_TIMESTAMP = 828_124_615
"""1996-03-29, and below 2018-09-24: the span of ml-latest-small."""
LAST_TIMESTAMP = 1_537_799_250

# Share of the users who arrive in each year from 1996 to 2018.
_ARRIVALS = [97, 27, 9, 26, 48, 20, 14, 20, 11, 24, 23, 22, 22, 21, 15, 22, 25, 13, 8, 47, 32, 35, 29]
# Seconds between two ratings of a session, by quantile.
_GAP_AT = [0.0, 0.168, 0.17, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]
_GAP_S = [0.01, 0.01, 1.0, 3.0, 9.0, 26.0, 66.0, 459.0, 1799.0]

# Half of the users come back; how often is a Lomax law.
_RETURNING = 0.497
_RETURNS_SCALE, _RETURNS_TAIL, _MOST_RETURNS = 1.9, 0.95, 1050
# Ratings in a user's first session: lognormal.
_FIRST_MEDIAN, _FIRST_SIGMA = 44.0, 1.05
# Ratings in a later session: log-logistic, its median a power of how often the user comes back.
_LATER_LOG_MEDIAN, _LATER_SLOPE, _LATER_SCALE = 2.4, -0.36, 0.83
_LATER_MEAN = 3.37  # in medians, cut at the longest
_LONGEST = 1_019
# Of all ratings, those of first sessions; of a user, how many they may be on average; the most that later ones get.
_FIRST_SHARE, _MOST_FIRST, _MOST_LATER_SHARE = 0.465, 250.0, 0.7
# Days between sessions: lognormal, its median a power of how often the user comes back.
_PAUSE_MEDIAN_DAYS, _PAUSE_SLOPE, _PAUSE_SIGMA = 9.5, -0.3, 1.9
_LONGEST_LIFE = 0.9  # of the span
_SLICE = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Sessions ordered by (user, start); users and sessions count from 0.

    start: int64 (s,), seconds since the epoch. duration: int32 (s,), seconds. user: int32 (s,). rating_base: int64
    (s + 1,), number of the session's first rating when all are counted user by user. session_base: int64 (u + 1,), the
    user's first session.
    """

    start: Int64s
    duration: npt.NDArray[np.int32]
    user: npt.NDArray[np.int32]
    rating_base: Int64s
    session_base: Int64s
    draws: Draws

    def ratings_of(self, sessions: npt.NDArray[np.integer]) -> tuple[Int64s, Int64s]:
        """Number and time of every rating of ``sessions``, one session after the other."""
        lengths = self.rating_base[sessions + 1] - self.rating_base[sessions]
        numbers, firsts = spread(self.rating_base[sessions], lengths)
        return numbers, np.repeat(self.start[sessions], lengths) + _offsets(self.draws, numbers, firsts, lengths)


def spread(bases: Int64s, lengths: Int64s) -> tuple[Int64s, Int64s]:
    """``base, base + 1, ...`` for each base, joined; and where each begins in the result."""
    firsts = np.cumsum(lengths) - lengths
    return np.repeat(bases - firsts, lengths) + np.arange(lengths.sum()), firsts


def _gap_table() -> Int64s:
    at = (np.arange(4096) + 0.5) / 4096
    return np.exp(np.interp(at, _GAP_AT, np.log(_GAP_S))).astype(np.int64)


_GAPS = _gap_table()


def _offsets(draws: Draws, numbers: Int64s, firsts: Int64s, lengths: Int64s) -> Int64s:
    """Seconds from the start of its session to each rating."""
    gaps = _GAPS[(draws.bits("gap", numbers) >> np.uint64(52)).astype(np.int64)]
    gaps[firsts] = 0
    passed = np.cumsum(gaps)
    return passed - np.repeat(passed[firsts], lengths)


def make_schedule(options: SyntheticOptions, draws: Draws) -> Schedule:
    """The sessions of all users; their lengths add up to ``options.ratings``."""
    returns = _returns(options, draws)
    session_base = np.concatenate([[0], np.cumsum(returns + 1)])
    lengths = _lengths(options, draws, returns, session_base)
    rating_base = np.concatenate([[0], np.cumsum(lengths)])
    user = np.repeat(np.arange(options.users, dtype=np.int32), returns + 1)
    duration = _durations(draws, rating_base)
    start = _starts(draws, returns, session_base, user, duration)
    return Schedule(start, duration, user, rating_base, session_base, draws)


def _returns(options: SyntheticOptions, draws: Draws) -> Int64s:
    """How often each user comes back: a Lomax law, scaled so that the ratings are enough for first visits too."""
    survival = np.minimum(draws.ranks("returns", options.users), _RETURNING)
    law = (1 + _RETURNS_SCALE) * (survival / _RETURNING) ** (-1 / _RETURNS_TAIL) - _RETURNS_SCALE
    law = np.where(survival < _RETURNING, np.minimum(law, _MOST_RETURNS), 0.0)
    wanted = options.ratings - min(_FIRST_SHARE * options.ratings, _MOST_FIRST * options.users)
    low, high = 0.0, 64.0
    for _ in range(40):
        middle = (low + high) / 2
        returns = np.floor(law * middle)
        later = _LATER_MEAN * np.exp(_LATER_LOG_MEDIAN) * returns[returns > 0] ** (1 + _LATER_SLOPE)
        low, high = (middle, high) if later.sum() < wanted else (low, middle)
    most = options.movies // 8
    return np.minimum(np.floor(law * high), most).astype(np.int64)


def _lengths(options: SyntheticOptions, draws: Draws, returns: Int64s, session_base: Int64s) -> Int64s:
    """Ratings per session; first visits take what the later ones leave."""
    sessions = np.arange(session_base[-1])
    often = np.repeat(np.maximum(returns, 1), returns + 1)
    chance = draws.uniform("length", sessions)
    exact = (chance / (1 - chance)) ** _LATER_SCALE * np.exp(_LATER_LOG_MEDIAN) * often**_LATER_SLOPE
    lengths: Int64s = np.clip(np.rint(exact), 1, _LONGEST).astype(np.int64)
    first = session_base[:-1]
    lengths[first] = 0
    cap = options.movies // 4
    total = np.add.reduceat(lengths, first)
    shrink = np.repeat(np.minimum(1.0, (cap - returns - 1) / np.maximum(total, 1)), returns + 1)
    shrink *= min(1.0, _MOST_LATER_SHARE * options.ratings / max(1, int(total.sum())))
    lengths = np.maximum((lengths * shrink).astype(np.int64), np.int64(1))
    lengths[first] = 0
    later = np.add.reduceat(lengths, first)
    left = options.ratings - int(later.sum())
    room = np.minimum(cap - later, _LONGEST)
    least: Int64s = np.clip(MIN_PER_USER - later, 1, room)
    if least.sum() > left:
        least = np.ones_like(least)
    wish = np.exp(draws.normal("first length", np.arange(options.users)) * _FIRST_SIGMA) * _FIRST_MEDIAN
    lengths[first] = _fill(wish, least, room, left)
    return lengths


def _fill(wish: npt.NDArray[np.float64], least: Int64s, most: Int64s, total: int) -> Int64s:
    """``wish`` scaled to integers from ``least`` to ``most`` that add up to ``total``."""
    low, high = 0.0, float(most.max()) / float(wish.min()) + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(wish * middle, least, most).sum() < total else (low, middle)
    exact = np.clip(wish * high, least, most)
    filled = np.diff(np.floor(np.cumsum(exact) + 1e-6), prepend=0).astype(np.int64)
    filled[np.argmax(most - filled)] += total - int(filled.sum())
    return filled


def _durations(draws: Draws, rating_base: Int64s) -> npt.NDArray[np.int32]:
    """Seconds from the first to the last rating of each session, in slices that bound the memory."""
    durations = np.empty(len(rating_base) - 1, np.int32)
    cuts = np.searchsorted(rating_base, np.arange(0, rating_base[-1], _SLICE))
    for begin, end in zip(cuts, [*cuts[1:], len(durations)], strict=True):
        bases = rating_base[begin : end + 1]
        if len(bases) > 1:
            lengths = np.diff(bases)
            numbers, firsts = spread(bases[:-1], lengths)
            durations[begin:end] = _offsets(draws, numbers, firsts, lengths)[firsts + lengths - 1]
    return durations


def _starts(
    draws: Draws, returns: Int64s, session_base: Int64s, user: npt.NDArray[np.int32], duration: npt.NDArray[np.int32]
) -> Int64s:
    """When each session starts: the user's arrival, then pauses that are never shorter than the session gap."""
    often = np.repeat(np.maximum(returns, 1), returns + 1)
    first, last = session_base[:-1], session_base[1:] - 1
    pause = np.exp(draws.normal("pause", np.arange(len(user))) * _PAUSE_SIGMA) * (_PAUSE_MEDIAN_DAYS * DAY_S)
    pause *= often**_PAUSE_SLOPE
    pause[first] = 0
    passed = np.cumsum(pause)
    passed -= np.repeat(passed[first], returns + 1)
    span = LAST_TIMESTAMP - FIRST_TIMESTAMP
    passed *= np.repeat(np.minimum(1.0, _LONGEST_LIFE * span / np.maximum(passed[last], 1)), returns + 1)
    busy = duration + np.int64(SESSION_GAP_S + 1)
    earliest = np.cumsum(busy) - busy  # when a user who never paused would start
    earliest -= np.repeat(earliest[first], returns + 1)
    far = np.int64(1) << 36  # above any span: keeps one user's running maximum out of the next user's
    slack = passed.astype(np.int64) - earliest + user * far
    start: Int64s = np.maximum.accumulate(slack) - user * far + earliest
    life = start[last] + duration[last]
    arrival = _arrivals(draws, len(first))
    fits = arrival + life <= LAST_TIMESTAMP
    anywhere = FIRST_TIMESTAMP + draws.uniform("late arrival", np.arange(len(first))) * (span - life)
    start += np.repeat(np.where(fits, arrival, anywhere.astype(np.int64)), returns + 1)
    return start


def _arrivals(draws: Draws, n: int) -> Int64s:
    """When each of n users comes first."""
    years = np.concatenate([[0.0], np.cumsum(_ARRIVALS)]) / sum(_ARRIVALS)
    times = np.linspace(FIRST_TIMESTAMP, LAST_TIMESTAMP, len(years))
    return np.interp(draws.ranks("arrival", n), years, times).astype(np.int64)

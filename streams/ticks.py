"""Where event time moves: the boundary ticks of a stream of ratings. Pure functions over arrays.

A boundary tick stands before the first rating of each event day that has ratings, with the start of that day (UTC) as
its event time. After a gap of many days only the last boundary is written: one tick closes all that ended before
it, so empty days cost nothing. The positions depend on the ratings alone, never on chunks, speed or restarts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streams.events import DAY_S, EARLIEST_TIMESTAMP
from streams.records import Int64s

__all__ = ["BoundaryTicks", "boundary_ticks", "end_of_run_time"]


class BoundaryTicks(NamedTuple):
    """Ticks of one chunk: tick ``k`` stands before rating ``position[k]`` of the chunk and says ``event_time[k]``."""

    position: Int64s
    event_time: Int64s


def boundary_ticks(timestamps: Int64s, previous: int | None) -> BoundaryTicks:
    """The boundary ticks of a chunk of ratings.

    timestamps: int64 (n,), not falling. previous: timestamp of the last rating before the chunk, None for the start
    of the stream, where the first day begins with a tick of its own.

    >>> boundary_ticks(np.array([86_399, 86_400, 86_401, 900_000]), previous=86_398)
    BoundaryTicks(position=array([1, 3]), event_time=array([ 86400, 864000]))
    """
    days = timestamps // DAY_S
    before = np.empty_like(days)
    before[1:] = days[:-1]
    before[:1] = np.iinfo(np.int64).min if previous is None else previous // DAY_S
    position = np.flatnonzero(days > before)
    return BoundaryTicks(position, days[position] * DAY_S)


def end_of_run_time(last: int | None, now: int) -> int:
    """Event time of the last tick: the day boundary after the ``last`` rating, but never after ``now``.

    A run without ratings (``last`` None) ends at the earliest event time there is.

    >>> end_of_run_time(86_401, now=2_000_000_000)
    172800
    """
    if last is None:
        return EARLIEST_TIMESTAMP
    return max(min((last // DAY_S + 1) * DAY_S, now), last)

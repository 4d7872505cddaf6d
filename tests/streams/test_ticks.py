from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import DAY_S, EARLIEST_TIMESTAMP
from streams.ticks import boundary_ticks, end_of_run_time

timestamps = st.lists(st.integers(EARLIEST_TIMESTAMP, EARLIEST_TIMESTAMP + 40 * DAY_S), min_size=1, max_size=60).map(
    sorted
)


def ticks_of(times: list[int], cuts: list[int] | None = None) -> list[tuple[int, int]]:
    """(ratings before the tick, event time), computed in chunks that end at ``cuts``."""
    found: list[tuple[int, int]] = []
    previous = None
    edges = sorted({0, len(times), *(cut % (len(times) + 1) for cut in cuts or [])})
    for start, stop in pairwise(edges):
        ticks = boundary_ticks(np.array(times[start:stop]), previous)
        found += zip((ticks.position + start).tolist(), ticks.event_time.tolist(), strict=True)
        previous = times[stop - 1]
    return found


@given(timestamps)
def test_every_rating_lies_between_the_boundaries_around_it(times: list[int]) -> None:
    ticks = ticks_of(times)
    closed = -1
    at = dict(ticks)
    for i, timestamp in enumerate(times):
        closed = at.get(i, closed)
        assert closed <= timestamp < closed + DAY_S


@given(timestamps)
def test_each_day_with_ratings_opens_with_one_tick_and_empty_days_with_none(times: list[int]) -> None:
    event_times = [event_time for _, event_time in ticks_of(times)]
    assert event_times == sorted({t // DAY_S * DAY_S for t in times})


@given(timestamps, st.lists(st.integers(0, 100), max_size=8))
def test_chunks_do_not_matter(times: list[int], cuts: list[int]) -> None:
    assert ticks_of(times, cuts) == ticks_of(times)


def test_a_gap_of_months_costs_one_tick() -> None:
    assert ticks_of([DAY_S * 10_000, DAY_S * 10_222 + 5]) == [(0, DAY_S * 10_000), (1, DAY_S * 10_222)]


def test_a_rating_at_midnight_belongs_to_the_day_it_opens() -> None:
    midnight = DAY_S * 10_000
    assert ticks_of([midnight - 1, midnight, midnight]) == [(0, midnight - DAY_S), (1, midnight)]


@pytest.mark.parametrize(
    ("last", "now", "expected"),
    [
        (DAY_S * 10_000 + 7, DAY_S * 20_000, DAY_S * 10_001),
        (DAY_S * 10_000, DAY_S * 20_000, DAY_S * 10_001),
        (DAY_S * 10_000 + 7, DAY_S * 10_000 + 90, DAY_S * 10_000 + 90),
        (DAY_S * 10_000 + 7, DAY_S * 9_999, DAY_S * 10_000 + 7),  # by a wall clock that was set back
        (None, DAY_S * 20_000, EARLIEST_TIMESTAMP),
    ],
)
def test_a_run_ends_with_its_last_day_but_never_in_the_future_or_before_it(
    last: int | None, now: int, expected: int
) -> None:
    assert end_of_run_time(last, now) == expected

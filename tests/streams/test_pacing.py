import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.clock import ManualClock
from streams.events import DAY_S
from streams.pacing import ARRIVALS, MAX_LAG_S, Pacer, Schedule, arrival_gaps, schedule
from streams.ticks import boundary_ticks

DAY_0 = 10_000 * DAY_S


def plan(timestamps: list[int], gaps: list[float]) -> Schedule:
    times = np.array(timestamps)
    return schedule(times, np.array(gaps), boundary_ticks(times, None), previous=None, previous_due=0.0)


def test_recorded_keeps_the_gaps_as_they_were_however_long() -> None:
    times = np.array([DAY_0, DAY_0 + 3, DAY_0 + 3, DAY_0 + 222 * DAY_S])
    gaps = arrival_gaps("recorded", times, None, np.random.default_rng(0))
    assert gaps.tolist() == [0.0, 3.0, 0.0, 222 * DAY_S - 3.0]


@pytest.mark.parametrize("arrival", ["steady", "poisson", "bursty"])
def test_the_mean_gap_is_one(arrival: str) -> None:
    gaps = arrival_gaps(arrival, np.zeros(400_000, np.int64), None, np.random.default_rng(1))
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1.0, rel=0.03)


def test_arrivals_differ_in_how_uneven_they_are() -> None:
    spread = {
        arrival: float(arrival_gaps(arrival, np.zeros(100_000, np.int64), None, np.random.default_rng(1)).std())
        for arrival in ("steady", "poisson", "bursty")
    }
    assert spread["steady"] == 0
    assert spread["poisson"] == pytest.approx(1.0, rel=0.05)
    assert spread["bursty"] > 3


@given(st.sampled_from(ARRIVALS), st.integers(1, 200), st.integers(0, 200), st.integers(0, 5))
def test_chunks_do_not_matter_to_gaps(arrival: str, n: int, cut: int, seed: int) -> None:
    times = np.sort(np.random.default_rng(seed).integers(DAY_0, DAY_0 + DAY_S, n))
    cut = min(cut, n)
    whole = arrival_gaps(arrival, times, None, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    first = arrival_gaps(arrival, times[:cut], None, rng)
    second = arrival_gaps(arrival, times[cut:], int(times[cut - 1]) if cut else None, rng)
    assert np.concatenate([first, second]).tolist() == whole.tolist()


def test_a_tick_is_due_when_event_time_reaches_it_not_with_the_next_rating() -> None:
    times = [DAY_0 + 86_000, DAY_0 + DAY_S + 40_000]
    p = plan(times, [0.0, 40_400.0])
    assert p.tick_due.tolist() == [0.0, 400.0]
    assert p.count_due(399.0) == (1, 1)
    assert p.count_due(400.0) == (1, 2)


@given(
    st.lists(st.integers(DAY_0, DAY_0 + 9 * DAY_S), min_size=1, max_size=50).map(sorted),
    st.lists(st.floats(0, 10), min_size=50, max_size=50),
)
def test_no_rating_is_due_before_the_ticks_that_stand_before_it(times: list[int], gaps: list[float]) -> None:
    p = plan(times, gaps[: len(times)])
    ticks = boundary_ticks(np.array(times), None)
    assert (p.tick_due <= p.due[ticks.position]).all()
    assert (np.diff(p.tick_due) >= 0).all()
    for due in p.due.tolist():
        ratings, ticked = p.count_due(due)
        assert (ticks.position[ticked:] >= ratings).all()


def test_event_time_runs_between_ratings_and_stops_at_the_next() -> None:
    p = plan([DAY_0, DAY_0 + 1_000], [0.0, 10.0])
    assert [p.event_time(v) - DAY_0 for v in (0.0, 5.0, 10.0, 99.0)] == [0, 500, 1_000, 1_000]


def test_a_pacer_turns_wall_time_into_virtual_time() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 86_400.0)
    clock.advance(2.0)
    assert pacer.now() == 2 * 86_400
    assert pacer.wait_s(3 * 86_400) == pytest.approx(1.0)


def test_a_change_of_pace_holds_from_now_on() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 10.0)
    clock.advance(1.0)
    pacer.set_pace(1.0, reached=8.0)
    clock.advance(1.0)
    assert pacer.now() == 11.0


def test_virtual_time_stands_still_while_paused() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 10.0)
    clock.advance(1.0)
    pacer.pause(reached=7.0)
    clock.advance(1_000.0)
    assert pacer.now() == 10.0
    assert pacer.wait_s(11.0) == math.inf
    pacer.set_pace(20.0, reached=7.0)
    pacer.resume()
    clock.advance(1.0)
    assert pacer.now() == 30.0


def test_as_fast_as_possible_can_slow_down_from_where_it_got() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, math.inf)
    assert pacer.now() == math.inf
    pacer.set_pace(2.0, reached=500.0)
    clock.advance(1.0)
    assert pacer.now() == 502.0


def test_a_pace_beyond_all_numbers_can_pause_and_slow_down_like_any_other() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 1e308)
    clock.advance(60.0)
    assert pacer.now() == math.inf
    pacer.pause(reached=500.0)
    pacer.set_pace(2.0, reached=500.0)
    pacer.resume()
    clock.advance(1.0)
    assert pacer.now() == 502.0


def test_a_short_hold_up_is_caught_up() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 100.0)
    clock.advance(1.0 + MAX_LAG_S * 0.9)
    pacer.limit_lag(next_due=100.0)
    assert pacer.now() == pytest.approx(100.0 + 90.0)
    assert pacer.shifted_s == 0


def test_a_long_hold_up_moves_the_schedule() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 100.0)
    clock.advance(61.0)
    pacer.limit_lag(next_due=100.0)
    assert pacer.now() == 100.0
    assert pacer.shifted_s == pytest.approx(60.0)


def test_waiting_for_a_far_rating_is_no_hold_up() -> None:
    clock = ManualClock()
    pacer = Pacer(clock, 1.0)
    clock.advance(3_600.0)
    pacer.limit_lag(next_due=7_200.0)
    assert pacer.now() == 3_600.0

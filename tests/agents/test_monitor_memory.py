"""What a monitor remembers from one close to the next, over a promotion, and over a restart."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from agents.measures import Baseline, Measure
from agents.monitor import ClosedDay, Monitor
from agents.monitor_columns import FeedbackColumns, RatingColumns, SlateColumns
from agents.thresholds import DetectorRule
from streams.events import DAY_S
from tests.agents.monitor_days import DAY_0, LIVE, alerted, feedback, ratings, tuned, watch


def ctr_of(closed: list[ClosedDay]) -> list[Measure]:
    return [day.metrics.measures["ctr"] for day in closed]


def with_clicks(*clicks: tuple[int, int]) -> dict[int, tuple[RatingColumns, FeedbackColumns | None]]:
    """Live days, each of so many sessions with so many clicks."""
    return {LIVE + i: (ratings(LIVE + i), feedback(LIVE + i, c, n)) for i, (n, c) in enumerate(clicks)}


def test_a_thin_day_between_two_breaches_neither_counts_nor_starts_anew() -> None:
    thresholds = msgspec.structs.replace(tuned(ctr={"for_days": 2}), longest_days=1)
    closed = watch(thresholds, with_clicks((100, 50), (100, 5), (49, 49), (100, 5), (100, 5)))
    assert [(m.sufficient, m.breached_closes) for m in ctr_of(closed)] == [
        *((True, 0), (True, 1), (False, 1), (True, 2), (True, 3))
    ]
    assert alerted(closed) == [(3, "ctr")]


def test_a_sufficient_day_that_is_no_breach_starts_anew_and_the_next_alert_is_told_again() -> None:
    low, well = (100, 5), (100, 50)
    closed = watch(tuned(ctr={"for_days": 2}), with_clicks(well, low, well, low, low, low, well, low, low))
    assert [m.breached_closes for m in ctr_of(closed)] == [0, 1, 0, 1, 2, 3, 0, 1, 2]
    assert alerted(closed) == [(4, "ctr"), (8, "ctr")]
    assert [day.decision.retrain for day in closed] == [day == 4 for day in range(9)], "then it cools down"


@pytest.mark.parametrize(("longest", "n"), [(3, 60), (2, 40)])
def test_a_window_that_would_be_longer_than_the_longest_is_insufficient(longest: int, n: int) -> None:
    """Sessions of 20 a day: 60 take three days."""
    thresholds = msgspec.structs.replace(tuned(ctr={"min_sample": 60, "for_days": 1}), longest_days=longest)
    *_, last = ctr_of(watch(thresholds, with_clicks(*[(20, 5)] * 3)))
    assert (last.sufficient, last.n) == (longest == 3, n)
    assert last.first_day == LIVE + 3 - longest


def test_a_window_is_of_all_its_days_though_fewer_would_hold_its_sample() -> None:
    fixed = msgspec.structs.replace(tuned(ctr={"window_days": 3}), baselines={"ctr": 0.05})
    *_, last = ctr_of(watch(fixed, with_clicks(*[(100, 50)] * 3, (100, 20))))
    assert (last.first_day, last.n, last.value) == (LIVE + 1, 300, 0.04)
    assert (last.baseline, last.breached_closes) == (Baseline(0.05, "fixed"), 1)
    closed = ctr_of(watch(tuned(ctr={"window_days": 3}), with_clicks(*[(100, 50)] * 3)))
    assert [m.sufficient for m in closed] == [False, False, True], "days before the live part had no slates"


@pytest.mark.parametrize(("n_before", "sufficient"), [(50, True), (49, False)])
def test_volume_needs_its_sample_in_the_days_before(n_before: int, sufficient: bool) -> None:
    days = {LIVE - 1: (ratings(LIVE - 1, n_before), None), LIVE: (ratings(LIVE, 1_000), None)}
    (closed,) = watch(tuned(volume={}), days)
    assert closed.metrics.measures["volume"].sufficient is sufficient


def slates(day: int) -> SlateColumns:
    """A hundred users are shown movies 1 to 10."""
    return SlateColumns(
        timestamp=np.full(100, day * DAY_S),
        user_id=np.arange(100),
        source=np.zeros(100, np.int64),
        event_id=day * 1_000 + np.arange(100),
        movie_ids=np.tile(np.arange(1, 11), (100, 1)),
        sources=("loop",),
    )


def test_another_champion_is_measured_by_what_is_its_own() -> None:
    """Its windows begin with it, closes are counted anew, slates of the other are forgotten, and it has learnt more."""
    thresholds = tuned(ctr={"min_sample": 100, "for_days": 3}, precision={}, popularity_kl={}, new_user_share={})
    monitor = Monitor(thresholds, LIVE * DAY_S)
    for day in range(DAY_0, LIVE):
        monitor.add(ratings=ratings(day))
    for day, clicks in enumerate((50, 5, 5), LIVE):  # breached on two closes; movies that training did not know
        monitor.add(ratings=ratings(day, movies=[77] * 100), feedback=feedback(day, clicks), slates=slates(day))
    before = monitor.close(LIVE + 2)
    assert [m.breached_closes for m in ctr_of(before)] == [0, 1, 2]
    assert before[-1].metrics.measures["popularity_kl"].breached_closes == 3
    monitor.promoted(LIVE + 2, {})
    for day in range(LIVE + 3, LIVE + 13):
        monitor.add(ratings=ratings(day), feedback=feedback(day, 5, 60))
    after = monitor.close(LIVE + 12)
    first, second, third, *_ = ctr_of(after)
    assert (first.sufficient, second.sufficient, second.first_day, second.baseline) == (False, True, LIVE + 3, None)
    assert (third.sufficient, third.breached_closes) == (False, 0), "the first window is not judged itself"
    assert ctr_of(after)[3].baseline is not None
    assert all(day.metrics.measures["precision"].n == 0 for day in after), "slates of the one before were judged"
    assert "ctr" not in {name for _, name in alerted(after)}
    shares = [day.metrics.measures["new_user_share"].baseline for day in (before[-1], after[-1])]
    assert shares[0] == shares[1], "that of training stays"
    monitor.add(ratings=ratings(LIVE + 13, movies=[77] * 100))
    (again,) = monitor.close(LIVE + 13)
    known = again.metrics.measures["popularity_kl"].value
    unknown = before[0].metrics.measures["popularity_kl"].value
    assert known is not None
    assert unknown is not None
    assert known < unknown, "movies that came since training are known by now"


def test_closes_that_the_one_before_was_breached_on_are_not_counted_for_another_champion() -> None:
    monitor, found = Monitor(tuned(ctr={"for_days": 3}), LIVE * DAY_S), []
    for day, clicks in enumerate((50, 5, 5, 5, 5, 5), LIVE):
        monitor.add(ratings=ratings(day), feedback=feedback(day, clicks))
        found += monitor.close(day)
        if day == LIVE + 2:
            monitor.promoted(day, {"ctr": 0.05})
    assert [m.breached_closes for m in ctr_of(found)] == [0, 1, 2, 1, 2, 3]
    assert alerted(found) == [(5, "ctr")]


def test_detectors_of_what_a_champion_makes_warm_up_anew_with_another() -> None:
    rules = {
        name: DetectorRule(signal=name, warm_up=20, threshold=1e6)
        for name in ("ctr", "abs_error", "popularity", "rating", "volume", "new_user", "session_length")
    }
    monitor = Monitor(msgspec.structs.replace(tuned(), detectors=rules), LIVE * DAY_S)
    for day in range(DAY_0, LIVE + 12):
        monitor.add(ratings=ratings(day), feedback=feedback(day, 5))
    (*_, before) = monitor.close(LIVE + 11)
    monitor.promoted(LIVE + 11, {})
    monitor.add(ratings=ratings(LIVE + 12, 10), feedback=feedback(LIVE + 12, 5, 10))
    (after,) = monitor.close(LIVE + 12)
    warm = [{name for name, one in day.metrics.detectors.items() if one.level is not None} for day in (before, after)]
    assert warm == [set(rules), {"rating", "volume", "new_user", "session_length"}]


EVERYTHING = msgspec.structs.replace(
    tuned(ctr={"for_days": 3}, volume={}, precision={}, new_user_share={}, rating_kl={}, rmse={"min_sample": 150}),
    detectors={
        "stars": DetectorRule(signal="rating", warm_up=300, threshold=9.0),
        "clicks": DetectorRule(signal="ctr", kind="adwin", every=2, warm_up=20, delta=0.5),
    },
    cooldown_days=4,
)


def closes(*, restarts: bool) -> tuple[list[ClosedDay], bytes]:
    """A stream in which everything happens: alerts that last, retrain events, a detector that fires, a promotion."""
    random = np.random.default_rng(1)
    monitor, found = Monitor(EVERYTHING, LIVE * DAY_S), []
    for day in range(DAY_0, LIVE + 25):
        live = day - LIVE
        rated = ratings(day, 60 if live == 16 else 100, off=1.0 if live > 12 else 0.5)
        moved = 3 if 15 <= live <= 17 else 0
        monitor.add(ratings=replace(rated, half_stars=random.integers(2, 6, len(rated)) + moved))
        if live >= 0:
            monitor.add(feedback=feedback(day, 50 if live in (0, 9) else 5), slates=slates(day))
        found += monitor.close(day)
        if live == 10:
            monitor.promoted(day, {"ctr": 0.05})
        if restarts:
            monitor = Monitor.from_json(monitor.to_json(), EVERYTHING)
    return found, monitor.to_json()


def test_a_restart_after_every_day_changes_no_day_whatever_happens() -> None:
    whole, state = closes(restarts=False)
    told = {name for _, name in alerted(whole)}
    assert told >= {"ctr", "stars", "rmse", "rating_kl"}
    asked = [day.metrics.day - LIVE for day in whole if day.decision.retrain]
    assert len(asked) >= 3
    assert min(np.diff(asked)) >= EVERYTHING.cooldown_days
    restarted, its_state = closes(restarts=True)
    assert restarted == whole
    assert its_state == state

"""The monitor over whole streams: thin windows, promotions, late ratings, and that cuts and restarts change nothing."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.measures import Baseline
from agents.monitor import Monitor
from agents.monitor_columns import FeedbackColumns, RatingColumns, SlateColumns
from agents.thresholds import DetectorRule
from streams.errors import StateOutdated
from streams.events import DAY_S
from tests.agents.monitor_days import DAY_0, LIVE, alerted, feedback, ratings, tuned, watch


def test_a_window_reaches_back_for_its_sample_and_a_thin_one_is_neither_breach_nor_recovery() -> None:
    thresholds = tuned(ctr={"min_sample": 100, "for_days": 2})
    days = {LIVE: (ratings(LIVE), feedback(LIVE, 50))}
    for day, n, clicks in ((1, 100, 10), (2, 60, 6), (3, 60, 6)):
        days[LIVE + day] = (ratings(LIVE + day), feedback(LIVE + day, clicks, n))
    windows = [day.metrics.measures["ctr"] for day in watch(thresholds, days)]
    assert [(w.first_day - LIVE, w.n, w.breached_closes) for w in windows] == [
        (0, 100, 0),
        (1, 100, 1),
        (1, 160, 2),
        (2, 120, 3),
    ]
    thin = {LIVE: days[LIVE], LIVE + 1: (ratings(LIVE + 1), feedback(LIVE + 1, 0, 99))}
    assert watch(thresholds, thin)[1].metrics.measures["ctr"].value is None
    assert alerted(watch(thresholds, thin)) == []


def test_a_promotion_begins_anew_with_the_baselines_of_the_new_champion() -> None:
    monitor = Monitor(tuned(ctr={"for_days": 1}), LIVE * DAY_S)
    monitor.add(ratings=ratings(LIVE), feedback=feedback(LIVE, 100))
    monitor.close(LIVE)
    monitor.promoted(LIVE, {"ctr": 0.05})
    monitor.add(ratings=ratings(LIVE + 1), feedback=feedback(LIVE + 1, 50))
    (closed,) = monitor.close(LIVE + 1)
    measured = closed.metrics.measures["ctr"]
    assert (measured.baseline, closed.alerts) == (
        Baseline(0.05, "champion"),
        [],
    )


def test_precision_and_ndcg_are_told_once_the_next_seven_days_are_over() -> None:
    """User 0 is shown movies 1 to 10 and likes movie 2 a day later; nobody else is shown anything."""
    monitor = Monitor(tuned(precision={"min_sample": 1}, ndcg={"min_sample": 1}), LIVE * DAY_S)
    slate = SlateColumns(
        timestamp=np.array([LIVE * DAY_S]),
        user_id=np.array([0]),
        source=np.array([0]),
        event_id=np.array([1]),
        movie_ids=np.arange(1, 11)[None, :],
        sources=("run",),
    )
    monitor.add(slates=slate)
    for day in range(LIVE, LIVE + 9):
        monitor.add(ratings=ratings(day, 1, stars=4.0 if day == LIVE + 1 else 1.0, movies=[2]))
    told = {day.metrics.day - LIVE: day.metrics.measures for day in monitor.close(LIVE + 8)}
    assert told[5]["precision"].value is None
    assert told[6]["precision"].value == pytest.approx(0.1)
    assert told[6]["ndcg"].value == pytest.approx(1 / np.log2(3))


def test_late_ratings_count_with_the_day_that_is_closed_next() -> None:
    monitor = Monitor(tuned(volume={}), LIVE * DAY_S)
    monitor.add(ratings=ratings(LIVE))
    monitor.close(LIVE)
    monitor.add(ratings=ratings(LIVE, 3))
    assert monitor.close(LIVE) == []
    monitor.add(ratings=ratings(LIVE + 1, 5))
    (closed,) = monitor.close(LIVE + 1)
    assert closed.n_late == 3


def test_the_day_on_which_a_detector_fires_tells_how_far_it_went() -> None:
    rule = DetectorRule(signal="rating", warm_up=500, threshold=9.0)
    thresholds = msgspec.structs.replace(tuned(), detectors={"stars": rule})
    random = np.random.default_rng(0)
    days = {}
    for day in range(DAY_0, LIVE + 5):
        rated = ratings(day)
        days[day] = (replace(rated, half_stars=random.integers(1, 5, 100) + (4 if day >= LIVE + 2 else 0)), None)
    closed = watch(thresholds, days)
    assert alerted(closed) == [(2, "stars")]
    told = [day.metrics.detectors["stars"].statistic for day in closed]
    assert [statistic is not None and statistic > 9.0 for statistic in told] == [False, False, True, False, False]
    assert told[3:] == [None, None], "it warms up anew"


def test_a_drift_alert_has_six_digits() -> None:
    rule = DetectorRule(signal="rating", every=7, warm_up=70, threshold=9.0)
    random = np.random.default_rng(0)
    days = {}
    for day in range(DAY_0, LIVE + 3):
        days[day] = (replace(ratings(day), half_stars=random.integers(1, 5, 100) + (4 if day >= LIVE else 0)), None)
    closed = watch(msgspec.structs.replace(tuned(), detectors={"stars": rule}), days)
    (day,) = (day for day in closed if day.alerts)
    latest = day.metrics.detectors["stars"].latest
    assert latest is not None
    assert day.alerts[0].evidence["latest"] == float(f"{latest:.6g}") != latest


def random_stream(seed: int) -> tuple[RatingColumns, FeedbackColumns]:
    random = np.random.default_rng(seed)
    days = range(DAY_0, LIVE + 12)
    rated = [
        ratings(d, 40, users=random.integers(0, 60, 40).tolist(), stars=float(random.integers(1, 6))) for d in days
    ]
    told = [feedback(d, int(random.integers(0, 40)), 40) for d in days if d >= LIVE]
    return RatingColumns.concat(rated), FeedbackColumns.concat(told)


WATCHED = msgspec.structs.replace(
    tuned(ctr={}, rmse={}, volume={}, new_user_share={}, popularity_kl={}, rating_kl={}),
    detectors={
        "a": DetectorRule(signal="rating", warm_up=20, threshold=3.0),
        "b": DetectorRule(signal="ctr", kind="adwin", warm_up=20, delta=0.5),
    },
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 5), cuts=st.integers(1, 7), saved=st.sets(st.integers(DAY_0, LIVE + 11), max_size=3))
def test_any_cut_order_and_restart_gives_the_same(seed: int, cuts: int, saved: set[int]) -> None:
    rated, told = random_stream(seed)
    whole = Monitor(WATCHED, LIVE * DAY_S)
    whole.add(ratings=rated, feedback=told)
    expected = whole.close(LIVE + 11)
    monitor, found = Monitor(WATCHED, LIVE * DAY_S), []
    shuffled = np.random.default_rng(seed).permutation(len(rated))
    for part in np.array_split(shuffled, cuts):
        monitor.add(ratings=rated.take(part))
    monitor.add(feedback=told)
    for day in range(DAY_0, LIVE + 12):
        found += monitor.close(day)
        if day in saved:
            monitor = Monitor.from_json(monitor.to_json(), WATCHED)
    assert found == expected
    assert monitor.to_json() == whole.to_json()


def test_a_state_that_does_not_fit_is_refused() -> None:
    monitor = Monitor(WATCHED, LIVE * DAY_S)
    rated, told = random_stream(1)
    monitor.add(ratings=rated, feedback=told)
    monitor.close(LIVE + 11)
    data = monitor.to_json()
    with pytest.raises(StateOutdated, match=r"expected thresholds .* found .*; delete it"):
        Monitor.from_json(data, tuned(ctr={}))
    with pytest.raises(StateOutdated, match=r"expected river .*, found 0\.0\.1"):
        Monitor.from_json(data.replace(b'"river":"', b'"river":"0.0.1","was":"', 1), WATCHED)
    with pytest.raises(StateOutdated, match="expected crc32"):
        Monitor.from_json(data.replace(b'"live_day":14010', b'"live_day":14011', 1), WATCHED)
    with pytest.raises(StateOutdated, match="expected JSON of its schema"):
        Monitor.from_json(data[:-20], WATCHED)

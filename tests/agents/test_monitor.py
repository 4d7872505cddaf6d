"""The monitor over whole streams: what crosses a threshold, what is thin, and that cuts and restarts change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.measures import Baseline
from agents.monitor import ClosedDay, Monitor
from agents.monitor_columns import FeedbackColumns, RatingColumns, SlateColumns
from agents.thresholds import DetectorRule, Thresholds, default_thresholds
from streams.errors import StateOutdated
from streams.events import DAY_S

DAY_0, LIVE = 14_000, 14_010


def tuned(**rules: dict[str, object]) -> Thresholds:
    """The default ones with small samples, and only the rules named, without detectors."""
    default = default_thresholds()
    held = {
        name: msgspec.structs.replace(default.rules[name], **({"min_sample": 50, "window_days": 1} | changed))
        for name, changed in rules.items()
    }
    return msgspec.structs.replace(default, rules=held, detectors={}, baseline_days=5, longest_days=60)


def ratings(
    day: int, n: int = 100, stars: float = 4.0, off: float = 0.5, users: Sequence[int] = (), movies: Sequence[int] = ()
) -> RatingColumns:
    """``n`` of a day, ten seconds apart, each predicted ``off`` stars too high."""
    number = np.arange(n)
    return RatingColumns(
        timestamp=day * DAY_S + number * 10,
        user_id=np.array(users or range(n), np.int64),
        movie_id=np.array(movies or [1 + i % 10 for i in range(n)], np.int64),
        half_stars=np.full(n, round(stars * 2)),
        predicted=np.full(n, stars + off, np.float32),
        source=np.zeros(n, np.int64),
        event_id=day * 1_000 + number,
        sources=("run",),
    )


def feedback(day: int, clicks: int, n: int = 100, length: int = 10) -> FeedbackColumns:
    """``n`` sessions of one slate of 10 each, ``clicks`` on all of them together."""
    number = np.arange(n)
    return FeedbackColumns(
        timestamp=day * DAY_S + 5_000 + number,
        user_id=number,
        n_shown=np.full(n, 10),
        n_clicked=(number < clicks).astype(np.int64),
        n_ratings=np.full(n, length),
        simulated=np.zeros(n, bool),
        source=np.zeros(n, np.int64),
        event_id=day * 1_000 + number,
        sources=("run",),
    )


def watch(thresholds: Thresholds, days: dict[int, tuple[RatingColumns, FeedbackColumns | None]]) -> list[ClosedDay]:
    monitor, closed = Monitor(thresholds, LIVE * DAY_S), []
    for day, (rated, told) in days.items():
        monitor.add(ratings=rated, feedback=told)
        closed += monitor.close(day)
    return closed


def alerted(closed: list[ClosedDay]) -> list[tuple[int, str]]:
    return [(day.metrics.day - LIVE, alert.name) for day in closed for alert in day.alerts]


@pytest.mark.parametrize(("clicks", "alerts"), [(85, [(7, "ctr")]), (86, [])])
def test_ctr_down_by_15_percent_for_7_days_is_critical(clicks: int, alerts: list[tuple[int, str]]) -> None:
    days = {LIVE: (ratings(LIVE), feedback(LIVE, 100))}
    days |= {day: (ratings(day), feedback(day, clicks)) for day in range(LIVE + 1, LIVE + 9)}
    closed = watch(tuned(ctr={}), days)
    assert alerted(closed) == alerts
    assert [day.decision.retrain for day in closed] == [False] * 7 + [bool(alerts), False]  # then it cools down


@pytest.mark.parametrize(("length", "fires"), [(8, True), (9, False)])
def test_sessions_a_fifth_shorter_for_14_days_are_critical(length: int, fires: bool) -> None:
    days = {LIVE: (ratings(LIVE), feedback(LIVE, 10))}
    days |= {day: (ratings(day), feedback(day, 10, length=length)) for day in range(LIVE + 1, LIVE + 15)}
    assert alerted(watch(tuned(ratings_per_session={}), days)) == ([(14, "ratings_per_session")] if fires else [])


@pytest.mark.parametrize(("sessions", "fires"), [(90, True), (91, False)])
def test_revenue_down_by_a_tenth_for_30_days_is_critical(sessions: int, fires: bool) -> None:
    days = {LIVE: (ratings(LIVE), feedback(LIVE, 0))}
    days |= {day: (ratings(day), feedback(day, 0, n=sessions)) for day in range(LIVE + 1, LIVE + 31)}
    assert alerted(watch(tuned(revenue_per_user={}), days)) == ([(30, "revenue_per_user")] if fires else [])


@pytest.mark.parametrize(("off", "fires"), [(0.525, True), (0.524, False)])
def test_rmse_up_by_a_twentieth_alerts(off: float, fires: bool) -> None:
    days = {LIVE: (ratings(LIVE), None), LIVE + 1: (ratings(LIVE + 1, off=off + 1e-7), None)}
    assert alerted(watch(tuned(rmse={}), days)) == ([(1, "rmse")] if fires else [])


@pytest.mark.parametrize(("n", "fires"), [(70, True), (71, False), (129, False), (130, True)])
def test_volume_off_by_three_tenths_alerts(n: int, fires: bool) -> None:
    days = {day: (ratings(day), None) for day in range(DAY_0, LIVE)}
    days |= {LIVE: (ratings(LIVE, n), None)}
    assert alerted(watch(tuned(volume={}), days)) == ([(0, "volume")] if fires else [])


@pytest.mark.parametrize(("new", "fires"), [(25, True), (24, False), (16, False), (15, True)])
def test_a_quarter_more_or_fewer_new_users_alert(new: int, fires: bool) -> None:
    """Of 100 users a day, 20 come for the first time."""

    def users(day: int, n_new: int) -> list[int]:
        fresh = [1_000 * day + i for i in range(n_new)]
        return [*range(100 - n_new), *fresh]

    days = {DAY_0: (ratings(DAY_0), None)}  # before those that the baseline is of
    days |= {day: (ratings(day, users=users(day, 20)), None) for day in range(DAY_0 + 1, LIVE)}
    days |= {LIVE: (ratings(LIVE, users=users(LIVE, new)), None)}
    assert alerted(watch(tuned(new_user_share={}), days)) == ([(0, "new_user_share")] if fires else [])


@pytest.mark.parametrize(("shifted", "fires"), [(50, True), (5, False)])
def test_other_movies_than_in_training_alert(shifted: int, fires: bool) -> None:
    popular = [1 + i % 10 for i in range(100)]
    days = {day: (ratings(day, movies=popular), None) for day in range(DAY_0, LIVE)}
    days |= {LIVE: (ratings(LIVE, movies=[999] * shifted + popular[shifted:]), None)}
    assert alerted(watch(tuned(popularity_kl={}), days)) == ([(0, "popularity_kl")] if fires else [])


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

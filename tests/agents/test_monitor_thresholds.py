"""Each threshold, on a stream that is built to reach it, and on one that stays just under."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from agents.monitor import Monitor
from agents.monitor_columns import SlateColumns
from agents.thresholds import DetectorRule
from models.metrics import Floats
from streams.events import DAY_S
from tests.agents.monitor_days import DAY_0, LIVE, alerted, feedback, ratings, tuned, watch


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
    closed = watch(tuned(revenue_per_user={}), days)
    assert alerted(closed) == ([(30, "revenue_per_user")] if fires else [])
    for alert in closed[-1].alerts:
        assert alert.evidence["assumptions"] == {"dollars_per_click": 0.1, "dollars_per_session": 0.05}


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


@pytest.mark.parametrize(("new", "fires"), [(25, True), (24, False), (16, False), (15, True)])
def test_a_quarter_more_or_fewer_new_movies_alert(new: int, fires: bool) -> None:
    """Of 100 movies a day, 20 are rated for the first time."""

    def movies(day: int, n_new: int) -> list[int]:
        return [*range(100 - n_new), *(1_000 * day + i for i in range(n_new))]

    days = {DAY_0: (ratings(DAY_0, movies=movies(DAY_0, 0)), None)}  # before those that the baseline is of
    days |= {day: (ratings(day, movies=movies(day, 20)), None) for day in range(DAY_0 + 1, LIVE)}
    days |= {LIVE: (ratings(LIVE, movies=movies(LIVE, new)), None)}
    assert alerted(watch(tuned(new_item_share={}), days)) == ([(0, "new_item_share")] if fires else [])


def first_above(distances: list[float], limit: float = 0.1) -> int:
    return next(n for n, distance in enumerate(distances) if distance > limit)


def distance(found: Floats, expected: Floats) -> float:
    """Kullback-Leibler, by the book; half a count in each bin."""
    p, q = (found + 0.5) / (found + 0.5).sum(), (expected + 0.5) / (expected + 0.5).sum()
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))


def bins(**counts: int) -> Floats:
    held = np.zeros(10)
    for name, n in counts.items():
        held[int(name[1:])] = n
    return held


@pytest.mark.parametrize("fires", [True, False])
def test_ratings_that_move_from_four_stars_to_five_alert(fires: bool) -> None:
    training = bins(_5=500, _7=500)  # a thousand: half of three stars, half of four
    n = first_above([distance(bins(_5=50, _7=50 - n, _9=n), training) for n in range(51)]) - (not fires)
    half_stars = np.repeat([6, 8], 50)
    days = {day: (replace(ratings(day), half_stars=half_stars), None) for day in range(DAY_0, LIVE)}
    days |= {LIVE: (replace(ratings(LIVE), half_stars=np.repeat([6, 8, 10], [50, 50 - n, n])), None)}
    assert alerted(watch(tuned(rating_kl={}), days)) == ([(0, "rating_kl")] if fires else [])


@pytest.mark.parametrize("fires", [True, False])
def test_movies_that_move_from_the_most_rated_to_the_others_alert(fires: bool) -> None:
    """Ten movies, each a tenth of training, so a decile each; unknown ones are of the last."""
    training = np.full(10, 100.0)
    shifted = [bins(**{f"_{decile}": 10 for decile in range(1, 9)}, _0=10 - n, _9=10 + n) for n in range(10)]
    more = [bins(**{f"_{d}": 10 - n for d in range(9)}, _9=10 + 9 * n) for n in range(1, 10)]
    found = [distance(one, training) for one in [*shifted, *more]]
    n = first_above(found) - (not fires)
    counts = [*shifted, *more][n].astype(int)
    days = {day: (ratings(day), None) for day in range(DAY_0, LIVE)}
    days |= {LIVE: (ratings(LIVE, movies=np.repeat([*range(1, 10), 999], counts).tolist()), None)}
    assert alerted(watch(tuned(popularity_kl={}), days)) == ([(0, "popularity_kl")] if fires else [])


@pytest.mark.parametrize(
    ("name", "liked", "fires"),
    [("precision", 90, True), ("precision", 91, False), ("ndcg", 92, True), ("ndcg", 93, False)],
)
def test_lists_that_hold_less_of_what_is_liked_alert(name: str, liked: int, fires: bool) -> None:
    """A hundred users a day are shown movies 1 to 10 and then like movie 1; on the second day so many still do."""
    monitor = Monitor(tuned(**{name: {}}), LIVE * DAY_S)
    for day, n in ((LIVE, 100), (LIVE + 1, liked)):
        users = 100 * (day - LIVE) + np.arange(100)
        monitor.add(
            slates=SlateColumns(
                timestamp=np.full(100, day * DAY_S),
                user_id=users,
                source=np.zeros(100, np.int64),
                event_id=users,
                movie_ids=np.tile(np.arange(1, 11), (100, 1)),
                sources=("loop",),
            ),
            ratings=ratings(day, users=users.tolist(), movies=[1] * n + [999] * (100 - n)),
        )
    for day in range(LIVE + 2, LIVE + 9):
        monitor.add(ratings=ratings(day, 1, stars=1.0, users=[9_999]))
    assert alerted(monitor.close(LIVE + 8)) == ([(7, name)] if fires else [])


def test_a_rule_to_investigate_asks_for_a_training_where_a_detector_fires_in_its_window() -> None:
    """Half as many rate, which alone is to be looked at; where they are harsher, too, a model is trained."""
    random = np.random.default_rng(3)
    stars = msgspec.structs.replace(
        tuned(volume={}), detectors={"stars": DetectorRule(signal="rating", warm_up=300, threshold=12.0)}
    )
    decided = []
    for harsher in (0, 4):
        days = {
            day: (replace(ratings(day), half_stars=5 + random.integers(0, 5, 100)), None) for day in range(DAY_0, LIVE)
        }
        days[LIVE] = (replace(ratings(LIVE, 50), half_stars=5 - harsher + random.integers(0, 5, 50)), None)
        (closed,) = watch(stars, days)
        decided.append((closed.decision.severity, closed.decision.retrain))
    assert decided == [("investigate", False), ("schedule", True)]

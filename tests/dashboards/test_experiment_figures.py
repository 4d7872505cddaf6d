"""Variants side by side: what is compared with what, and how stretches of time are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dashboards.experiment_figures import control_of, difference, over_time, variants_of
from dashboards.live_records import FEEDBACK_ROW
from dashboards.production_figures import lag_rows
from dashboards.recommender import shelves
from dashboards.store_probe import StoreView
from featurestore.features import History
from models.bootstrap import Interval
from models.serving import Answer
from streams.dataset import Movie


def feedback(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """Of (event time, variant, shown, clicks), each of a user of its own."""
    made = np.zeros(len(rows), FEEDBACK_ROW)
    for i, (event_time, variant, shown, clicks) in enumerate(rows):
        made[i] = (event_time, i, variant, shown, clicks, 1, 60, False)
    return made


def test_a_difference_takes_the_near_side_of_one_interval_and_the_far_side_of_the_other() -> None:
    found = difference(Interval(5.0, 4.0, 7.0), Interval(2.0, 1.5, 4.0))
    assert found.value == 3.0
    assert found.low == pytest.approx(3 - math.hypot(1.0, 2.0))
    assert found.high == pytest.approx(3 + math.hypot(2.0, 0.5))


def test_the_champion_is_the_control_however_little_it_was_shown() -> None:
    rows = feedback((1, 0, 900, 9), (2, 1, 10, 1))
    found = control_of(variants_of(rows, ["big", "champion"]))
    assert found is not None
    assert found.name == "champion"
    found = control_of(variants_of(rows, ["big", "small"]))
    assert found is not None
    assert found.name == "big"
    assert control_of([]) is None


def test_stretches_with_too_little_shown_are_left_out() -> None:
    drawn = over_time(feedback((0, 0, 200, 10), (10, 0, 199, 10), (20, 0, 300, 30)), ["a"], bins=2)
    assert [(row["t"], row["n"]) for row in drawn] == [(0.0, 200), (10_000.0, 499)]
    drawn = over_time(feedback((0, 0, 199, 10), (10, 0, 100, 10), (20, 0, 300, 30)), ["a"], bins=2)
    assert [row["n"] for row in drawn] == [400]


def test_a_store_ahead_of_the_last_look_at_the_bus_lags_by_nothing() -> None:
    (row,) = lag_rows({0: 10}, StoreView())
    assert row.lag is None
    ahead = type(row)(0, end=10, applied=12, clock=0)
    assert ahead.lag == 0


def test_genres_of_shelves_are_those_of_movies_that_were_liked() -> None:
    """Four stars and more: whoever panned all dramas gets no shelf of them."""
    movies = {m: Movie(m, f"M{m} (1990)", 1990, ("Drama",) if m % 2 else ("Comedy",)) for m in range(20)}
    answer = Answer("champion", "v", np.arange(20), np.arange(20, 0, -1).astype(np.float32), cold=False)
    rated = History(np.arange(3), np.array([1, 3, 2]), np.array([1.0, 3.5, 4.0]), np.zeros(3, bool))
    assert [shelf.title for shelf in shelves(answer, rated, movies, k=4)] == ["Top picks", "More Comedy"]

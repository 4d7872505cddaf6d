"""Two models on the same slates: windows, and that worse ones are told from better ones."""

from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Interactions
from models.kinds import make_model
from models.recommender import Recommender
from models.side_features import SideFeatures
from models.trials import hold_trial, shortest_window, slate_times
from streams.events import DAY_S

START, END = 50 * DAY_S, 80 * DAY_S


def world(seed: int) -> Interactions:
    """Even users like even movies: 24 ratings a day by 100 users, each a session of its own."""
    random = np.random.default_rng(seed)
    movies = np.stack([random.permutation(np.arange(user % 2, 60, 2)) for user in range(100)])
    n = np.arange(80 * 24)
    return Interactions(n % 100, movies[n % 100, n // 100], np.full(len(n), 4.0), n * 3_600)


def fitted(kind: str, ratings: Interactions) -> Recommender:
    return make_model(kind).fit(ratings.before(START), SideFeatures.none())


@pytest.mark.parametrize("seed", range(24))
def test_a_better_one_is_never_below_zero_and_a_worse_one_is(seed: int) -> None:
    ratings = world(seed)
    good, bad = fitted("ease", ratings), fitted("popularity", ratings)
    up, down = (
        hold_trial(*pair, ratings, SideFeatures.none(), start=START, end=END) for pair in ((good, bad), (bad, good))
    )
    assert up.difference.low > 0
    assert down.difference.high < 0
    assert (up.n_slates, up.n_users) == (30 * 24, 100)
    assert up.difference.value == -down.difference.value
    assert up.newcomer.measures["ctr"] == down.incumbent.measures["ctr"]


def test_the_same_model_is_no_better() -> None:
    ratings = world(0)
    same = hold_trial(*[fitted("ease", ratings)] * 2, ratings, SideFeatures.none(), start=START, end=END).difference
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_window_is_the_shortest_that_holds_the_slates() -> None:
    ratings = world(0)
    assert shortest_window(ratings, least_slates=240, not_before=START) == (70 * DAY_S, 240)
    assert shortest_window(ratings, least_slates=30 * 24, not_before=START) == (START, 30 * 24)
    assert shortest_window(ratings, least_slates=30 * 24 + 1, not_before=START) == (START, 30 * 24)
    at_once = Interactions([1, 2, 3], [7, 7, 7], [4.0] * 3, [100, 900, 900])
    assert shortest_window(at_once, least_slates=1, not_before=0) == (900, 2), "of one moment all count"
    assert slate_times(Interactions([1] * 12, range(12), [4.0] * 12, range(12)), 0).tolist() == [0, 10]

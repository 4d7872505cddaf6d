"""What is held out lies after what is learnt."""

from __future__ import annotations

import numpy as np

from models.holdout import hold_out_last
from models.recommender import TrainingData
from models.side_features import SideFeatures


def data(n_users: int, n_each: int = 10) -> TrainingData:
    row = np.repeat(np.arange(n_users), n_each)
    column = np.tile(np.arange(n_each), n_users)
    ids = np.arange(2 * n_each)  # half of them nobody rated
    time = 1_000 * row + column
    features = SideFeatures.none().of_movies(ids)
    return TrainingData(np.arange(n_users), ids, row, column, np.full(len(row), 4.0, np.float32), time, features)


def test_the_last_tenth_of_the_users_is_held_out_its_later_ratings_wanted() -> None:
    held = hold_out_last(data(200))
    assert held is not None
    training, holdout = held
    assert training.n_users == 180
    assert training.timestamp.max() < holdout.given.timestamp.min()
    assert holdout.given.lengths.tolist() == [8] * 20
    assert holdout.wanted.toarray()[0].tolist() == [0] * 8 + [1, 1] + [0] * 10


def test_ndcg_of_the_right_and_of_the_wrong_order() -> None:
    held = hold_out_last(data(200))
    assert held is not None
    falling = np.tile(-np.arange(20, dtype=np.float32), (20, 1))
    assert held[1].ndcg(falling) == 1.0  # what was given comes first, and is left out
    assert held[1].ndcg(-falling) < 0.4


def test_too_few_users_are_not_held_out() -> None:
    assert hold_out_last(data(50)) is None

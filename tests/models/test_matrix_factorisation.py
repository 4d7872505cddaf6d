from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Histories, Interactions
from models.matrix_factorisation import MatrixFactorization
from models.recommender import Epoch
from streams.errors import ModelError
from tests.models.two_tastes import newcomers, of_own_taste, two_tastes


@pytest.fixture(scope="module")
def model() -> MatrixFactorization:
    return MatrixFactorization(factors=8, rating_factors=4, epochs=10).fit(two_tastes())


def test_two_tastes_are_learnt(model: MatrixFactorization) -> None:
    assert of_own_taste(model.recommend_for_history(newcomers(), 10).movie_ids) > 0.9


def test_stars_follow_taste(model: MatrixFactorization) -> None:
    ratings = two_tastes()
    stars = model.predict(ratings.user_id, ratings.movie_id)
    assert np.abs(stars - ratings.rating).mean() < 0.3
    lovers = Histories.of([([0, 2, 4, 1], [4.5, 4.5, 4.5, 1.5], [1, 2, 3, 4])] * 2)
    of_own, of_other = model.predict_for_history(lovers, [20, 21])
    assert of_own - of_other > 1.5


def test_a_user_of_training_is_answered_as_their_history_is(model: MatrixFactorization) -> None:
    users = model.user_ids[:20]
    own = Histories.of_users(two_tastes(), users)
    assert model.recommend(users, 10).movie_ids.tolist() == model.recommend_for_history(own, 10).movie_ids.tolist()
    movies = np.arange(20)
    np.testing.assert_allclose(model.predict(users, movies), model.predict_for_history(own, movies), atol=1e-4)


def test_the_loss_decreases() -> None:
    epochs: list[Epoch] = []
    MatrixFactorization(factors=8, rating_factors=4, epochs=6).fit(two_tastes(), on_epoch=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[1].loss < epochs[0].loss


def test_a_user_without_ratings_gets_the_movies_average() -> None:
    ratings = Interactions([*range(30)] * 2, [10] * 30 + [20] * 30, [5.0] * 30 + [1.0] * 30)
    small = MatrixFactorization(factors=2, rating_factors=1).fit(ratings)
    good, bad = small.predict([99, 99], [10, 20])
    assert good > 3.5
    assert bad < 2.5


@pytest.mark.parametrize("wrong", [{"factors": 0}, {"l2": 0.0}, {"unrated_weight": -1.0}, {"epochs": 0}])
def test_hyperparameters_that_cannot_be_used(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MatrixFactorization(**wrong)  # type: ignore[arg-type]


def test_equations_without_a_solution_are_no_model() -> None:
    ratings = two_tastes()
    with pytest.raises(ModelError, match="diverged"):
        MatrixFactorization(factors=8, rating_factors=4, l2=1e38, epochs=2).fit(ratings)

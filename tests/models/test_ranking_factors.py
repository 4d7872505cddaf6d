from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Histories
from models.ranking_factors import RankingTrainer, ranking_users, turned_to_axes
from models.recommender import TrainingData
from models.side_features import SideFeatures

WEIGHT, L2 = 0.3, 0.05


def data_of(rated: np.ndarray) -> TrainingData:
    row, column = np.nonzero(rated)
    n, m = rated.shape
    stars, times = np.ones(len(row), np.float32), np.zeros(len(row), np.int64)
    return TrainingData(np.arange(n), np.arange(m), row, column, stars, times, SideFeatures.none())


def trainer(rated: np.ndarray, factors: int = 3, weight: float = WEIGHT, l2: float = L2) -> RankingTrainer:
    return RankingTrainer(data_of(rated), factors=factors, unrated_weight=weight, l2=l2, seed=0, device="cpu")


def by_normal_equations(rated: np.ndarray, movies: np.ndarray) -> np.ndarray:
    """The users, one by one, as the formula of the docstring says."""
    users = []
    for line in rated:
        l2 = L2 * (line.sum() + WEIGHT * len(line))
        matrix = movies.T @ np.diag(line + WEIGHT) @ movies + l2 * np.eye(movies.shape[1])
        users.append(np.linalg.solve(matrix, movies.T @ line))
    return np.array(users)


@pytest.fixture
def rated() -> np.ndarray:
    """12 x 9, with rows of one rating, of fewer than there are factors, of more, and a movie nobody rated."""
    rated = (np.random.default_rng(3).random((12, 9)) < 0.5).astype(float)
    rated[0], rated[1] = np.eye(9)[2], np.eye(9)[3] + np.eye(9)[4]
    rated[:, 8] = 0.0
    return rated


def test_a_step_is_the_normal_equations_solved(rated: np.ndarray) -> None:
    model = trainer(rated)
    for _ in range(3):
        before = model.movies.astype(np.float64)
        model.sweep()
        users = by_normal_equations(rated, before)
        turned = by_normal_equations_of_movies(rated, users)
        np.testing.assert_allclose(model.movies, turned, rtol=2e-3, atol=2e-4)


def by_normal_equations_of_movies(rated: np.ndarray, users: np.ndarray) -> np.ndarray:
    movies = by_normal_equations(rated.T, users)
    movies[rated.sum(0) == 0] = 0.0
    return movies


def test_fold_in_is_the_normal_equations_solved(rated: np.ndarray) -> None:
    model = trainer(rated)
    model.sweep()
    row, column = np.nonzero(rated)
    start = np.searchsorted(row, np.arange(len(rated) + 1))
    histories = Histories(start, column, np.ones(len(row), np.float32), np.zeros(len(row), np.int64))
    movies, spectrum = turned_to_axes(model.movies)
    np.testing.assert_allclose(movies @ movies.T, model.movies @ model.movies.T, atol=1e-5)
    users = ranking_users(movies, spectrum, histories, unrated_weight=WEIGHT, l2=L2)
    np.testing.assert_allclose(users, by_normal_equations(rated, movies.astype(np.float64)), rtol=2e-3, atol=2e-4)


def test_the_objective_falls(rated: np.ndarray) -> None:
    model = trainer(rated, l2=1e-4)
    losses = [model.sweep() for _ in range(8)]
    assert losses[-1] < losses[0]


def test_blocks_are_recovered() -> None:
    rated = np.kron(np.eye(2), np.ones((4, 4)))
    model = trainer(rated, factors=2, l2=1e-4)
    for _ in range(30):
        model.sweep()
    similar = model.movies @ model.movies.T
    assert similar[:4, :4].min() > 10 * np.abs(similar[:4, 4:]).max()

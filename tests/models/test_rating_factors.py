from __future__ import annotations

import numpy as np

from models.interactions import Float32s, Histories
from models.rating_factors import RatingFactors, RatingTrainer, rating_users
from models.recommender import TrainingData
from models.side_features import SideFeatures


def data_of(user: np.ndarray, movie: np.ndarray, stars: np.ndarray, features: SideFeatures) -> TrainingData:
    n = int(user.max()) + 1
    times = np.zeros(len(user), np.int64)
    return TrainingData(np.arange(n), features.movie_id, user, movie, stars.astype(np.float32), times, features)


def without_genres(n_movies: int) -> SideFeatures:
    return SideFeatures.none().of_movies(np.arange(n_movies))


def predicted(factors: RatingFactors, users: Float32s, user: np.ndarray, movie: np.ndarray) -> Float32s:
    u, v = users[user], factors.movies[movie]
    return factors.level[0] + (u[:, :-1] * v[:, :-1]).sum(1) + u[:, -1] + v[:, -1]


def folded_in(factors: RatingFactors, data: TrainingData) -> Float32s:
    start = np.searchsorted(data.row, np.arange(data.n_users + 1))
    return rating_users(factors, Histories(start, data.column, data.rating, data.timestamp))


def test_a_matrix_of_rank_one_is_recovered() -> None:
    random = np.random.default_rng(0)
    whole = 3 + np.outer(random.choice([-1.0, 1.0], 60), random.choice([-1.0, 1.0], 40))
    user, movie = np.nonzero(random.random(whole.shape) < 0.5)
    data = data_of(user, movie, whole[user, movie], without_genres(40))
    trainer = RatingTrainer(data, factors=2, seed=0, device="cpu")
    errors = [trainer.sweep() for _ in range(30)]
    assert errors[-1] < 0.01 * errors[0]
    everyone, everything = np.divmod(np.arange(whole.size), 40)
    found = predicted(trainer.factors, folded_in(trainer.factors, data), everyone, everything)
    assert np.abs(found - whole.ravel()).max() < 0.2


def test_a_users_posterior_is_the_normal_equations_solved() -> None:
    factors = RatingFactors(
        movies=np.array([[1.0, 0.5], [-1.0, 0.0], [0.5, -0.5]], np.float32),
        variances=np.zeros((3, 2), np.float32),
        precision=np.array([[2.0, 0.3], [0.3, 4.0]], np.float32),
        level=np.array([3.5, 1.0], np.float32),
    )
    stars = np.array([5.0, 2.0, 4.0])
    found = rating_users(factors, Histories.of([([0, 1, 2], stars, [1, 2, 3])]))[0].astype(np.float64)
    design = np.array([[1.0, 1.0], [-1.0, 1.0], [0.5, 1.0]])
    target = stars - 3.5 - factors.movies[:, 1]
    # the user's own noise is the only unknown: one value of it explains both places of the vector
    left, right = design.T @ target - design.T @ design @ found, factors.precision @ found
    np.testing.assert_allclose(left[0] / right[0], left[1] / right[1], rtol=1e-3)
    assert 0.5 < left[0] / right[0] < 2.0


def test_a_movie_nobody_rated_is_predicted_from_its_genre() -> None:
    random = np.random.default_rng(1)
    n = 200
    liked = np.arange(n) % 2 == 0
    features = SideFeatures(
        np.arange(n), np.stack([liked, ~liked], 1).astype(np.float32), np.full(n, 1990), ("Liked", "Not")
    )
    user, movie = np.nonzero(random.random((50, n - 2)) < 0.2)
    data = data_of(user, movie, np.where(liked, 4.5, 1.5)[movie], features)
    trainer = RatingTrainer(data, factors=2, seed=0, device="cpu")
    for _ in range(15):
        trainer.sweep()
    good, bad = predicted(trainer.factors, np.zeros((1, 3), np.float32), np.array([0, 0]), np.array([n - 2, n - 1]))
    assert good > 4.0
    assert bad < 2.0


def test_users_who_rate_at_random_teach_less() -> None:
    random = np.random.default_rng(2)
    steady, movie = np.divmod(np.arange(40 * 60), 60)
    quality = random.choice([-1.0, 1.0], 60)
    stars = 3 + quality[movie] + np.where(steady < 20, 0.1, 1.5) * random.standard_normal(len(movie))
    factors = RatingTrainer(data_of(steady, movie, stars, without_genres(60)), factors=1, seed=0, device="cpu")
    for _ in range(10):
        factors.sweep()
    bias = factors.factors.movies[:, -1]
    assert np.abs(bias - quality).max() < 0.2  # the mean over all 40 is off by up to 0.6

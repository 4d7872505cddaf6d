"""A planted world of two tastes, which any model that learns has to find."""

from __future__ import annotations

import numpy as np

from models.interactions import Interactions
from models.recommender import TrainingData
from models.side_features import SideFeatures

N_USERS, N_MOVIES = 200, 60
NEW_EVEN, NEW_ODD = 900, 901


def two_tastes(seed: int = 0) -> Interactions:
    """Even users rate even movies, odd ones odd movies, one in twenty the other way; 15 ratings each, in turn."""
    random = np.random.default_rng(seed)
    users, movies = [], []
    for user in range(N_USERS):
        own = (np.arange(N_MOVIES) - user) % 2 == 0
        chance = np.where(own, 0.95, 0.05)
        users += [user] * 15
        movies += random.choice(N_MOVIES, 15, replace=False, p=chance / chance.sum()).tolist()
    return Interactions(users, movies, [4.0] * len(users), 1_000_000_000 + 60 * np.arange(len(users)))


def features() -> SideFeatures:
    """Genre and parity agree."""
    ids = np.array([*range(N_MOVIES)])
    return SideFeatures(ids, _parity(ids), np.full(len(ids), 1990), ("Even", "Odd"))


def new_movies() -> SideFeatures:
    """One of each taste, rated by nobody."""
    ids = np.array([NEW_EVEN, NEW_ODD])
    return SideFeatures(ids, _parity(ids), np.full(2, 1990), ("Even", "Odd"))


def training_data(ratings: Interactions) -> TrainingData:
    movie_ids, column = np.unique(ratings.movie_id, return_inverse=True)
    return TrainingData(
        np.unique(ratings.user_id),
        movie_ids,
        ratings.user_id,
        column,
        ratings.rating,
        ratings.timestamp,
        features().of_movies(movie_ids),
    )


def _parity(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 2 == 0, ids % 2 == 1], axis=1).astype(np.float32)

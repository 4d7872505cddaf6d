"""A world of two tastes, known beforehand: even users like even movies, odd ones odd movies."""

from __future__ import annotations

import numpy as np

from models.interactions import Histories, Interactions

N_USERS, N_MOVIES = 80, 60


def two_tastes(seed: int = 0) -> Interactions:
    """Each user rates a quarter of their own movies 4.5, and a few of the others 1.5."""
    random = np.random.default_rng(seed)
    user, movie = np.divmod(np.arange(N_USERS * N_MOVIES), N_MOVIES)
    own = user % 2 == movie % 2
    kept = random.random(len(user)) < np.where(own, 0.5, 0.03)
    return Interactions(user[kept], movie[kept], np.where(own, 4.5, 1.5)[kept], random.permutation(kept.sum()))


def newcomers() -> Histories:
    """One who likes even movies, one who likes odd ones."""
    stars, times = [4.5] * 3, [1, 2, 3]
    return Histories.of([([0, 2, 4], stars, times), ([1, 3, 5], stars, times)])


def of_own_taste(movie_ids: np.ndarray) -> float:
    """The share of lists (2, k) for :func:`newcomers` that is of their taste."""
    return float((movie_ids % 2 == np.array([[0], [1]])).mean())

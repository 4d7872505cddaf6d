"""Histories: what the store gives, and what is kept of it."""

from __future__ import annotations

import numpy as np

from featurestore.features import History
from models.interactions import Histories, Interactions


def test_a_stored_history_is_that_of_the_latest_ratings() -> None:
    """Movies rated again, at equal times too, given out of order."""
    random = np.random.default_rng(0)
    for n in (0, 1, 5, 200):
        movie, time = random.integers(0, 60, n), random.integers(0, 40, n)
        stars = random.integers(1, 11, n) / 2
        found = Histories.of_stored(History(time, movie, stars, np.zeros(n, bool)))
        expected = Histories.of_users(Interactions(np.zeros(n, np.int64), movie, stars, time), np.zeros(1, np.int64))
        for name in ("start", "movie_id", "rating", "timestamp"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_keeping_all_keeps_all() -> None:
    two = Histories.of([([10, 20], [4.0, 5.0], [100, 200]), ([], [], [])])
    kept = two.kept(np.ones(2, bool), np.array([1, 2]))
    assert (kept.start.tolist(), kept.movie_id.tolist(), kept.rating.tolist()) == ([0, 2, 2], [1, 2], [4.0, 5.0])
    assert two.kept(np.array([False, True]), np.array([1, 2])).start.tolist() == [0, 1, 1]

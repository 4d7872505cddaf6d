"""EASE: its closed form, and the two ways to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.ease import Ease
from models.interactions import Histories, Interactions
from streams.errors import ModelError


def ratings(n_users: int, n_movies: int) -> Interactions:
    random = np.random.default_rng(n_users)
    user, movie = np.nonzero(random.random((n_users, n_movies)) < 0.3)
    return Interactions(user, movie + 1, np.full(len(user), 4.0), np.arange(len(user)))


@pytest.mark.parametrize(("n_users", "n_movies"), [(15, 40), (40, 15)])
def test_scores_are_those_of_the_closed_form(n_users: int, n_movies: int, tmp_path: Path) -> None:
    """With fewer users than movies, and with more."""
    data = ratings(n_users, n_movies)
    model = Ease(l2=7.0).fit(data)
    x = np.zeros((n_users, n_movies))
    x[data.user_id, data.movie_id - 1] = 1.0
    inverse = np.linalg.inv(x.T @ x + 7.0 * np.eye(n_movies))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    asked = Histories.of([([1, 5, 9], [4.0, 4.0, 4.0], [1, 2, 3]), ([2, 999], [4.0, 4.0], [1, 2])])
    expected = np.stack([weights[[0, 4, 8]].sum(axis=0), weights[1]])
    np.testing.assert_allclose(model.score(asked), expected, atol=1e-5)
    model.save(tmp_path / "v1")
    np.testing.assert_array_equal(Ease.load(tmp_path / "v1").score(asked), model.score(asked))


def test_the_weights_left_out_are_the_smallest() -> None:
    data = ratings(15, 40)
    asked = Histories.of([([movie], [4.0], [1]) for movie in range(1, 41)])
    all_weights, kept = Ease(l2=7.0).fit(data).score(asked), Ease(l2=7.0, top_weights=5).fit(data).score(asked)
    for column in range(40):
        largest = np.argsort(-np.abs(all_weights[:, column]))[:5]
        np.testing.assert_allclose(kept[largest, column], all_weights[largest, column], atol=1e-5)
        assert (np.delete(kept[:, column], largest) == 0).all()


@pytest.mark.parametrize(("n_users", "top_weights"), [(2, 0), (2, 1), (5, 0)])
def test_a_ridge_too_small_to_determine_the_weights_is_refused(n_users: int, top_weights: int) -> None:
    """All rate the same three movies, so that these cannot be told apart."""
    alike = Interactions(np.repeat(np.arange(n_users), 3), [1, 2, 3] * n_users, [4.0] * 3 * n_users)
    with pytest.raises(ModelError, match="raise l2"):
        Ease(l2=1e-300, top_weights=top_weights).fit(alike)


def test_the_latest_ratings_count_most_where_that_is_asked_for() -> None:
    ratings = Interactions([0, 0, 1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 3, 4, 3, 4], [4.0] * 8, range(8))
    turned = Histories.of([([1, 3], [4.0] * 2, [1, 2])])
    plain = Ease(l2=1.0).fit(ratings).recommend_for_history(turned, 2)
    latest = Ease(l2=1.0, recency_half_life=1.0).fit(ratings).recommend_for_history(turned, 2)
    assert plain.scores[0, 0] == pytest.approx(plain.scores[0, 1])
    assert latest.movie_ids[0].tolist() == [4, 2]
    assert latest.scores[0, 0] == pytest.approx(2 * latest.scores[0, 1])

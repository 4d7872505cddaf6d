"""Rules on lists short enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Histories
from models.ranking import UNRATED
from models.rules import Candidates, Rules, candidates_of, favour_genres, favour_recent_taste, most_relevant, spread_out
from models.side_features import SideFeatures

FEATURES = SideFeatures(
    np.array([1, 2, 3, 4]),
    np.array([[1, 0], [1, 0], [0, 1], [0, 0]], np.float32),
    np.full(4, 1990),
    ("Comedy", "War"),
)
ORDER = np.array([1, 2, 3, 4])


def candidates() -> Candidates:
    return candidates_of(ORDER, np.array([9, 8, 6, 5], np.float32), FEATURES)


def test_relevance_is_one_for_the_best_and_zero_for_the_last() -> None:
    assert candidates().relevance.tolist() == [1.0, 0.75, 0.25, 0.0]
    assert candidates_of(ORDER, np.ones(4, np.float32), FEATURES).relevance.tolist() == [1.0] * 4
    assert len(candidates_of(ORDER[:0], np.zeros(0, np.float32), FEATURES)) == 0


def test_a_movie_of_which_nothing_is_known_does_not_make_the_others_alike() -> None:
    score = np.array([9, 8, 6, UNRATED], np.float32)
    found = candidates_of(ORDER, score, FEATURES)
    np.testing.assert_allclose(found.relevance, [1.0, 2 / 3, 0.0, 0.0], rtol=1e-6)
    assert candidates_of(ORDER, np.full(4, UNRATED, np.float32), FEATURES).relevance.tolist() == [0.0] * 4


def test_a_genre_is_favoured_and_another_buried() -> None:
    favoured = favour_genres(candidates(), (("War", 5.0), ("Comedy", 0.0), ("Unheard of", 9.0)))
    assert favoured.relevance.tolist() == [-1.0, -1.0, 1.25, 0.0]
    assert most_relevant(favoured, 4).movie_id.tolist() == [3, 4, 1, 2]
    assert most_relevant(favoured, 1).score.tolist() == [6.0]


def test_without_diversity_the_order_stays() -> None:
    assert spread_out(candidates(), 3, 0.0).movie_id.tolist() == [1, 2, 3]


def test_diversity_alone_takes_what_is_least_alike() -> None:
    assert spread_out(candidates(), 4, 1.0).movie_id.tolist() == [1, 3, 4, 2]


def test_diversity_between_weighs_both() -> None:
    """At a half, 2 is worth (0.75 - 1) / 2, and 3, of another genre, 0.25 / 2."""
    assert spread_out(candidates(), 2, 0.5).movie_id.tolist() == [1, 3]
    assert spread_out(candidates(), 2, 0.2).movie_id.tolist() == [1, 2]


def test_the_genres_rated_last_count_most() -> None:
    history = Histories.of([([1, 3], [4.0, 4.0], [1, 2])])
    near = favour_recent_taste(candidates(), history, FEATURES, half_life=1.0, strength=1.0).relevance - np.array(
        [1.0, 0.75, 0.25, 0.0]
    )
    np.testing.assert_allclose(near, np.array([0.5, 0.5, 1.0, 0.0]) / 1.25**0.5, rtol=1e-6)
    nothing = Histories.of([([], [], [])])
    assert favour_recent_taste(candidates(), nothing, FEATURES, half_life=1.0).relevance.tolist() == [1, 0.75, 0.25, 0]


def test_rules_apply_in_the_order_that_is_told() -> None:
    """Taste and genres make movie 3 the first before diversity picks the others."""
    history = Histories.of([([3], [5.0], [1])])
    rules = Rules(genre_weights=(("War", 3.0),), diversity=1.0, recency_half_life=2.0)
    found = candidates()
    for step in rules.steps(history, FEATURES, 2):
        found = step(found)
    assert found.movie_id.tolist() == [3, 1]


def test_no_rules_are_none() -> None:
    assert not Rules()
    assert Rules(diversity=0.1)


@pytest.mark.parametrize(
    "wrong", [{"diversity": 1.5}, {"genre_weights": (("War", -1.0),)}, {"recency_half_life": float("nan")}]
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Rules(**wrong)  # type: ignore[arg-type]

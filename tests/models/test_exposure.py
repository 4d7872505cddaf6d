"""No movie is in more lists than the cap says, and each user gets the best of what is left."""

from __future__ import annotations

import numpy as np

from models.ease import Ease
from models.evaluation import evaluate
from models.exposure import ExposureCap, capped_lists
from models.ranking import NO_MOVIE
from models.splits import random_split
from tests.models.planted import features, two_tastes


def test_no_movie_is_shown_more_often_than_the_cap() -> None:
    scores = np.tile(np.arange(6, dtype=np.float32), (4, 1))
    lists = capped_lists(scores, 3, 2, np.random.default_rng(0))
    assert np.bincount(lists.ravel()).tolist() == [2] * 6
    assert all(len(set(row)) == 3 for row in lists.tolist())


def test_without_a_need_for_a_cap_lists_are_those_of_the_scores() -> None:
    scores = np.random.default_rng(0).random((5, 9)).astype(np.float32)
    expected = np.argsort(-scores, axis=1)[:, :4]
    assert capped_lists(scores, 4, 5, np.random.default_rng(0)).tolist() == expected.tolist()


def test_what_is_ruled_out_is_not_listed() -> None:
    scores = np.array([[-np.inf, 1.0], [-np.inf, -np.inf]], np.float32)
    assert capped_lists(scores, 2, 9, np.random.default_rng(0)).tolist() == [[1, NO_MOVIE], [NO_MOVIE, NO_MOVIE]]


def test_a_capped_model_covers_more_and_lists_nothing_that_was_seen() -> None:
    split = random_split(two_tastes(), features())
    model = Ease(l2=1.0).fit(split.train, split.features)
    free, capped = evaluate(model, split, k=2), evaluate(ExposureCap(model, 7), split, k=2)
    assert capped.measures["coverage@2"].value >= free.measures["coverage@2"].value
    assert capped.measures["ndcg@2"].value > 0

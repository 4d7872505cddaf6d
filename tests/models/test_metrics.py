"""Measures against a second implementation in plain Python, which shares nothing with them."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import metrics
from models.ranking import NO_MOVIE

MOVIES = 12
lists = st.lists(st.integers(1, MOVIES), unique=True, max_size=6).map(lambda m: m + [NO_MOVIE] * (6 - len(m)))
cases = st.lists(st.tuples(lists, st.sets(st.integers(1, MOVIES))), min_size=1, max_size=5)


def relevance(relevant: list[set[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = [row for row, movies in enumerate(relevant) for _ in movies]
    movies = [movie for of_user in relevant for movie in of_user]
    return np.array(rows, np.int64), np.array(movies, np.int64), np.array([len(m) for m in relevant], np.int64)


def by_hand(name: str, ranked: list[int], relevant: set[int]) -> float:
    k = len(ranked)
    found = [movie in relevant for movie in ranked]
    if name == "precision":
        return sum(found) / k
    if name == "hit_rate":
        return 1.0 if any(found) else 0.0
    if name == "reciprocal_rank":
        for rank, hit in enumerate(found, 1):
            if hit:
                return 1 / rank
        return 0.0
    if not relevant:
        return math.nan
    if name == "recall":
        return sum(found) / len(relevant)
    if name == "average_precision":
        total = 0.0
        for rank in range(1, k + 1):
            if found[rank - 1]:
                total += sum(found[:rank]) / rank
        return total / min(k, len(relevant))
    assert name == "ndcg"
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(found, 1) if hit)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return gain / best


@pytest.mark.parametrize("name", ["precision", "hit_rate", "reciprocal_rank", "recall", "average_precision", "ndcg"])
@given(cases=cases)
def test_equals_what_is_counted_by_hand(name: str, cases: list[tuple[list[int], set[int]]]) -> None:
    ranked = np.array([ranking for ranking, _ in cases], np.int64)
    rows, movies, n_relevant = relevance([relevant for _, relevant in cases])
    hits = metrics.hits_of(ranked, rows, movies)
    measure = getattr(metrics, name)
    found = measure(hits) if name in ("precision", "hit_rate", "reciprocal_rank") else measure(hits, n_relevant)
    expected = [by_hand(name, ranking, relevant) for ranking, relevant in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(cases=cases)
def test_coverage_counts_the_movies_that_some_list_shows(cases: list[tuple[list[int], set[int]]]) -> None:
    shown = {movie for ranking, _ in cases for movie in ranking if movie != NO_MOVIE}
    ranked = np.array([ranking for ranking, _ in cases], np.int64)
    assert metrics.catalogue_coverage(ranked, MOVIES) == pytest.approx(len(shown) / MOVIES)


@given(cases=cases, genres=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=MOVIES, max_size=MOVIES))
def test_diversity_is_the_mean_distance_of_all_pairs(
    cases: list[tuple[list[int], set[int]]], genres: list[list[bool]]
) -> None:
    """Of the movies 1 to 12 the catalogue lacks the last."""

    def cosine(a: int, b: int) -> float:
        x, y = (genres[m - 1] if m < MOVIES else [False] * 3 for m in (a, b))
        shared = sum(p and q for p, q in zip(x, y, strict=True))
        return shared / math.sqrt(sum(x) * sum(y)) if shared else 0.0

    ranked = np.array([ranking for ranking, _ in cases], np.int64)
    found = metrics.intra_list_diversity(ranked, np.arange(1, MOVIES), np.array(genres[:-1], np.float32))
    for value, (ranking, _) in zip(found, cases, strict=True):
        pairs = list(combinations([m for m in ranking if m != NO_MOVIE], 2))
        expected = sum(1 - cosine(a, b) for a, b in pairs) / len(pairs) if pairs else math.nan
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_a_list_of_no_places_measures_nothing() -> None:
    hits = np.zeros((2, 0), bool)
    assert metrics.precision(hits).tolist() == metrics.reciprocal_rank(hits).tolist() == [0.0, 0.0]
    assert np.isnan(metrics.ndcg(hits, np.array([1, 0]))).all()

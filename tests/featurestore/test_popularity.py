"""Rankings and their trends against a naive count over the ratings."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.features import WINDOWS_S
from featurestore.popularity import RANKINGS, PopularityReader, TopItems
from streams.events import DAY_S, HOUR_S, Rating, Tick

T0 = 1_000_000_000 - 1_000_000_000 % DAY_S

BuildStore = Callable[..., str]

ratings = st.builds(
    Rating,
    user_id=st.integers(0, 3),
    movie_id=st.integers(0, 5),
    rating=st.integers(1, 10).map(lambda half: half / 2),
    timestamp=st.one_of(st.integers(0, 60 * 24), st.integers(700, 750)).map(lambda h: T0 + h * HOUR_S + 17),
)


def naive(rated: list[Rating], start: float, end: float) -> list[tuple[int, int, float]]:
    """(movie, ratings, mean) of the ratings from ``start`` to before ``end``, the most rated first."""
    stars: dict[int, list[float]] = {}
    for r in rated:
        if start <= r.timestamp < end:
            stars.setdefault(r.movie_id, []).append(r.rating)
    order = sorted(stars, key=lambda m: (-len(stars[m]), -sum(stars[m]), m))
    return [(m, len(stars[m]), sum(stars[m]) / len(stars[m])) for m in order]


def ranked(found: TopItems) -> list[tuple[int, int, float]]:
    return [(item.movie_id, item.n_ratings, item.mean_rating) for item in found.items]


@settings(max_examples=60, deadline=None)
@given(rated=st.lists(ratings, min_size=1, max_size=60), clock_h=st.integers(0, 1_500), as_of_h=st.integers(0, 1_500))
def test_rankings_equal_a_naive_count(build_store: BuildStore, rated: list[Rating], clock_h: int, as_of_h: int) -> None:
    clock, as_of = T0 + clock_h * HOUR_S, T0 + as_of_h * HOUR_S + 1_234
    with PopularityReader(build_store([*rated, Tick(clock), Tick(clock)])) as reader:
        for end, moment in ((clock + HOUR_S, None), (as_of // HOUR_S * HOUR_S, as_of)):
            for window, seconds in WINDOWS_S.items():
                found = reader.top_items(window, moment)
                expected = naive(rated, end - seconds, end)
                assert ranked(found) == [pytest.approx(row) for row in expected]
                assert (found.start, found.end) == (end - seconds, end)
                assert found.trend.shape == (len(expected), seconds // found.step_s)
                assert [row.sum() for row in found.trend] == [n for _, n, _ in expected]
                for row, (movie_id, *_) in zip(found.trend.tolist(), expected, strict=True):
                    times = [r.timestamp for r in rated if r.movie_id == movie_id]
                    starts = range(found.start, found.end, found.step_s)
                    assert row == [sum(at <= t < at + found.step_s for t in times) for at in starts]
            found = reader.top_items("all", moment)
            expected = naive(rated, 0, math.inf if moment is None else end)
            assert ranked(found) == [pytest.approx(row) for row in expected]
            if moment is not None:
                assert [row.sum() for row in found.trend] == [n for _, n, _ in expected]
            assert found.trend.shape[1] <= 28
            assert len(reader.top_items("all", moment, k=1).items) == min(1, len(expected))
            decayed = reader.top_items("decayed", moment)
            assert decayed.items == reader.popular_decayed(moment)
            assert len(decayed.trend) == len(decayed.items)


def test_the_last_day_counts_up_to_the_hour_that_is_asked_for(build_store: BuildStore) -> None:
    times = [T0, T0 + 3 * DAY_S + 5 * HOUR_S, T0 + 3 * DAY_S + 7 * HOUR_S]
    with PopularityReader(build_store([Rating(1, 1, 3.0, t) for t in times])) as reader:
        found = reader.top_items("all", T0 + 3 * DAY_S + 6 * HOUR_S)
        assert (found.step_s, found.trend.tolist()) == (DAY_S, [[1, 0, 0, 1]])
        assert reader.top_items("all", T0 + 100 * DAY_S).step_s == 4 * DAY_S


def test_of_a_store_without_ratings_every_ranking_is_empty(build_store: BuildStore) -> None:
    with PopularityReader(build_store([])) as reader:
        for ranking in RANKINGS:
            assert reader.top_items(ranking).items == []
            assert reader.top_items(ranking, T0).items == []

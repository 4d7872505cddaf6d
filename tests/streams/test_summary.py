"""The shape of ratings in numbers, on a handful whose answers are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.aggregate import last_session
from streams.dataset import Ratings
from streams.summary import concatenate, gini, session_lengths, summarise

DAY_S = 86_400

#        user, movie, stars, seconds
ROWS = [
    (1, 10, 4.0, 0),
    (1, 11, 4.0, 1_799),  # same session: gap under 30 minutes
    (1, 12, 0.5, 1_799 + 1_800),  # a new one
    (2, 10, 5.0, 1_900),  # another user's, in between
    (2, 13, 4.0, 3 * DAY_S),
]


def ratings_of(rows: list[tuple[int, int, float, int]]) -> Ratings:
    table = np.array(rows, np.float64)
    user, movie, time = table[:, [0, 1, 3]].T.astype(np.int64)
    return Ratings(user, movie, table[:, 2], time)


@pytest.mark.parametrize("rows", [ROWS, ROWS[::-1]])
def test_known_answers_in_any_order(rows: list[tuple[int, int, float, int]]) -> None:
    summary = summarise(ratings_of(rows))
    assert (summary.ratings, summary.users, summary.movies) == (5, 2, 4)
    assert (summary.sessions, summary.mean_session, summary.median_session) == (4, 1.25, 1.0)
    assert summary.single_rating_sessions == 0.75
    assert (summary.active_days, summary.ratings_per_active_day) == (2, 2.5)
    assert list(summary.rating_shares) == [0.2, 0, 0, 0, 0, 0, 0, 0.6, 0, 0.2]
    assert summary.popularity_gini == pytest.approx(0.15)  # counts 1, 1, 1, 2


def test_session_gap_can_be_set() -> None:
    assert session_lengths(ratings_of(ROWS), 1_801).tolist() == [3, 1, 1]


@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=30), st.integers(1, 3_000))
def test_sessions_are_those_of_the_feature_store(times: list[int], gap_s: int) -> None:
    lengths = session_lengths(ratings_of([(1, 1, 3.0, time) for time in times]), gap_s)
    assert lengths.sum() == len(times)
    assert last_session(np.array(times), gap_s) == (sorted(times)[-lengths[-1]], lengths[-1])


def test_gini_of_equal_counts_is_zero_and_of_one_winner_close_to_one() -> None:
    assert gini(np.full(100, 7)) == pytest.approx(0)
    assert gini(np.array([1] * 999 + [1_000_000])) > 0.99


def test_chunks_joined_are_the_whole() -> None:
    whole = ratings_of(ROWS)
    assert concatenate([whole.slice(0, 2), whole.slice(2, 5)]).timestamp.tolist() == whole.timestamp.tolist()


def test_no_ratings_have_no_shape() -> None:
    with pytest.raises(ValueError, match="at least one rating"):
        summarise(ratings_of(ROWS).slice(0, 0))

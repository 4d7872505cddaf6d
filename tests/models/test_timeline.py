"""What was rated before a moment, against a look through all ratings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.interactions import Interactions
from models.timeline import Timeline

rows = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.sampled_from([1.0, 4.0, 5.0]), st.integers(100, 130)),
    max_size=40,
)
asked = st.lists(st.tuples(st.integers(0, 6), st.integers(90, 140)), max_size=8)


def timeline(rows: list[tuple[int, int, float, int]]) -> Timeline:
    return Timeline(Interactions(*([row[i] for row in rows] for i in range(4))) if rows else Interactions([], [], []))


@given(rows=rows, asked=asked)
def test_histories_hold_the_latest_of_each_movie_before_the_moment(
    rows: list[tuple[int, int, float, int]], asked: list[tuple[int, int]]
) -> None:
    users, moments = np.array([u for u, _ in asked], np.int64), np.array([t for _, t in asked], np.int64)
    found = timeline(rows).before(users, moments)
    assert len(found) == len(asked)
    for i, (user, moment) in enumerate(asked):
        latest: dict[int, int] = {}
        for owner, movie, _, time in rows:
            if owner == user and time < moment:
                latest[movie] = max(time, latest.get(movie, 0))
        one = found.slice(i, i + 1)
        assert dict(zip(one.movie_id.tolist(), one.timestamp.tolist(), strict=True)) == latest
        assert (np.diff(one.timestamp) >= 0).all()


@given(rows=rows, asked=asked, days=st.integers(0, 20))
def test_what_is_liked_within_a_span(
    rows: list[tuple[int, int, float, int]], asked: list[tuple[int, int]], days: int
) -> None:
    users, since = np.array([u for u, _ in asked], np.int64), np.array([t for _, t in asked], np.int64)
    row, movie = timeline(rows).liked_within(users, since, since + days, 4.0)
    expected = {
        (i, m)
        for i, (user, moment) in enumerate(asked)
        for owner, m, stars, time in rows
        if owner == user and stars >= 4 and moment <= time < moment + days
    }
    assert sorted(zip(row.tolist(), movie.tolist(), strict=True)) == sorted(expected)

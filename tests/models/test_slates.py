"""When slates are due and what clicks them: tables of cases, and a second implementation, a rating at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import NO_MOVIE
from models.slates import (
    SESSION_GAP_S,
    SLATE_EVERY,
    clicked_slates,
    continues_session,
    find_sessions,
    slate_due,
)

ratings = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 3), st.integers(1, 5)), max_size=60).map(
    lambda steps: [
        (sum(gap for gap, _, _ in steps[: i + 1]) // 2, user, movie) for i, (_, user, movie) in enumerate(steps)
    ]
)


def int64(values: object) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("times", "sessions"),
    [
        ([], []),
        ([5], [0]),
        ([0, 0, 0], [0, 0, 0]),
        ([0, SESSION_GAP_S - 1], [0, 0]),
        ([0, SESSION_GAP_S], [0, 1]),
        ([0, 1_700, 3_400, 5_100], [0, 0, 0, 0]),  # gaps count, not the length
    ],
)
def test_a_pause_of_half_an_hour_ends_a_session(times: list[int], sessions: list[int]) -> None:
    assert find_sessions(int64([1] * len(times)), int64(times)).session.tolist() == sessions


@given(ratings)
def test_sessions_are_those_of_each_user_alone(stream: list[tuple[int, int, int]]) -> None:
    found = find_sessions(int64([user for _, user, _ in stream]), int64([time for time, _, _ in stream]))
    last: dict[int, tuple[int, int]] = {}
    for i, (time, user, _) in enumerate(stream):
        previous, count = last.get(user, (None, 0))
        count = count + 1 if continues_session(previous, time) else 0
        last[user] = (time, count)
        assert found.n_before[i] == count
        assert (i in found.triggers) == slate_due(count)
    owners = {int(session): user for session, (_, user, _) in zip(found.session, stream, strict=True)}
    assert len(owners) == (found.n_before == 0).sum()


def test_a_slate_is_due_at_the_start_and_after_every_ten_ratings() -> None:
    found = find_sessions(int64([1] * 24), int64(range(24)))
    assert found.triggers.tolist() == [0, SLATE_EVERY, 2 * SLATE_EVERY]


def test_time_that_goes_back_is_refused() -> None:
    with pytest.raises(ValueError, match="event time"):
        find_sessions(int64([1, 1]), int64([9, 8]))


SLATES = [
    # name, ratings (session, movie), slates (session, at, movies), the slate each rating clicks
    ("the trigger may click", [(0, 7)], [(0, 0, [7, 8])], [0]),
    ("another movie", [(0, 9)], [(0, 0, [7, 8])], [-1]),
    ("not before it is made", [(0, 7), (0, 9)], [(0, 1, [7, 8])], [-1, -1]),
    ("not in another session", [(0, 9), (1, 7)], [(0, 0, [7, 8])], [-1, -1]),
    ("the newest", [(0, 9), (0, 9), (0, 7)], [(0, 0, [7, 8]), (0, 1, [7, 5])], [-1, -1, 1]),
    ("an older one where the newest lacks it", [(0, 9), (0, 9), (0, 8)], [(0, 0, [7, 8]), (0, 1, [7, 5])], [-1, -1, 0]),
    ("once", [(0, 7), (0, 7)], [(0, 0, [7, 8])], [0, -1]),
    ("once, not then an older one", [(0, 1), (0, 7), (0, 7)], [(0, 0, [7]), (0, 1, [7])], [-1, 1, -1]),
    ("again on a newer slate", [(0, 7), (0, 7)], [(0, 0, [7]), (0, 1, [7])], [0, 1]),
    ("two movies of a slate", [(0, 7), (0, 8)], [(0, 0, [7, 8])], [0, 0]),
    ("an empty place", [(0, 1)], [(0, 0, [NO_MOVIE])], [-1]),
    ("slates in any order", [(0, 9), (0, 7)], [(0, 1, [7]), (0, 0, [7])], [-1, 0]),
    ("no slates", [(0, 7)], [], [-1]),
    ("no ratings", [], [(0, 0, [7])], []),
]


def clicks(
    rated: list[tuple[int, int]], slates: list[tuple[int, int, list[int]]], width: int | None = None
) -> list[int]:
    k = width or max((len(movies) for _, _, movies in slates), default=1)
    return clicked_slates(
        int64([session for session, _ in rated]),
        int64([movie for _, movie in rated]),
        int64([session for session, _, _ in slates]),
        int64([at for _, at, _ in slates]),
        int64([movies for _, _, movies in slates]).reshape(len(slates), k),
    ).tolist()


@pytest.mark.parametrize(("rated", "slates", "expected"), [row[1:] for row in SLATES], ids=[row[0] for row in SLATES])
def test_what_clicks(
    rated: list[tuple[int, int]], slates: list[tuple[int, int, list[int]]], expected: list[int]
) -> None:
    assert clicks(rated, slates) == expected


@given(
    rated=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=40),
    shown=st.lists(st.lists(st.integers(1, 5), unique=True, min_size=3, max_size=3), max_size=12),
    data=st.data(),
)
def test_equals_looking_through_all_slates(
    rated: list[tuple[int, int]], shown: list[list[int]], data: st.DataObject
) -> None:
    at = data.draw(st.lists(st.integers(0, max(0, len(rated) - 1)), unique=True, max_size=len(shown)))
    slates = [(rated[i][0], i, movies) for i, movies in zip(at, shown, strict=False)] if rated else []
    done: set[tuple[int, int]] = set()
    expected = []
    for i, (session, movie) in enumerate(rated):
        showing = [
            (made, number)
            for number, (of, made, movies) in enumerate(slates)
            if of == session and made <= i and movie in movies
        ]
        newest = max(showing)[1] if showing else -1
        expected.append(-1 if newest == -1 or (newest, movie) in done else newest)
        done.add((newest, movie))
    assert clicks(rated, slates, 3) == expected

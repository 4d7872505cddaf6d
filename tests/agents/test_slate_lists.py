"""Histories as of a rating, and lists that do not depend on who else gets one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.sessions import Session, ShownSlate
from agents.slate_lists import histories_before, lists_of
from featurestore.reader import LoggedHistories
from featurestore.schema import HISTORY_DTYPE
from models.interactions import Histories, Interactions
from models.kinds import make_model
from streamlens.bench.sized_models import SIZED_MODELS, sized_model

Logged = list[list[tuple[int, int, int]]]
"""Of each user (time, movie, half stars), in log order."""


def expected_history(log: list[tuple[int, int, int]], at: int) -> list[tuple[int, int, float]]:
    """Said plainly: what stands before the first record like the one at ``at``, is earlier, and was rated last."""
    trigger = log[at]
    before = [one for one in log[: log.index(trigger)] if one[0] < trigger[0]]
    before.sort(key=lambda one: one[:2])
    last = {movie: (time, movie, half_stars / 2) for time, movie, half_stars in before}
    return sorted(last.values(), key=lambda one: one[:2])


logs = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=15),
    min_size=1,
    max_size=5,
)


@given(logs, st.booleans(), st.randoms(use_true_random=False))
def test_a_history_is_what_was_known_before_the_rating(users: Logged, in_order: bool, random: object) -> None:
    if in_order:
        users = [sorted(log, key=lambda one: one[:2]) for log in users]
    ratings = np.array([one for log in users for one in [(t, m, h, 0) for t, m, h in log]], HISTORY_DTYPE)
    start = np.cumsum([0, *map(len, users)])
    logged = LoggedHistories(10 * np.arange(len(users)), start, ratings)
    asked = [(user, at) for user, log in enumerate(users) for at in range(len(log))]
    random.shuffle(asked)  # type: ignore[attr-defined]
    slates = [
        ShownSlate(Session(10 * user, 0, 0, 1), 0, users[user][at][0], i, 0) for i, (user, at) in enumerate(asked)
    ]
    triggers = [users[user][at] for user, at in asked]
    columns = (np.array([t[1] for t in triggers]), np.array([t[2] for t in triggers]))
    found = histories_before(logged, slates, columns)
    assert [rows(found, i) for i in range(len(asked))] == [expected_history(users[u], at) for u, at in asked]


def rows(histories: Histories, i: int) -> list[tuple[int, int, float]]:
    part = slice(histories.start[i], histories.start[i + 1])
    columns: Sequence[list[float]] = [
        c[part].tolist() for c in (histories.timestamp, histories.movie_id, histories.rating)
    ]
    return list(zip(*columns, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SIZED_MODELS)
def test_a_list_does_not_depend_on_who_else_gets_one(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    movie_ids = np.arange(0, 900, 3)
    model = sized_model(kind, movie_ids, np.ones(len(movie_ids), np.float32), tmp_path / kind)
    users = []
    for i in range(70):
        rated = random.choice(900, random.integers(0, 60) if i % 7 else 0, replace=False)
        users.append((rated, random.integers(1, 11, len(rated)) / 2, np.arange(len(rated))))
    users[5] = ([1, 2, 4], [4.0, 4.0, 4.0], [1, 2, 3])  # knows nothing that the model does
    histories = Histories.of(users)
    together = lists_of(model, histories)
    assert together == [lists_of(model, histories.slice(i, i + 1))[0] for i in range(len(users))]
    assert all(len(listed) == 10 for listed in together)


def test_where_few_movies_are_left_a_list_is_short() -> None:
    model = make_model("popularity").fit(Interactions([1, 1, 2], [10, 20, 10], [4.0, 3.5, 5.0], [1, 2, 3]))
    assert lists_of(model, Histories.of([([10], [4.0], [1]), ([], [], [])])) == [[20], [10, 20]]

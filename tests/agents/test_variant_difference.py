"""Intervals of variants: right about the same as often as they say, and able to tell what differs."""

from __future__ import annotations

import numpy as np
import pytest

from agents.variant_difference import MIN_USERS, UserSums, ratio_difference, ratio_of
from models.bootstrap import ratio_interval
from streams.records import Int64s

DRAWS = 1_000


def users(random: np.random.Generator, n: int, ctr: float) -> Int64s:
    """Clicks and movies shown of each of ``n`` users as a replay has them: a few are shown most, tastes differ."""
    shown = 10 * random.zipf(2.0, n).clip(max=60)
    own = random.beta(2.0, 2.0 / ctr - 2.0, n)
    return np.stack([random.binomial(shown, own), shown], axis=1).astype(np.int64)


@pytest.mark.parametrize("n", [MIN_USERS, 300])
def test_identical_variants_are_called_different_no_more_often_than_promised(n: int) -> None:
    """A/A, sizes 50 and 25 of a hundred: 5 % of looks, and what chance adds to that in so many draws."""
    random = np.random.default_rng(7)
    wrong = 0
    for _ in range(DRAWS):
        difference = ratio_difference(users(random, n, 0.03), users(random, 2 * n, 0.03))
        assert difference is not None
        wrong += not difference.low <= 0 <= difference.high
    assert wrong / DRAWS <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS)


def test_variants_that_differ_are_called_different() -> None:
    random = np.random.default_rng(8)
    found = [ratio_difference(users(random, 1_000, 0.02), users(random, 2_000, 0.03)) for _ in range(50)]
    assert sum(one is not None and one.high < 0 for one in found) >= 45


def test_too_few_users_say_nothing() -> None:
    random = np.random.default_rng(9)
    assert ratio_difference(users(random, MIN_USERS - 1, 0.03), users(random, 500, 0.3)) is None


def test_an_interval_is_that_of_the_bootstrap() -> None:
    sums = users(np.random.default_rng(10), 2_000, 0.03)
    ours = ratio_of(sums)
    theirs = ratio_interval(sums[:, 0].astype(float), sums[:, 1].astype(float))
    assert ours.value == theirs.value
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * (ours.high - ours.low))


def test_sums_of_users_add_up_in_any_portions() -> None:
    random = np.random.default_rng(11)
    user, clicks = random.integers(0, 20, 200), random.integers(0, 3, 200)
    whole, parts = UserSums(), UserSums()
    whole.add(user, clicks, np.full(200, 10))
    for at in np.array_split(np.arange(200), 7):
        parts.add(user[at], clicks[at], np.full(len(at), 10))
    parts = UserSums.of(parts.state())
    assert (parts.user_id.tolist(), parts.sums.tolist()) == (whole.user_id.tolist(), whole.sums.tolist())

"""Intervals over users: they hold what they should as often as they say, and are the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from models.bootstrap import coverage_interval, paired_difference, ratio_interval


def test_the_value_is_that_of_the_users_there_are() -> None:
    interval = ratio_interval(np.array([3.0, 1.0, 0.0]), np.array([10.0, 20.0, 10.0]))
    assert interval.value == pytest.approx(0.1)
    assert interval.low <= 0.1 <= interval.high


def test_equals_resampling_one_user_at_a_time() -> None:
    random = np.random.default_rng(5)
    clicks, shown = random.poisson(1.0, 40).astype(float), random.integers(5, 20, 40).astype(float)
    drawn = []
    for _ in range(4_000):
        users = [int(random.integers(0, 40)) for _ in range(40)]
        drawn.append(sum(clicks[u] for u in users) / sum(shown[u] for u in users))
    drawn.sort()
    interval = ratio_interval(clicks, shown, draws=4_000)
    assert interval.low == pytest.approx(drawn[100], rel=0.03)
    assert interval.high == pytest.approx(drawn[3_899], rel=0.03)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(1)
    held = 0
    for seed in range(300):
        values = random.exponential(1.0, 80)
        interval = ratio_interval(values, np.ones(80), seed=seed, draws=400)
        held += interval.low <= 1.0 <= interval.high
    assert 0.88 < held / 300 < 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).random(50)
    assert ratio_interval(values, np.ones(50), seed=3) == ratio_interval(values, np.ones(50), seed=3)
    assert ratio_interval(values, np.ones(50), seed=3) != ratio_interval(values, np.ones(50), seed=4)


def test_a_root_of_a_mean_is_as_far_as_its_ends() -> None:
    errors = np.random.default_rng(2).random(50)
    squared, root = ratio_interval(errors, np.ones(50)), ratio_interval(errors, np.ones(50), transform=np.sqrt)
    assert root.value == pytest.approx(squared.value**0.5)
    assert (root.low, root.high) == pytest.approx((squared.low**0.5, squared.high**0.5), rel=1e-3)


def test_two_models_on_the_same_users_are_told_apart_where_their_intervals_overlap() -> None:
    random = np.random.default_rng(7)
    ease_of_user = random.random(200)
    ours, theirs = ease_of_user + 0.01 + 0.01 * random.random(200), ease_of_user
    one, other = ratio_interval(ours, np.ones(200)), ratio_interval(theirs, np.ones(200))
    assert one.low < other.high
    assert paired_difference((ours, np.ones(200)), (theirs, np.ones(200))).low > 0


def test_coverage_lies_within_its_interval() -> None:
    random = np.random.default_rng(3)
    ranked, owner = random.integers(1, 200, (90, 5)), np.repeat(np.arange(30), 3)
    interval = coverage_interval(ranked, owner, 400)
    assert interval.value == len(np.unique(ranked)) / 400
    assert interval.low < interval.value < interval.high
    everybody_alike = coverage_interval(np.tile(np.arange(1, 11), (30, 1)), np.arange(30), 100)
    assert (everybody_alike.low, everybody_alike.value, everybody_alike.high) == pytest.approx((0.1, 0.1, 0.1))


def test_nobody_measures_nothing() -> None:
    nobody = np.zeros(0)
    assert np.isnan(ratio_interval(nobody, nobody).value)
    assert np.isnan(coverage_interval(np.zeros((0, 5), np.int64), np.zeros(0, np.int64), 10).value)

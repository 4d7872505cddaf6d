"""The week split: known answers on real ratings, and the ends of the scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from streams.dataset import Dataset, Movie, Ratings, open_dataset
from streams.errors import ConfigError, DataError
from streams.replay_options import parse_start
from streams.split import WEEK_S, WeekSplit, auto_start, split_at_week

DAY_S = 86_400
START = 900_000_000


class Timestamps:
    """A dataset of nothing but times."""

    name = "timestamps"
    fingerprint = ""

    def __init__(self, timestamps: list[int]) -> None:
        self._timestamps = np.array(sorted(timestamps), np.int64)
        self.n_ratings = len(timestamps)

    @property
    def first_timestamp(self) -> int:
        return int(self._timestamps[0])

    @property
    def last_timestamp(self) -> int:
        return int(self._timestamps[-1])

    def timestamp_at(self, position: int) -> int:
        return int(self._timestamps[position])

    def position_of(self, timestamp: int) -> int:
        return int(np.searchsorted(self._timestamps, timestamp))

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        raise AssertionError("a split reads no ratings")

    def movies(self) -> dict[int, Movie]:
        return {}


@pytest.fixture(scope="module")
def small() -> Dataset:
    return open_dataset()


def test_week_10_of_ml_latest_small(small: Dataset) -> None:
    split = split_at_week(small)
    assert split == WeekSplit(start=1_252_977_712, week=10, cutoff=1_258_420_912, n_training=60_501, n_live=40_335)
    assert small.timestamp_at(split.n_training) >= split.cutoff > small.timestamp_at(split.n_training - 1)


@pytest.mark.parametrize(("week", "n_live"), [(1, 40_905), (2, 40_832), (11, 40_068)])
def test_other_weeks_of_ml_latest_small(small: Dataset, week: int, n_live: int) -> None:
    split = split_at_week(small, week=week)
    assert (split.n_training, split.n_live) == (100_836 - n_live, n_live)
    assert split.cutoff == 1_252_977_712 + (week - 1) * WEEK_S


def test_a_named_start_counts_weeks_from_there(small: Dataset) -> None:
    start = parse_start("2015-01-01")
    split = split_at_week(small, week=1, start=start)
    ratings = next(small.chunks(size=small.n_ratings))
    assert split.cutoff == start == 1_420_070_400
    assert split.n_live == int((ratings.timestamp >= start).sum())


def test_the_synthetic_world_is_split_without_being_made() -> None:
    dataset = open_dataset("synthetic:ratings=20000,seed=4")
    split = split_at_week(dataset)
    assert split.n_training + split.n_live == 20_000
    assert dataset.timestamp_at(split.n_training) >= split.cutoff > dataset.timestamp_at(split.n_training - 1)
    assert 0.55 < split.n_training / 20_000 <= 0.6


def test_auto_starts_at_the_first_event_of_data_under_a_year() -> None:
    times = [START + d * DAY_S for d in range(215)]  # as MovieLens 100K
    split = split_at_week(Timestamps(times))
    assert (split.start, split.cutoff) == (START, START + 63 * DAY_S)
    assert (split.n_training, split.n_live) == (63, 152)


def test_auto_leaves_60_percent_before_week_10_of_longer_data() -> None:
    times = [START + d * DAY_S for d in range(1_000)]
    split = split_at_week(Timestamps(times))
    assert split.cutoff == START + 600 * DAY_S
    assert (split.n_training, split.n_live) == (600, 400)


def test_ratings_at_the_cutoff_are_live_all_of_them() -> None:
    times = [START, *[START + 400 * DAY_S] * 8, START + 500 * DAY_S]
    split = split_at_week(Timestamps(times))
    assert (split.n_training, split.n_live) == (1, 9)


def test_data_shorter_than_ten_weeks_has_no_live_part() -> None:
    times = [START + d * DAY_S for d in range(30)]
    assert (split_at_week(Timestamps(times)).n_training, split_at_week(Timestamps(times)).n_live) == (30, 0)
    assert split_at_week(Timestamps(times), week=3).n_live == 16


def test_equal_timestamps_are_all_training_or_all_live() -> None:
    dataset = Timestamps([START] * 5)
    assert (split_at_week(dataset).n_training, split_at_week(dataset).n_live) == (5, 0)
    assert (split_at_week(dataset, week=1).n_training, split_at_week(dataset, week=1).n_live) == (0, 5)


def test_no_ratings_is_an_error() -> None:
    with pytest.raises(DataError, match="timestamps: expected ratings, found none"):
        split_at_week(Timestamps([]))
    with pytest.raises(DataError, match="expected ratings"):
        split_at_week(Timestamps([]), start=START)


def test_week_zero_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"week: expected 1 or more.*found 0"):
        split_at_week(Timestamps([START]), week=0)


def test_start_is_auto_or_a_date() -> None:
    assert parse_start("auto") is None
    assert parse_start("1998-07-09T16:00:00") == START
    assert parse_start("1998-07-09T18:00:00+02:00") == START
    with pytest.raises(ConfigError, match=r"start: expected auto or a date.*found 'week 10'"):
        parse_start("week 10")


def test_auto_start_is_the_same_for_every_week(small: Dataset) -> None:
    assert auto_start(small) == split_at_week(small, week=3).start == split_at_week(small, week=20).start

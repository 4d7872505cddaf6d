"""Where the training part of a run ends and the live part begins.

Week N starts at ``start + 7 days x (N - 1)`` in event time. All before it is training data, published unpaced; what
follows is replayed as if it were happening now.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.dataset import Dataset
from streams.errors import ConfigError, DataError
from streams.events import DAY_S

__all__ = ["WEEK_S", "WeekSplit", "auto_start", "split_at_week"]

WEEK_S = 7 * DAY_S
_YEAR_S = 365 * DAY_S
_AUTO_WEEK = 10


@dataclass(frozen=True, slots=True)
class WeekSplit:
    """A run's two parts. ``start`` and ``cutoff``: seconds since the epoch; ratings before ``cutoff`` are training."""

    start: int
    week: int
    cutoff: int
    n_training: int
    n_live: int


def auto_start(dataset: Dataset) -> int:
    """The start of week 1 (seconds since the epoch) when nobody names one.

    The first event where the data spans under a year. Else the latest start that leaves at most 60 % of the ratings
    before week 10, so that a log of many years has both enough to train on and enough to replay; it may lie before
    the first event. Raises DataError for a dataset without ratings.
    """
    _refuse_empty(dataset)
    first = dataset.first_timestamp
    if dataset.last_timestamp - first < _YEAR_S:
        return first
    return dataset.timestamp_at(dataset.n_ratings * 6 // 10) - (_AUTO_WEEK - 1) * WEEK_S


def split_at_week(dataset: Dataset, *, week: int = 10, start: int | None = None) -> WeekSplit:
    """The split at the beginning of ``week``; ``start`` is where week 1 begins, :func:`auto_start` by default.

    Data that ends before ``week`` gives ``n_live`` 0, and data that begins after it ``n_training`` 0. Raises
    ConfigError for a week below 1 and DataError for a dataset without ratings.
    """
    if week < 1:
        raise ConfigError(f"week: expected 1 or more (week 1 replays from the start), found {week}")
    _refuse_empty(dataset)
    begin = auto_start(dataset) if start is None else start
    cutoff = begin + (week - 1) * WEEK_S
    n_training = dataset.position_of(cutoff)
    return WeekSplit(begin, week, cutoff, n_training, dataset.n_ratings - n_training)


def _refuse_empty(dataset: Dataset) -> None:
    if dataset.n_ratings == 0:
        raise DataError(f"{dataset.name}: expected ratings, found none; choose another dataset")

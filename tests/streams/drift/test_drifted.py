"""A dataset with drift is a dataset: the same in any portions, found at any position, in order, in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dataset import Ratings
from streams.drift import DriftedDataset, parse_drifts
from streams.drift.rating_bias import calibrated_fall, mean_fall
from streams.drift.spec import KINDS, STRENGTHS
from streams.errors import ConfigError
from streams.events import DAY_S
from streams.split import WEEK_S

Hold = Callable[..., Any]
COLUMNS = ("user_id", "movie_id", "rating", "timestamp", "arrives", "malformed")
WEEKS = 12
DAY_0 = 12_000 * DAY_S
drift = st.builds("{}@{}:{}".format, st.sampled_from(KINDS), st.integers(2, WEEKS - 2), st.sampled_from(STRENGTHS))


def together(chunks: Iterable[Ratings]) -> dict[str, Any]:
    """All chunks as columns."""
    found = list(chunks)
    columns = {c: np.concatenate([np.empty(0), *(getattr(r, c) for r in found)]) for c in COLUMNS[:-1]}
    sorts = [np.zeros(len(r)) if r.malformed is None else r.malformed for r in found]
    return {**columns, "malformed": np.concatenate([np.empty(0), *sorts])}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[c], other[c]) for c in COLUMNS)


def put_in(data: Any, *drifts: str, seed: int = 0, lateness_s: int = DAY_S) -> DriftedDataset:
    return DriftedDataset(data, parse_drifts(drifts), start=data.first_timestamp, seed=seed, lateness_s=lateness_s)


@settings(max_examples=150, deadline=None)
@given(
    drifts=st.lists(drift, min_size=1, max_size=4),
    seed=st.integers(0, 50),
    seconds=st.sampled_from([1, 3_600, DAY_S, 7 * DAY_S]),
    block=st.sampled_from([1, 7, 60, 10_000]),
    chunk=st.sampled_from([1, 13, 10_000]),
    size=st.sampled_from([1, 17, 10_000]),
    lateness_s=st.sampled_from([0, DAY_S, 20 * DAY_S]),
    at=st.integers(0, 2_000),
)
def test_it_is_the_same_in_any_portions_and_found_at_any_position(
    held: Hold,
    drifts: list[str],
    seed: int,
    seconds: int,
    block: int,
    chunk: int,
    size: int,
    lateness_s: int,
    at: int,
) -> None:
    data = held(300, days=7 * WEEKS, seed=seed, seconds=seconds)
    whole = put_in(data, *drifts, seed=seed, lateness_s=lateness_s)
    expected = together(whole.chunks())
    n = len(expected["timestamp"])
    data.chunk_size = chunk
    with patch("streams.drift.blocks.BLOCK_SIZE", block):
        drifted = put_in(data, *drifts, seed=seed, lateness_s=lateness_s)
        assert drifted.n_ratings == n
        assert same(together(drifted.chunks(size=size)), expected)
        at = at % (n + 1)
        rest = {name: column[at:] for name, column in expected.items()}
        assert same(together(drifted.chunks(start=at, size=size)), rest)
        if at < n:
            assert drifted.timestamp_at(at) == expected["arrives"][at]
            for moment in (drifted.timestamp_at(at), drifted.timestamp_at(at) + 1):
                assert drifted.position_of(moment) == np.searchsorted(expected["arrives"], moment)
        assert drifted.position_of(data.first_timestamp) == 0
        assert drifted.position_of(2**50) == n
        # What it says was injected depends on no portion either, and grows to what is in the whole.
        assert drifted.injected() == whole.injected()
        assert drifted.injected(at) == whole.injected(at)
    for part, of_all in zip(whole.injected(at), whole.injected(), strict=True):
        assert 0 <= part.n_records <= of_all.n_records
        assert part.first_ordinal == (of_all.first_ordinal if part.n_records else None)
    assert expected["malformed"].astype(bool).sum() == sum(
        d.n_records for d in whole.injected() if d.kind == "malformed"
    )
    late = expected["arrives"] > expected["timestamp"]
    assert late.sum() == sum(d.n_records for d in whole.injected() if d.kind == "late")
    assert not (late & (expected["malformed"] > 0)).any()


@settings(max_examples=50, deadline=None)
@given(drifts=st.lists(drift, min_size=1, max_size=4), seed=st.integers(0, 50))
def test_it_is_in_the_total_order_by_arrival(held: Hold, drifts: list[str], seed: int) -> None:
    found = together(put_in(held(300, days=7 * WEEKS, seed=seed, seconds=DAY_S), *drifts, seed=seed).chunks())
    order = list(zip(found["arrives"], found["user_id"], found["movie_id"], strict=True))
    assert order == sorted(order)


def test_positions_beyond_the_ends_are_refused(held: Hold) -> None:
    drifted = put_in(held(300, days=7 * WEEKS), "volume-drop@3:high")
    assert (drifted.first_timestamp, drifted.last_timestamp) == (
        drifted.timestamp_at(0),
        drifted.timestamp_at(-1 % drifted.n_ratings),
    )
    for position in (-1, drifted.n_ratings):
        with pytest.raises(IndexError):
            drifted.timestamp_at(position)


def test_equal_fingerprints_mean_equal_drift(held: Hold) -> None:
    data = held(300, days=7 * WEEKS)
    drifted = [
        put_in(data, "late@3:low"),
        put_in(data, "late@4:low"),
        put_in(data, "late@3:high"),
        put_in(data, "late@3:low", "late@4:low"),
        put_in(data, "late@4:low", "late@3:low"),
        put_in(data, "late@3:low", seed=1),
        put_in(data, "late@3:low", lateness_s=5),
    ]
    assert len({d.fingerprint for d in drifted} | {data.fingerprint}) == len(drifted) + 1
    assert put_in(data, "late@3:low").fingerprint == drifted[0].fingerprint


# Several drifts


def test_each_drift_meets_what_those_before_it_left(held: Hold) -> None:
    data = held(20_000, days=7 * WEEKS, users=300)
    begins = data.first_timestamp + 3 * WEEK_S
    flood_first = put_in(data, "new-user-flood@4:low", "volume-drop@4:high")
    drop_first = put_in(data, "volume-drop@4:high", "new-user-flood@4:low")
    highest = data.ratings.user_id.max()

    def pairs(drifted: DriftedDataset) -> tuple[int, int]:
        """Ratings of companions, and how many of them the user they accompany gave as well."""
        found = together(drifted.chunks())
        step = drifted.injected()[[d.kind for d in drifted.drifts].index("new-user-flood")].parameters[
            "companion_id_step"
        ]
        rows = set(zip(found["user_id"], found["movie_id"], found["timestamp"], strict=True))
        companions = [row for row in rows if row[0] > highest]
        assert all(row[2] >= begins for row in companions)
        return len(companions), sum((user - step, movie, at) in rows for user, movie, at in companions)

    n, both = pairs(drop_first)
    assert n == both > 500  # who is copied after the drop is copied whole
    n, both = pairs(flood_first)
    assert both == pytest.approx(0.3 * n, rel=0.15)  # copies of their own are dropped on their own


def test_two_of_a_kind_add_up(held: Hold) -> None:
    data = held(30_000, days=7 * WEEKS)
    found = together(put_in(data, "rating-bias@3:low", "rating-bias@6:middle").chunks())
    fall = data.ratings.rating - found["rating"]
    weeks = (data.ratings.timestamp - data.first_timestamp) // WEEK_S + 1
    assert not fall[weeks < 3].any()
    assert fall[(weeks >= 3) & (weeks < 6)].mean() == pytest.approx(0.25, abs=0.03)
    assert fall[weeks >= 6].mean() == pytest.approx(0.75, abs=0.03)
    dropped = put_in(data, "volume-drop@3:low", "volume-drop@3:low")
    assert dropped.n_ratings / data.n_ratings == pytest.approx(1 - (1 - 0.8 * 0.8) * np.mean(weeks >= 3), abs=0.01)


def test_a_drift_does_not_change_what_chance_does_for_another_kind(held: Hold) -> None:
    data = held(5_000, days=7 * WEEKS)
    alone = together(put_in(data, "malformed@5:high").chunks())
    beside = together(put_in(data, "rating-bias@3:high", "malformed@5:high").chunks())
    assert np.array_equal(alone["malformed"], beside["malformed"])


def test_a_rating_left_out_is_neither_late_nor_malformed(held: Hold) -> None:
    drifted = put_in(held(20_000, days=7 * WEEKS), "late@3:high", "malformed@3:high", "volume-drop@3:high")
    found = together(drifted.chunks())
    late, malformed, dropped = (d.n_records for d in drifted.injected())
    assert late == (found["arrives"] > found["timestamp"]).sum() > 100
    assert malformed == (found["malformed"] > 0).sum() > 100
    assert dropped == 20_000 - drifted.n_ratings


# Refusals


def test_a_drift_after_the_data_names_the_last_week(held: Hold) -> None:
    with pytest.raises(ConfigError, match=r"drift late@13:low: expected a week up to 12, in which held ends, found 13"):
        put_in(held(300, days=7 * WEEKS), "late@13:low")


def test_taste_needs_another_genre_and_a_flip_another_movie(held: Hold) -> None:
    data = held(300, days=7 * WEEKS, movies=1)
    with pytest.raises(ConfigError, match=r"taste-shift@3:low: expected rated movies of two genres or more .* found 1"):
        put_in(data, "taste-shift@3:low")
    with pytest.raises(ConfigError, match=r"popularity-flip@3:low: expected ratings of two movies or more .* found 1"):
        put_in(data, "popularity-flip@3:low")


# Strength


@given(st.lists(st.integers(0, 1_000), min_size=10, max_size=10).filter(any), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_floor_does_not_weaken_a_bias(counts: list[int], wanted: float) -> None:
    histogram = np.array(counts)
    room = float(histogram @ np.arange(10) / histogram.sum())
    fall = calibrated_fall(histogram, wanted)
    assert fall >= wanted - 1e-9
    assert mean_fall(histogram, fall) == pytest.approx(min(wanted, room), abs=1e-6)


# Memory


def test_memory_does_not_grow_with_the_data(held: Hold) -> None:
    """What is held while data with drift is opened and read, beyond the data."""
    data = held(10, days=1)

    def peak(n: int) -> int:
        rng = np.random.default_rng(0)
        times = DAY_0 + np.sort(rng.integers(0, 4_000 * DAY_S, n))
        users, movies = rng.integers(1, 1_000, n), rng.integers(1, 3_000, n)
        data.ratings = Ratings(users, movies, rng.integers(1, 11, n) / 2, times)
        return _peak_of(lambda: sum(map(len, put_in(data, *(f"{kind}@3:middle" for kind in KINDS)).chunks())))

    tracemalloc.start()
    try:
        assert peak(1_600_000) < peak(400_000) + 2_000_000
    finally:
        tracemalloc.stop()


def _peak_of(read: Callable[[], int]) -> int:
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    assert read() > 0
    _, peak = tracemalloc.get_traced_memory()
    return peak - before

"""Nulls, ranges and shift by hand; the sample is the same each time, and the baseline outlives a restart."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from featurestore.catalogue import Catalogue
from featurestore.quality import (
    MIN_VALUES,
    PSI_SHIFTED,
    VALID,
    FeatureQuality,
    Histogram,
    assess,
    histogram,
    psi,
    user_columns,
)
from featurestore.quality_sample import SAMPLED_MOVIES, SAMPLED_USERS, baseline_of, sample
from featurestore.reader import FeatureReader
from streams.dataset import Movie
from streams.events import DAY_S, Rating, Tick

BuildStore = Callable[..., str]
T0 = 15_000 * DAY_S
TRAINING_END = T0 + 10 * DAY_S
CATALOGUE = Catalogue([Movie(1, "One", 1990, ("Comedy",)), Movie(2, "Two", 1990, ("Comedy", "War"))])
TRAINING = [Rating(n % 150, n % 3, 3.0 + n % 2, T0 + n) for n in range(900)]
LIVE = [Rating(n % 300, n % 300, 1.0, TRAINING_END + n) for n in range(900)]
ENDS_TRAINING = [Tick(TRAINING_END)] * 2
ENDS_RUN = [Tick(TRAINING_END + DAY_S)] * 2


def test_psi_is_what_it_is_by_hand() -> None:
    """Of 20, 30, 50 against 50, 30, 20 values, with half a one added to each bin."""
    shares, found = (20.5 / 101.5, 30.5 / 101.5, 50.5 / 101.5), (50.5 / 101.5, 30.5 / 101.5, 20.5 / 101.5)
    by_hand = sum((b - a) * math.log(b / a) for a, b in zip(shares, found, strict=True))
    assert by_hand == pytest.approx(2 * 30 / 101.5 * math.log(50.5 / 20.5))
    assert psi([20, 30, 50], [50, 30, 20]) == pytest.approx(by_hand) == pytest.approx(0.53294, abs=1e-5)
    assert psi([50, 30, 20], [20, 30, 50]) == pytest.approx(by_hand)
    assert psi([20, 30, 50], [20, 30, 50]) == 0
    assert math.isfinite(psi([100, 0], [0, 100]))


def test_a_histogram_has_a_tenth_of_the_values_in_each_bin_and_one_bin_for_equal_ones() -> None:
    assert histogram(np.arange(1_000.0)).counts == [100] * 10
    assert histogram(np.ones(50)) == Histogram([], [50])
    mostly_ones = histogram(np.array([1.0] * 85 + [2.0] * 15))
    assert (mostly_ones.edges, mostly_ones.counts) == ([2.0], [85, 15])
    assert histogram(np.array([np.nan, np.inf])).counts == [0]


def test_nulls_and_values_out_of_range_are_counted() -> None:
    values = np.array([0.5, 5.0, 5.1, -1.0, np.inf, np.nan, np.nan, 3.0])
    (found,) = assess({"user.mean_rating": values}, {})
    assert found == FeatureQuality("user.mean_rating", 8, 2 / 8, 3 / 6, -1.0, 5.1, None)


def test_a_column_of_nothing_but_nulls_has_no_extremes() -> None:
    (found,) = assess({"item.mean_rating_28d": np.full(4, np.nan)}, {})
    assert (found.null_share, found.out_of_range, found.low, found.high) == (1.0, 0.0, None, None)
    assert assess({"item.mean_rating_28d": np.zeros(0)}, {}) == []


def test_few_values_on_either_side_give_no_psi() -> None:
    enough, few = np.linspace(1, 5, MIN_VALUES), np.linspace(1, 5, MIN_VALUES - 1)
    for baseline, values, known in ((enough, enough, True), (few, enough, False), (enough, few, False)):
        (found,) = assess({"user.mean_rating": values}, {"user.mean_rating": histogram(baseline)})
        assert (found.psi is not None) == known


def test_two_samples_of_one_world_do_not_differ_and_one_that_moved_does() -> None:
    rng = np.random.default_rng(7)
    baseline = {"user.mean_rating": histogram(rng.normal(3.5, 0.5, 600))}

    def shift(by: float) -> float:
        (found,) = assess({"user.mean_rating": rng.normal(3.5 + by, 0.5, 600)}, baseline)
        assert found.psi is not None
        return found.psi

    assert shift(0.0) < PSI_SHIFTED / 2
    assert shift(-0.5) > PSI_SHIFTED


def test_the_entropy_of_taste_is_0_for_one_genre_and_1_for_all_alike(build_store: BuildStore) -> None:
    ratings = [Rating(0, 1, 3.0, T0), Rating(1, 2, 3.0, T0), Rating(2, 9, 3.0, T0), Rating(4, 1, 3.0, T0)]
    with FeatureReader(build_store(ratings, catalogue=CATALOGUE)) as reader:
        entropy = user_columns(reader.get_user_features([0, 1, 2, 3]))["user.taste_entropy"]
    np.testing.assert_allclose(entropy, [0.0, 1.0, np.nan])  # user 2 rated no movie with a genre, 3 none


def test_the_sample_is_bounded_spread_over_the_ids_and_always_the_same(build_store: BuildStore) -> None:
    ids = range(7, 5_000)
    with FeatureReader(build_store([Rating(i, i, 3.0, T0 + i) for i in ids])) as reader:
        columns = sample(reader)
        assert columns.keys() == VALID.keys()
        assert len(columns["user.mean_rating"]) == SAMPLED_USERS
        assert len(columns["item.mean_rating"]) == SAMPLED_MOVIES
        picked = reader.sample_users(500)
        assert picked == reader.sample_users(500) == sorted(set(picked) & set(ids))
        assert 2_200 < np.mean(picked) < 2_800
        assert reader.sample_users(500, before=T0 + 9) == [7, 8]
        assert reader.sample_movies(9, before=T0 + 9) == [7, 8]


def test_an_empty_store_has_no_quality(build_store: BuildStore) -> None:
    with FeatureReader(build_store([Tick(T0)] * 2)) as reader:
        assert assess(sample(reader), baseline_of(reader, T0) or {}) == []


def test_the_baseline_is_of_the_end_of_the_training_part_whenever_it_is_taken(
    build_store: BuildStore, tmp_path: Path
) -> None:
    def build(name: str, records: list[Rating | Tick]) -> FeatureReader:
        return FeatureReader(build_store(records, catalogue=CATALOGUE, path=tmp_path / name / "features.db"))

    with build("a", TRAINING) as reader:
        assert baseline_of(reader, TRAINING_END) is None, "the store has not got there"
        assert baseline_of(reader, None) is None
    with build("b", [*TRAINING, *ENDS_TRAINING]) as reader:
        in_time = baseline_of(reader, TRAINING_END)
    with build("c", [*TRAINING, *ENDS_TRAINING, *LIVE, *ENDS_RUN]) as reader:
        assert baseline_of(reader, TRAINING_END) == in_time
    assert in_time is not None
    assert sum(in_time["user.mean_rating"].counts) == 150


def test_the_baseline_outlives_a_restart_and_is_replaced_for_another_store(
    build_store: BuildStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "features.db"
    records = [*TRAINING, *ENDS_TRAINING]
    url = build_store(records, path=path)
    with FeatureReader(url) as reader:
        taken = baseline_of(reader, TRAINING_END)
    with FeatureReader(url) as reader, monkeypatch.context() as patch:
        patch.setattr("featurestore.quality_sample.sample", lambda *_, **__: pytest.fail("taken again"))
        assert baseline_of(reader, TRAINING_END) == taken
    with FeatureReader(url) as reader:
        assert baseline_of(reader, TRAINING_END - DAY_S) != taken, "another training part"
    path.unlink()
    with FeatureReader(build_store([*TRAINING[:600], *ENDS_TRAINING], path=path)) as reader:
        assert baseline_of(reader, TRAINING_END) not in (None, taken)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b'["other"]'])
def test_a_damaged_baseline_is_taken_again(build_store: BuildStore, tmp_path: Path, content: bytes) -> None:
    url = build_store([*TRAINING, *ENDS_TRAINING], path=tmp_path / "features.db")
    kept = tmp_path / "features.baseline.json"
    with FeatureReader(url) as reader:
        taken = baseline_of(reader, TRAINING_END)
        kept.write_bytes(content)
        with capture_logs() as logs:
            assert baseline_of(reader, TRAINING_END) == taken
            assert baseline_of(reader, TRAINING_END) == taken
    assert len(logs) == 1


def test_a_baseline_that_cannot_be_kept_costs_a_warning(build_store: BuildStore, tmp_path: Path) -> None:
    url = build_store([*TRAINING, *ENDS_TRAINING], path=tmp_path / "features.db")
    (tmp_path / "features.baseline.json").mkdir()
    with FeatureReader(url) as reader, capture_logs() as logs:
        assert baseline_of(reader, TRAINING_END) is not None
    assert [log["log_level"] for log in logs] == ["warning"] * 2
    assert list(tmp_path.glob("*.partial")) == []

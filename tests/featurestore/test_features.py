"""Decayed popularity, taste and recency against a naive count; no read of the past knows the future."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.aggregate import Accepted
from featurestore.catalogue import Catalogue
from featurestore.decay import LANDMARK, MIN_HALF_LIFE_DAYS, age_scale, day_weights, forward_weights
from featurestore.features import WINDOWS_S, item_features, item_sums
from featurestore.reader import FeatureReader
from featurestore.snapshot import take_snapshot
from featurestore.snapshot_reader import Snapshot
from featurestore.view_settings import ViewSettings
from streams.dataset import Movie
from streams.errors import ConfigError
from streams.events import DAY_S, EARLIEST_TIMESTAMP, HOUR_S, Rating, Tick

T0 = 1_000_000_000 - 1_000_000_000 % DAY_S
HALF_LIFE_DAYS = 20.0
VIEWS = ViewSettings(popularity_half_life_days=HALF_LIFE_DAYS, taste_half_life_days=HALF_LIFE_DAYS)
GENRES = {0: ("Comedy", "Drama", "War"), 1: ("Drama",), 2: ()}  # 3 is not in the catalogue
CATALOGUE = Catalogue(Movie(movie_id, f"Movie {movie_id}", 1990, genres) for movie_id, genres in GENRES.items())
ALL_GENRES = ("Comedy", "Drama", "War")

BuildStore = Callable[..., str]

ratings = st.builds(
    Rating,
    user_id=st.integers(0, 3),
    movie_id=st.integers(0, 3),
    rating=st.integers(1, 10).map(lambda half: half / 2),
    timestamp=st.integers(0, 400).map(lambda step: T0 + step * 7_200),
)


def naive_taste(rated: Sequence[Rating], as_of: int) -> tuple[list[float], list[float]]:
    weight: dict[str, float] = defaultdict(float)
    stars: dict[str, float] = defaultdict(float)
    for r in rated:
        for genre in GENRES.get(r.movie_id, ()):
            w = 0.5 ** ((as_of - r.timestamp) / (HALF_LIFE_DAYS * DAY_S))
            weight[genre] += w
            stars[genre] += w * r.rating
    total = sum(weight.values())
    shares = [weight[g] / total if total else 0.0 for g in ALL_GENRES]
    return shares, [stars[g] / weight[g] if weight[g] else math.nan for g in ALL_GENRES]


def naive_decay(rated: Sequence[Rating], end_day: int) -> float:
    return sum(0.5 ** ((end_day - 1 - r.timestamp // DAY_S) / HALF_LIFE_DAYS) for r in rated)


@settings(max_examples=50, deadline=None)
@given(rated=st.lists(ratings, min_size=1, max_size=40), clock_h=st.integers(0, 800), as_of_h=st.integers(0, 800))
def test_reads_equal_a_naive_count(build_store: BuildStore, rated: list[Rating], clock_h: int, as_of_h: int) -> None:
    clock, as_of = T0 + clock_h * HOUR_S, T0 + as_of_h * HOUR_S + 1_234
    rated = sorted(rated, key=lambda r: r.timestamp)
    with FeatureReader(build_store([*rated, Tick(clock), Tick(clock)], catalogue=CATALOGUE, views=VIEWS)) as reader:
        users, items = reader.get_user_features([0, 1, 2, 3, 9]), reader.get_item_features([0, 1, 2, 3, 9])
        users_then = reader.get_user_features([3, 1, 9], as_of=as_of)
        items_then = reader.get_item_features([3, 1, 9], as_of=as_of)
        popular, popular_then = reader.popular_decayed(), reader.popular_decayed(as_of)
        end_day, end_hour = clock // DAY_S + 1, clock // HOUR_S + 1
        assert users.genres == ALL_GENRES
        for features, moment, before in ((users, clock, math.inf), (users_then, as_of, as_of)):
            for row, user_id in enumerate(features.user_id.tolist()):
                mine = [r for r in rated if r.user_id == user_id and r.timestamp < before]
                shares, means = naive_taste(mine, moment)
                assert features.taste[row].tolist() == pytest.approx(shares, rel=1e-9)
                assert features.taste_mean[row].tolist() == pytest.approx(means, rel=1e-9, nan_ok=True)
                recency = max(moment - mine[-1].timestamp, 0) if mine else math.nan
                assert features.recency_s[row] == pytest.approx(recency, nan_ok=True)
        for row, movie_id in enumerate(items.movie_id.tolist()):
            mine = [r for r in rated if r.movie_id == movie_id]
            assert items.decayed_popularity[row] == pytest.approx(naive_decay(mine, end_day), rel=1e-9)
            recency = max(end_hour * HOUR_S - mine[-1].timestamp, 0) if mine else math.nan
            assert items.recency_s[row] == pytest.approx(recency, nan_ok=True)
        for row, movie_id in enumerate(items_then.movie_id.tolist()):
            mine = [r for r in rated if r.movie_id == movie_id and r.timestamp < as_of - as_of % DAY_S]
            assert items_then.decayed_popularity[row] == pytest.approx(naive_decay(mine, as_of // DAY_S), rel=1e-9)
        for found, end, before in ((popular, end_day, math.inf), (popular_then, as_of // DAY_S, as_of - as_of % DAY_S)):
            by_movie = {m: [r for r in rated if r.movie_id == m and r.timestamp < before] for m in range(4)}
            scores = {m: naive_decay(mine, end) for m, mine in by_movie.items() if mine}
            assert {p.movie_id: p.score for p in found} == pytest.approx(scores, rel=1e-9)
            assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
            assert {p.movie_id: p.n_ratings for p in found} == {m: len(by_movie[m]) for m in scores}


def as_rows(features: object) -> str:
    """A reader's answer in full precision."""
    return repr(
        {
            name: value.tolist() if isinstance(value := getattr(features, name), np.ndarray) else value
            for name in features.__dataclass_fields__  # type: ignore[attr-defined]
        }
    )


AROUND_S = (-DAY_S, -HOUR_S, -1, 0, 1, HOUR_S, DAY_S, 90 * DAY_S)
"""How far ratings lie from the moment that is asked about, beside anywhere: on both sides of every bucket's edge."""


@settings(max_examples=40, deadline=None)
@given(
    rated=st.lists(ratings, max_size=30),
    near=st.lists(st.tuples(ratings, st.sampled_from(AROUND_S)), min_size=1, max_size=20),
    as_of=st.one_of(
        st.integers(T0, T0 + 40 * DAY_S),
        st.integers(0, 40 * 24).map(lambda hour: T0 + hour * HOUR_S),
        st.integers(0, 40).map(lambda day: T0 + day * DAY_S),
    ),
    in_order=st.booleans(),
)
def test_no_read_of_the_past_changes_when_later_events_come(
    build_store: BuildStore,
    tmp_path_factory: pytest.TempPathFactory,
    rated: list[Rating],
    near: list[tuple[Rating, int]],
    as_of: int,
    in_order: bool,
) -> None:
    """Whether they come in order or are late: behind the ticks of months."""
    every = [*rated, *(msgspec.structs.replace(r, timestamp=as_of + away) for r, away in near)]
    past, later = [r for r in every if r.timestamp < as_of], [r for r in every if r.timestamp >= as_of]
    folder = tmp_path_factory.mktemp("store")

    def everything(records: Sequence[Rating | Tick]) -> tuple[list[object], list[float]]:
        """Every read as of then of the store, which goes on with what ``records`` have beyond those before."""
        url = build_store(records, catalogue=CATALOGUE, views=VIEWS, path=folder / "features.db")
        take_snapshot(url, folder / "snapshot", as_of, overwrite=True)
        snapshot = Snapshot(folder / "snapshot")
        # A snapshot adds up page by page, and later users move the pages: its decayed sums are the same to rounding.
        decayed = snapshot.items.decayed_popularity.tolist()
        items = replace(snapshot.items, decayed_popularity=np.zeros(0))
        with FeatureReader(url) as reader:
            reads = [
                snapshot.interactions().to_pylist(),
                as_rows(items),
                as_rows(snapshot.users),
                as_rows(reader.get_user_features(range(5), as_of)),
                as_rows(reader.get_item_features(range(5), as_of)),
                *(as_rows(reader.history(user, as_of)) for user in range(4)),
                *(repr(reader.popular(seconds, as_of)) for seconds in WINDOWS_S.values()),
                repr(reader.popular_decayed(as_of)),
            ]
            return reads, decayed

    reads, decayed = everything(past)
    ticks = [] if in_order else [Tick(as_of + 200 * DAY_S)] * 2
    assert everything([*past, *ticks, *later]) == (reads, pytest.approx(decayed, rel=1e-9))


@settings(max_examples=50, deadline=None)
@given(rated=st.lists(ratings, max_size=40), as_of_h=st.integers(0, 800))
def test_a_pass_over_the_ratings_gives_what_the_buckets_give(
    build_store: BuildStore, rated: list[Rating], as_of_h: int
) -> None:
    """Snapshots compute items from interactions, readers from buckets."""
    as_of = T0 + as_of_h * HOUR_S + 1_234
    rows = [[n, r.user_id, r.movie_id, int(r.rating * 2), r.timestamp] for n, r in enumerate(rated)]
    accepted = Accepted(*np.array(rows, np.int64).reshape(-1, 5).T, late=np.zeros(len(rated), bool))
    found = item_features(
        range(5),
        item_sums(accepted, as_of, HALF_LIFE_DAYS),
        as_of=as_of // HOUR_S * HOUR_S,
        end_day=as_of // DAY_S,
        half_life_days=HALF_LIFE_DAYS,
    )
    with FeatureReader(build_store(rated, catalogue=CATALOGUE, views=VIEWS)) as reader:
        expected = reader.get_item_features(range(5), as_of)
    for name in ("known", "n_ratings", "first_rated", "last_rated", "as_of"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name in ("mean_rating", "recency_s", "decayed_popularity"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, err_msg=name)
    for window in WINDOWS_S:
        np.testing.assert_array_equal(found.window_n[window], expected.window_n[window])
        np.testing.assert_allclose(found.window_mean[window], expected.window_mean[window])


@pytest.mark.parametrize("as_of", [-(2**40), 0, 2**40])
def test_reads_as_of_any_time_are_finite(build_store: BuildStore, as_of: int) -> None:
    """Also long before there were ratings, where no float holds what ages are scaled by."""
    views = ViewSettings(popularity_half_life_days=MIN_HALF_LIFE_DAYS)
    with FeatureReader(build_store([Rating(1, 1, 3.0, T0)], views=views)) as reader:
        items, popular = reader.get_item_features([1, 2], as_of), reader.popular_decayed(as_of)
    assert items.known.tolist() == [as_of > T0, False]
    assert items.decayed_popularity.tolist() == [0.0, 0.0]  # 2^40: so long after that nothing is left
    assert [(found.n_ratings, found.score) for found in popular] == [(1, 0.0)] * (as_of > T0)


def test_a_store_without_movies_has_no_taste(build_store: BuildStore) -> None:
    with FeatureReader(build_store([Rating(1, 1, 3.0, T0)])) as reader:
        users = reader.get_user_features([1, 2])
        assert (users.genres, users.taste.shape, users.taste_mean.shape) == ((), (2, 0), (2, 0))
        assert reader.movies([1]) == {}


def test_a_store_keeps_its_movies(build_store: BuildStore) -> None:
    url = build_store([Rating(1, 1, 3.0, T0)], catalogue=CATALOGUE)
    with FeatureReader(url) as reader:
        assert reader.movies([1, 3]) == {1: CATALOGUE.movies[1]}
        assert reader.catalogue.fingerprint == CATALOGUE.fingerprint
    path = Path(url.removeprefix("sqlite:///"))
    build_store([Rating(1, 1, 3.0, T0)], path=path)  # a worker that knows no movies takes the store's
    with pytest.raises(ConfigError, match=r"built with other movies .* worker --rebuild"):
        build_store([], path=path, catalogue=Catalogue([Movie(1, "Another", None, ())]))


def test_the_shortest_half_life_spans_all_valid_times() -> None:
    """A sum of 2^40 ratings at either end neither overflows nor vanishes."""
    ends = np.array([EARLIEST_TIMESTAMP, LANDMARK + 35 * 365 * DAY_S])
    weights = forward_weights(ends, MIN_HALF_LIFE_DAYS)
    assert (weights > np.finfo(np.float64).tiny).all()
    assert np.isfinite(weights * 2.0**40).all()
    for end in (ends // DAY_S).tolist():
        assert day_weights(np.array([end]), MIN_HALF_LIFE_DAYS)[0] * age_scale(end + 1, MIN_HALF_LIFE_DAYS) == (
            pytest.approx(1.0, rel=1e-9)
        )
    with pytest.raises(ConfigError, match="taste_half_life_days: expected 14 days or more, found 7"):
        ViewSettings(taste_half_life_days=7)

"""The synthetic world: like MovieLens in shape, the same however it is read, and true to its own oracle."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dataset import Ratings, open_dataset
from streams.errors import ConfigError
from streams.summary import SESSION_GAP_S, concatenate, session_lengths, summarise
from streams.synthetic import SyntheticDataset, SyntheticOptions, parse_options
from streams.synthetic.draws import Draws
from streams.synthetic.schedule import make_schedule

FIRST, LAST = 828_124_615, 1_537_799_250  # the span of ml-latest-small
COLUMNS = ("user_id", "movie_id", "rating", "timestamp")


def same(one: Ratings, other: Ratings) -> bool:
    return all(np.array_equal(getattr(one, c), getattr(other, c)) for c in COLUMNS)


@pytest.fixture(scope="module")
def world() -> SyntheticDataset:
    return SyntheticDataset()


@pytest.fixture(scope="module")
def ratings(world: SyntheticDataset) -> Ratings:
    return concatenate(world.chunks())


@pytest.fixture(scope="module")
def real() -> Ratings:
    return concatenate(open_dataset().chunks())


@pytest.fixture(scope="module")
def large() -> tuple[SyntheticDataset, Ratings]:
    """Several blocks, many users at once."""
    dataset = SyntheticDataset(SyntheticOptions(ratings=400_000, seed=3))
    return dataset, concatenate(dataset.chunks())


# -- shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_world_has_the_shape_of_ml_latest_small(real: Ratings, seed: int) -> None:
    expected, found = summarise(real), summarise(concatenate(SyntheticDataset(SyntheticOptions(seed=seed)).chunks()))
    assert (found.ratings, found.users) == (expected.ratings, expected.users)
    for name in (
        "movies",
        "popularity_gini",
        "sessions",
        "mean_session",
        "median_session",
        "single_rating_sessions",
        "active_days",
        "ratings_per_active_day",
    ):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=0.1), name
    assert found.rating_shares == pytest.approx(expected.rating_shares, rel=0.1)


def test_session_lengths_are_distributed_as_in_ml_latest_small(real: Ratings, ratings: Ratings) -> None:
    lengths = np.arange(1, 1_020)
    cdfs = [np.searchsorted(np.sort(session_lengths(r)), lengths, "right") for r in (real, ratings)]
    distance = np.abs(cdfs[0] / cdfs[0][-1] - cdfs[1] / cdfs[1][-1]).max()  # Kolmogorov-Smirnov
    assert distance < 0.08


def test_a_larger_world_has_as_many_users_more_and_keeps_sessions_and_stars(
    real: Ratings, large: tuple[SyntheticDataset, Ratings]
) -> None:
    expected, found = summarise(real), summarise(large[1])
    assert found.ratings == 400_000
    assert found.ratings / found.users == pytest.approx(expected.ratings / expected.users, rel=0.01)
    assert found.mean_session == pytest.approx(expected.mean_session, rel=0.1)
    assert found.single_rating_sessions == pytest.approx(expected.single_rating_sessions, rel=0.1)
    assert found.rating_shares == pytest.approx(expected.rating_shares, rel=0.1)


def test_nobody_rates_a_movie_twice_nor_before_its_release(
    world: SyntheticDataset, ratings: Ratings, large: tuple[SyntheticDataset, Ratings]
) -> None:
    for dataset, all_ratings in ((world, ratings), large):
        pairs = all_ratings.user_id * 1_000_000 + all_ratings.movie_id
        assert len(np.unique(pairs)) == len(all_ratings)
        movies = dataset.movies()
        released = np.array([movies[m].year or 0 for m in range(1, len(movies) + 1)])[all_ratings.movie_id - 1]
        rated = (all_ratings.timestamp.astype("datetime64[s]")).astype("datetime64[Y]").astype(np.int64) + 1970
        assert (released <= rated).all()
        assert (released == rated).any()


def test_sessions_of_a_user_are_at_least_a_session_gap_apart() -> None:
    schedule = make_schedule(SyntheticOptions(ratings=300_000), Draws(0))
    end = schedule.start + schedule.duration
    of_one_user = np.diff(schedule.user) == 0
    assert (schedule.start[1:] - end[:-1])[of_one_user].min() >= SESSION_GAP_S
    assert len(session_lengths(concatenate(SyntheticDataset(SyntheticOptions(ratings=300_000)).chunks()))) == len(end)


def test_ids_stars_and_times_are_valid(ratings: Ratings) -> None:
    assert sorted(set(ratings.rating.tolist())) == [n / 2 for n in range(1, 11)]
    assert ratings.timestamp.min() >= FIRST
    assert ratings.timestamp.max() <= LAST
    assert set(ratings.user_id.tolist()) == set(range(1, 611))
    assert [getattr(ratings, c).dtype for c in COLUMNS] == [np.int64, np.int64, np.float64, np.int64]


def test_movies_have_titles_years_and_genres(world: SyntheticDataset, ratings: Ratings) -> None:
    movies = world.movies()
    assert list(movies) == list(range(1, len(movies) + 1))
    assert set(ratings.movie_id.tolist()) <= movies.keys()
    assert all(movie.title.endswith(f"({movie.year})") and movie.genres for movie in movies.values())
    mean_genres = np.mean([len(movie.genres) for movie in movies.values()])
    assert mean_genres == pytest.approx(2.26, rel=0.1)


# -- the same however it is read --------------------------------------------------------------------------------------


def test_ratings_come_in_the_total_order(large: tuple[SyntheticDataset, Ratings]) -> None:
    ratings = large[1]
    order = np.lexsort((ratings.movie_id, ratings.user_id, ratings.timestamp))
    assert np.array_equal(order, np.arange(len(ratings)))


@pytest.mark.parametrize("size", [997, 100_000, 10_000_000])
def test_chunk_size_changes_nothing(large: tuple[SyntheticDataset, Ratings], size: int) -> None:
    dataset, ratings = large
    chunks = list(dataset.chunks(size=size))
    assert all(0 < len(chunk) <= size for chunk in chunks)
    assert same(concatenate(chunks), ratings)


@pytest.mark.parametrize("start", [1, 49_999, 123_456, 333_333, 399_999])
def test_reading_can_begin_anywhere(large: tuple[SyntheticDataset, Ratings], start: int) -> None:
    dataset, ratings = large
    rest = concatenate(dataset.chunks(start=start, size=30_011))
    assert same(rest, ratings.slice(start))


def test_where_the_time_axis_is_cut_changes_nothing(ratings: Ratings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a block every 50 ratings, many sessions go on from one block to the next."""
    monkeypatch.setattr("streams.synthetic.world._BLOCK_RATINGS", 50)
    dataset = SyntheticDataset()
    assert same(concatenate(dataset.chunks()), ratings)
    for position in range(0, len(ratings), 997):
        assert dataset.timestamp_at(position) == ratings.timestamp[position]


def test_nothing_is_left_at_the_end(world: SyntheticDataset) -> None:
    assert list(world.chunks(start=world.n_ratings)) == []


def test_readers_do_not_disturb_each_other(large: tuple[SyntheticDataset, Ratings]) -> None:
    dataset, ratings = large
    ahead, behind = dataset.chunks(start=200_000, size=5_000), dataset.chunks(size=5_000)
    pairs = list(islice(zip(ahead, behind, strict=False), 12))
    n = sum(len(first) for first, _ in pairs)
    assert same(concatenate(first for first, _ in pairs), ratings.slice(200_000, 200_000 + n))
    m = sum(len(second) for _, second in pairs)
    assert same(concatenate(second for _, second in pairs), ratings.slice(0, m))


def test_positions_and_timestamps_agree_with_the_ratings(large: tuple[SyntheticDataset, Ratings]) -> None:
    dataset, ratings = large
    assert dataset.n_ratings == len(ratings)
    assert (dataset.first_timestamp, dataset.last_timestamp) == (ratings.timestamp[0], ratings.timestamp[-1])
    for position in np.linspace(0, len(ratings) - 1, 60).astype(int).tolist():
        timestamp = int(ratings.timestamp[position])
        assert dataset.timestamp_at(position) == timestamp
        for moment in (timestamp, timestamp + 1):
            assert dataset.position_of(moment) == np.searchsorted(ratings.timestamp, moment)
    assert dataset.position_of(0) == 0
    assert dataset.position_of(2**40) == len(ratings)
    with pytest.raises(IndexError, match="found 400000"):
        dataset.timestamp_at(400_000)


def test_options_and_seed_make_the_world(world: SyntheticDataset, ratings: Ratings) -> None:
    again = SyntheticDataset()
    other = SyntheticDataset(SyntheticOptions(seed=1))
    assert again.fingerprint == world.fingerprint != other.fingerprint
    assert same(concatenate(again.chunks()), ratings)
    assert not same(concatenate(other.chunks()), ratings)


@settings(max_examples=40, deadline=None)
@given(
    users=st.integers(1, 40),
    per_user=st.integers(20, 300),
    movies=st.integers(160, 3_000),
    seed=st.integers(0, 2**63 - 1),
    begin=st.floats(0, 1, exclude_max=True),
)
def test_worlds_of_any_size_keep_their_promises(
    users: int, per_user: int, movies: int, seed: int, begin: float
) -> None:
    per_user = min(per_user, movies // 8)
    dataset = SyntheticDataset(SyntheticOptions(users * per_user, users, movies, seed))
    ratings = concatenate(dataset.chunks())
    assert len(ratings) == users * per_user == dataset.n_ratings
    assert len(np.unique(ratings.user_id)) == users
    assert len(np.unique(ratings.user_id * 10_000 + ratings.movie_id)) == len(ratings)
    assert (np.diff(ratings.timestamp) >= 0).all()
    assert FIRST <= ratings.timestamp[0] <= ratings.timestamp[-1] <= LAST
    start = int(begin * len(ratings))
    assert same(concatenate(dataset.chunks(start=start)), ratings.slice(start))


def test_memory_does_not_grow_with_the_ratings_read() -> None:
    dataset = SyntheticDataset(SyntheticOptions(ratings=600_000))
    tracemalloc.start()
    chunks = dataset.chunks()
    next(chunks)
    tracemalloc.reset_peak()
    for _ in chunks:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 << 20  # all ratings together: 19 MB, and every block needs some 20 MB while it is made


# -- the oracle -------------------------------------------------------------------------------------------------------


def test_expected_ratings_are_the_means_of_what_users_give(world: SyntheticDataset, ratings: Ratings) -> None:
    expected = world.oracle.expected_rating(ratings.user_id, ratings.movie_id)
    assert expected.shape == (len(ratings),)
    order = np.argsort(expected)
    for part in np.array_split(order, 10):  # calibrated in every tenth, from disliked to loved
        assert ratings.rating[part].mean() == pytest.approx(expected[part].mean(), abs=0.03)


def test_no_simple_model_predicts_better_than_the_oracle(world: SyntheticDataset, ratings: Ratings) -> None:
    def rmse(prediction: npt.NDArray[np.float64]) -> float:
        return float(np.sqrt(np.mean((ratings.rating - prediction) ** 2)))

    mean_of_user = np.bincount(ratings.user_id, ratings.rating) / np.maximum(np.bincount(ratings.user_id), 1)
    truth = rmse(world.oracle.expected_rating(ratings.user_id, ratings.movie_id))
    assert truth < rmse(mean_of_user[ratings.user_id]) - 0.1 < rmse(np.full(len(ratings), ratings.rating.mean()))


def test_affinity_is_a_chance_over_all_movies_and_zero_before_release(world: SyntheticDataset) -> None:
    movies = np.array(sorted(world.movies()))
    everyone = np.full(len(movies), 7)
    assert world.oracle.affinity(everyone, movies).sum() == pytest.approx(1)
    early = world.oracle.affinity(everyone, movies, timestamp=FIRST)
    unreleased = np.array([(m.year or 0) >= 1997 for m in world.movies().values()])
    assert early.sum() == pytest.approx(1)
    assert (early[unreleased] == 0).all()


def test_users_pick_what_the_oracle_expects(world: SyntheticDataset, ratings: Ratings) -> None:
    """True taste is worth knowing: it finds the movies that users pick better than popularity does."""
    popularity = world.oracle.popularity()
    users, movies = ratings.user_id, ratings.movie_id
    affinity = world.oracle.affinity(users, movies)
    chance = np.array([popularity[m] for m in movies.tolist()])
    assert np.log(affinity[affinity > 0]).mean() > np.log(chance[affinity > 0]).mean() + 0.2
    strangers = world.oracle.affinity(np.roll(users, 5_000), movies)
    assert np.log(affinity[affinity > 0]).mean() > np.log(strangers[affinity > 0]).mean() + 0.4


def test_users_like_what_they_turn_to(world: SyntheticDataset) -> None:
    oracle = world.oracle
    gains = []
    for user in range(1, 101):
        own, strange = oracle.top_items(user, 50), oracle.top_items(user + 100, 50)
        who = np.full(50, user)
        gains.append(oracle.expected_rating(who, own).mean() - oracle.expected_rating(who, strange).mean())
    assert np.mean(gains) > 0.1


def test_popularity_is_known(world: SyntheticDataset, ratings: Ratings) -> None:
    popularity = world.oracle.popularity()
    assert sum(popularity.values()) == pytest.approx(1)
    most = sorted(popularity, key=popularity.__getitem__, reverse=True)[:200]
    counts = np.bincount(ratings.movie_id, minlength=len(popularity) + 1)
    assert counts[most].mean() > 5 * counts[1:].mean()


def test_top_items_are_those_of_highest_affinity(world: SyntheticDataset) -> None:
    top = world.oracle.top_items(42, 10)
    movies = np.array(sorted(world.movies()))
    affinity = world.oracle.affinity(np.full(len(movies), 42), movies)
    assert set(top.tolist()) == set(movies[np.argsort(-affinity)[:10]].tolist())
    assert (np.diff(affinity[top - 1]) <= 0).all()
    assert top.tolist() != world.oracle.top_items(43, 10).tolist()


@pytest.mark.parametrize(("user", "movie"), [(0, 1), (611, 1), (1, 0), (1, 1_000_000)])
def test_the_oracle_knows_no_strangers(world: SyntheticDataset, user: int, movie: int) -> None:
    with pytest.raises(KeyError, match="expected 1 to"):
        world.oracle.expected_rating(np.array([user]), np.array([movie]))


# -- options ----------------------------------------------------------------------------------------------------------


def test_options_by_name() -> None:
    dataset = open_dataset("synthetic:ratings=20_000,users=100,movies=4000,seed=9")
    assert isinstance(dataset, SyntheticDataset)
    assert dataset.options == SyntheticOptions(ratings=20_000, users=100, movies=4_000, seed=9)
    assert open_dataset("synthetic").n_ratings == 100_836


def test_users_and_movies_follow_from_ratings() -> None:
    options = parse_options("ratings=25000000")
    assert 150_000 < options.users < 163_000  # MovieLens 25M: 162,541
    assert 55_000 < options.movies < 80_000  # 62,423


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rating=5", "expected ratings, users, movies, seed with whole numbers, found 'rating=5'"),
        ("ratings", "found 'ratings'"),
        ("seed=-1", "found 'seed=-1'"),
        ("users=1.5", "found 'users=1.5'"),
        ("ratings=0", "expected ratings from 1"),
        ("users=0,ratings=3000000000", "expected ratings from 1 to"),
        ("users=1000,ratings=2000", "expected 20,000 to"),
        ("users=2,ratings=5000", "to 1,000 ratings for 2 users"),
        ("movies=100", "ratings for 610 users and 100 movies"),
        ("movies=2000000", "up to 1,000,000 movies"),
    ],
)
def test_options_that_make_no_world_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        open_dataset(f"synthetic:{text}")
    assert "\n" not in str(error.value)

"""Evaluation against a second one, written in plain Python; and what it refuses to leak."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from models.evaluation import evaluate
from models.interactions import Histories, Interactions
from models.kinds import MODELS, make_model
from models.prequential import Stream, evaluate_prequential
from models.rankers import OracleRanker
from models.recommender import Recommender
from models.side_features import SideFeatures
from models.splits import Split, held_out_users, random_rating_split, random_split, temporal_split
from streams.events import DAY_S
from streams.synthetic import SyntheticDataset, parse_options
from tests.models.test_contract import SMALL, some_features, some_ratings

CUT = 1_000 * DAY_S


class Scripted:
    """A ranker that lists what it was told, and predicts 3 stars."""

    name = "scripted"

    def __init__(self, lists: dict[int, list[int]]) -> None:
        self.lists = lists

    def rank(self, user_ids: np.ndarray, histories: Histories, timestamps: np.ndarray, k: int) -> np.ndarray:
        return np.array([self.lists[user] for user in user_ids.tolist()], np.int64)

    def stars(self, user_ids: np.ndarray, histories: Histories, movie_ids: np.ndarray) -> np.ndarray:
        return np.full(len(user_ids), 3.0, np.float32)


def test_equals_a_count_by_hand() -> None:
    """User 1 likes 10 and 11, user 2 likes nothing, user 3 likes 12 but is shown it at rank 2."""
    train = Interactions([1, 2, 3], [20, 20, 20], [3.0, 3.0, 3.0], [1, 2, 3])
    test = Interactions([1, 1, 1, 2, 3], [10, 11, 13, 10, 12], [4.0, 5.0, 2.0, 1.0, 4.5], [9, 9, 9, 9, 9])
    genres = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]], np.float32)
    features = SideFeatures(np.array([10, 11, 12, 13, 20]), genres, np.full(5, 2000), ("A", "B"))
    ranker = Scripted({1: [10, 13], 2: [10, 11], 3: [13, 12]})
    found = evaluate(ranker, Split("mine", train, test, features, relevant_from=4.0), k=2)
    values = {name: interval.value for name, interval in found.measures.items()}
    assert values["precision@2"] == pytest.approx(0.5)
    assert values["recall@2"] == pytest.approx((1 / 2 + 1) / 2)
    one, two = 1.0, 1 / math.log2(3)
    assert values["ndcg@2"] == pytest.approx((one / (one + two) + two / one) / 2)
    assert values["map@2"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert values["mrr@2"] == pytest.approx((1 + 1 / 2) / 2)
    assert values["hit_rate@2"] == 1.0
    assert values["coverage@2"] == pytest.approx(4 / 5)
    assert values["diversity@2"] == pytest.approx((1 + 0 + 0) / 3)
    errors = [1.0, 2.0, -1.0, -2.0, 1.5]
    assert values["rmse"] == pytest.approx(math.sqrt(sum(e * e for e in errors) / 5))
    assert values["mae"] == pytest.approx(sum(map(abs, errors)) / 5)
    assert (found.user_ids.tolist(), found.n_lists) == ([1, 2, 3], 3)


def test_what_was_seen_is_neither_listed_nor_relevant() -> None:
    train = Interactions([1, 1, 2, 2], [10, 11, 10, 12], [5.0] * 4, [1, 2, 3, 4])
    test = Interactions([1, 1], [10, 12], [5.0, 5.0], [9, 9])  # 10 was rated before
    found = evaluate(make_model("popularity").fit(train), Split("mine", train, test, SideFeatures.none()), k=1)
    assert found.measures["recall@1"].value == found.measures["precision@1"].value == 1.0


def test_models_are_compared_on_the_same_users() -> None:
    split = random_split(some_ratings(), some_features())
    ease, popular = (
        evaluate(make_model(name).fit(split.train, split.features), split) for name in ("ease", "popularity")
    )
    better = ease.difference(popular, "ndcg@10")
    assert better.value == pytest.approx(ease.measures["ndcg@10"].value - popular.measures["ndcg@10"].value)
    assert better.low > 0
    other = random_split(some_ratings().before(1_000_100_000), some_features())
    with pytest.raises(ValueError, match="same users"):
        ease.difference(evaluate(make_model("ease").fit(other.train), other), "ndcg@10")


def test_the_oracle_is_above_the_models_and_knows_the_least_error() -> None:
    world = SyntheticDataset(parse_options("users=150,ratings=20000,movies=1500,seed=3"))
    ratings = Interactions.concat(map(Interactions.of_ratings, world.chunks()))
    movie_ids = np.array(sorted(world.movies()), np.int64)
    features = SideFeatures(movie_ids, np.zeros((len(movie_ids), 0), np.float32), np.zeros(len(movie_ids), np.int64))
    oracle = OracleRanker(world.oracle, movie_ids)
    split = random_split(ratings, features)
    score = evaluate(oracle, split).measures["ndcg@10"].value
    assert score > evaluate(make_model("popularity").fit(split.train, features), split).measures["ndcg@10"].value
    stars = random_rating_split(ratings, features)
    rmse = evaluate(oracle, stars).measures["rmse"].value
    assert rmse < np.std(stars.test.rating)
    assert np.sqrt(
        np.mean((world.oracle.expected_rating(stars.test.user_id, stars.test.movie_id) - stars.test.rating) ** 2)
    ) == pytest.approx(rmse, abs=1e-4)


# No leak: after the cut users turn to movies that nothing before tells apart.

N_USERS, N_MOVIES, N_PLANTED = 80, 120, 12
PLANTED = np.arange(1, N_MOVIES + 1, N_MOVIES // N_PLANTED)


def planted_stream(seed: int, *, from_the_start: bool = False) -> Interactions:
    """Chance before the cut; after it everybody rates the planted movies, which before were rated as others were."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(1, N_USERS + 1):
        others = np.setdiff1d(np.arange(1, N_MOVIES + 1), PLANTED)
        pool = np.concatenate([random.choice(PLANTED, 3, replace=False), random.choice(others, 27, replace=False)])
        if from_the_start:
            pool = np.concatenate([PLANTED[:6], random.choice(others, 4, replace=False)])
        rows += [(user, movie, 5.0, CUT - DAY_S * int(random.integers(1, 300))) for movie in random.permutation(pool)]
        later = np.setdiff1d(PLANTED, pool)
        rows += [(user, movie, 5.0, CUT + 60 * int(random.integers(1, 1_000))) for movie in random.permutation(later)]
    user, movie, stars, time = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions(user.astype(np.int64), movie.astype(np.int64), stars, time.astype(np.int64))


def planted_features() -> SideFeatures:
    ids = np.arange(1, N_MOVIES + 1)
    genres = np.random.default_rng(9).random((N_MOVIES, 4)) < 0.4
    return SideFeatures(ids, genres.astype(np.float32), np.full(N_MOVIES, 1970), ("A", "B", "C", "D"))


def small(name: str, seed: int) -> Recommender:
    return make_model(name, **SMALL.get(name, {}), seed=seed)


@pytest.mark.parametrize("name", MODELS)
def test_a_pattern_of_the_future_leaves_a_model_at_chance(name: str) -> None:
    """Of 90 unseen movies 9 are planted, so by chance 1 of 10 shown is."""
    shares = []
    for seed in range(3):
        ratings, features = planted_stream(seed), planted_features()
        cut_share = (ratings.timestamp >= CUT).mean()
        split = temporal_split(ratings, features, share=float(cut_share))
        assert split.train.timestamp.max() < CUT <= split.test.timestamp.min()
        model = small(name, seed).fit(split.train, split.features)
        shares.append(evaluate(model, split).measures["precision@10"].value)
        stream = Stream.of(ratings, features, cutoff=CUT)
        live = evaluate_prequential(partial(small, name, seed), stream)
        assert len(stream.refits()) == 1
        shares.append(live.measures["precision@10"].value)
    assert np.mean(shares) < 0.16


@pytest.mark.parametrize("name", MODELS)
def test_the_same_pattern_is_found_once_it_is_the_past(name: str) -> None:
    ratings, features = planted_stream(0, from_the_start=True), planted_features()
    split = random_split(ratings, features)
    learns: dict[str, object] = {
        "factors": 16,
        "hidden": 16,
        "epochs": 100,
        "learning_rate": 0.01,
    }  # SMALL is too small
    model = make_model(name, **learns) if name == "neumf" else small(name, 0)
    model.fit(split.train, split.features)
    assert evaluate(model, split).measures["precision@10"].value > 0.16


def test_users_held_out_are_known_by_their_histories_only() -> None:
    split = held_out_users(some_ratings(), some_features(), n_users=15)
    assert not set(split.test.user_id) & set(split.train.user_id)
    assert split.histories is not None
    ease, popular = (
        evaluate(make_model(name).fit(split.train, split.features), split) for name in ("ease", "popularity")
    )
    assert ease.n_lists == len(np.unique(split.test.user_id))
    assert ease.measures["ndcg@10"].value > popular.measures["ndcg@10"].value

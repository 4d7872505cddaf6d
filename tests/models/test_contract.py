"""What every model keeps, whatever it learns."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.interactions import Histories, Interactions
from models.kinds import MODELS, load_model, make_model
from models.model_files import ABOUT, ARRAYS, read_model, write_model
from models.ranking import NO_MOVIE
from models.recommender import RatingPredictor, Recommender
from models.side_features import SideFeatures
from streams.errors import ModelError, ModelMissing

SMALL: dict[str, dict[str, object]] = {
    "mf": {"factors": 8, "rating_factors": 4, "epochs": 5},
    "two-tower": {"width": 8, "epochs": 3},
    "vae": {"width": 8, "epochs": 3},
    "neumf": {"factors": 4, "hidden": 8, "epochs": 3},
}
"""Hyperparameters with which a model trains in a second, where its own would take longer."""

N_USERS, N_MOVIES = 60, 40
UNRATED = 9_999
"""A movie of the features that nobody rated."""


def some_ratings(seed: int = 0) -> Interactions:
    """Two tastes: even users like even movies, odd ones odd movies."""
    random = np.random.default_rng(seed)
    user, movie = np.divmod(random.permutation(N_USERS * N_MOVIES)[:900], N_MOVIES)
    stars = np.where(user % 2 == movie % 2, 4.5, 1.5)
    kept = (stars > 3) | (random.random(len(user)) < 0.2)
    time = 1_000_000_000 + 3_600 * np.arange(len(user))
    return Interactions(user[kept], 100 + movie[kept], stars[kept], time[kept])


def some_features() -> SideFeatures:
    ids = np.array([*range(100, 100 + N_MOVIES), UNRATED])
    genres = np.stack([ids % 2 == 0, ids % 2 == 1], axis=1).astype(np.float32)
    return SideFeatures(ids, genres, 1980 + ids % 40, ("Even", "Odd"))


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def untrained(name: str, seed: int = 0) -> Recommender:
    return make_model(name, **SMALL.get(name, {}), seed=seed)


@pytest.fixture(scope="module")
def model(name: str) -> Recommender:
    return untrained(name).fit(some_ratings(), some_features())


def histories() -> Histories:
    return Histories.of(
        [([100, 102, 104], [5.0, 4.5, 4.0], [1, 2, 3]), ([], [], []), ([101], [5.0], [9]), ([123_456], [5.0], [9])]
    )


def test_gives_k_distinct_unseen_movies_best_first(model: Recommender) -> None:
    ratings = some_ratings()
    found = model.recommend([0, 1, 2], 5)
    assert found.movie_ids.shape == found.scores.shape == (3, 5)
    assert found.movie_ids.dtype == np.int64
    assert found.scores.dtype == np.float32
    for user, movies in enumerate(found.movie_ids):
        assert len(set(movies.tolist())) == 5
        assert not set(movies.tolist()) & set(ratings.movie_id[ratings.user_id == user].tolist())
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert not found.cold.any()


def test_lists_what_was_seen_when_asked_to(model: Recommender) -> None:
    everything = model.recommend([0], N_MOVIES + 1, exclude_seen=False)
    assert set(everything.movie_ids[0].tolist()) == set(model.movie_ids.tolist())


def test_pads_where_too_few_movies_are_left(model: Recommender) -> None:
    found = model.recommend([0], 1_000)
    left = len(model.movie_ids) - (some_ratings().user_id == 0).sum()
    assert (found.movie_ids[0, :left] != NO_MOVIE).all()
    assert (found.movie_ids[0, left:] == NO_MOVIE).all()
    assert np.isneginf(found.scores[0, left:]).all()


def test_ranks_every_movie_of_the_features(model: Recommender) -> None:
    assert UNRATED in model.movie_ids


def test_a_history_unseen_in_training_is_answered(model: Recommender) -> None:
    found = model.recommend_for_history(histories(), 5)
    assert found.movie_ids.shape == (4, 5)
    assert found.cold.tolist() == [False, True, False, True]
    assert not set(found.movie_ids[0].tolist()) & {100, 102, 104}


def test_users_without_history_get_what_is_popular(model: Recommender) -> None:
    unknown = model.recommend([77_777], 5)
    empty = model.recommend_for_history(Histories.of([([], [], [])]), 5)
    assert unknown.cold.all()
    assert unknown.movie_ids.tolist() == empty.movie_ids.tolist()
    assert (
        unknown.movie_ids[0].tolist()
        == untrained("decayed-popularity").fit(some_ratings()).recommend([77_777], 5).movie_ids[0].tolist()
    )


def test_answers_do_not_depend_on_who_else_asks(model: Recommender) -> None:
    together = model.score(histories())
    for row in range(4):
        alone = model.score(histories().slice(row, row + 1))
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_nobody_and_nothing_asked(model: Recommender) -> None:
    assert model.recommend([], 5).movie_ids.shape == (0, 5)
    assert model.recommend_for_history(Histories.of([]), 5).movie_ids.shape == (0, 5)
    assert model.recommend([0], 0).movie_ids.shape == (1, 0)


def test_the_same_seed_gives_the_same_model(name: str, model: Recommender) -> None:
    again = untrained(name).fit(some_ratings(), some_features())
    assert again.recommend([0, 1], 10).movie_ids.tolist() == model.recommend([0, 1], 10).movie_ids.tolist()
    np.testing.assert_array_equal(again.score(histories()), model.score(histories()))


def test_the_order_of_the_ratings_does_not_matter(name: str, model: Recommender) -> None:
    shuffled = some_ratings().take(np.random.default_rng(1).permutation(len(some_ratings())))
    again = untrained(name).fit(shuffled, some_features())
    np.testing.assert_array_equal(again.score(histories()), model.score(histories()))


def test_duplicates_count_once_and_the_latest_rating_does(name: str, model: Recommender) -> None:
    ratings = some_ratings()
    stale = Interactions(ratings.user_id, ratings.movie_id, np.full(len(ratings), 0.5), ratings.timestamp - 10_000_000)
    again = untrained(name).fit(Interactions.concat([stale, ratings, ratings]), some_features())
    np.testing.assert_array_equal(again.score(histories()), model.score(histories()))


def test_a_saved_model_answers_as_before(name: str, model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "v1")
    loaded = load_model(tmp_path / "v1")
    assert type(loaded) is type(model)
    assert loaded.hyperparameters == model.hyperparameters
    np.testing.assert_array_equal(loaded.score(histories()), model.score(histories()))
    for asked in ([0, 1, 77_777], [5]):
        assert loaded.recommend(asked, 7).movie_ids.tolist() == model.recommend(asked, 7).movie_ids.tolist()


@pytest.mark.parametrize("file", [ARRAYS, ABOUT])
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw.replace(b"1", b"2", 1),
        lambda raw: raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:],  # within the numbers
    ],
)
def test_a_damaged_file_is_refused(model: Recommender, tmp_path: Path, file: str, damage: object) -> None:
    model.save(tmp_path / "v1")
    path = tmp_path / "v1" / file
    raw = path.read_bytes()
    path.write_bytes(damage(raw))  # type: ignore[operator]
    assert path.read_bytes() != raw
    with pytest.raises(ModelError, match="damaged"):
        load_model(tmp_path / "v1")


def test_a_model_of_other_code_is_refused(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "v1")
    stored = read_model(tmp_path / "v1")
    others = {
        "a": (stored.hyperparameters | {"unheard_of": 1}, stored.arrays),
        "b": (stored.hyperparameters, {name: v for name, v in stored.arrays.items() if name != "columns"}),
    }
    for name, (hyperparameters, arrays) in others.items():
        write_model(tmp_path / name, stored.name, hyperparameters, arrays, stored.about)
        with pytest.raises(ModelError, match="saved by other code"):
            load_model(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("vae", {"epochs": 2.5}, "vae: epochs: expected a value such as 5, found 2.5"),
        ("vae", {"width": "wide"}, "width: expected a value such as 128, found 'wide'"),
        ("vae", {"device": 1}, "device: expected a value such as 'auto'"),
        ("mf", {"epochs": True}, "epochs: expected a value such as 12, found True"),
        ("ease", {"top_weights": -5}, "top_weights: expected 0 or more, found -5"),
        ("ease", {"recency_half_life": -1.0}, "recency_half_life: expected 0 or more"),
        ("ease", {"seed": "x"}, "seed: expected a value such as 0"),
        ("ease", {"width": 1}, "expected hyperparameters among l2, .*, found 'width'"),
        ("decayed-popularity", {"half_life_days": 0}, "half_life_days: expected more than 0"),
    ],
)
def test_hyperparameters_that_cannot_be_are_refused_before_training(
    kind: str, wrong: dict[str, object], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        make_model(kind, **wrong)


@pytest.mark.parametrize(
    ("movies", "genres", "said"),
    [
        ([20, 10], np.zeros((2, 1)), "rising"),
        ([10, 10], np.zeros((2, 1)), "rising"),
        ([10, 20], np.zeros((3, 1)), "expected genres"),
        ([10, 20], np.full((2, 1), np.nan), "finite"),
    ],
)
def test_features_in_disorder_are_refused(movies: list[int], genres: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SideFeatures(np.array(movies), genres.astype(np.float32), np.zeros(2, np.int64), ("Even",))


def test_a_version_is_never_overwritten(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "v1")
    with pytest.raises(ModelError, match="never changes"):
        model.save(tmp_path / "v1")
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="streamlens train"):
        load_model(tmp_path / "v1")


@pytest.mark.parametrize(("users", "movies"), [([5], [7]), ([5, 5], [7, 8]), ([5, 6], [7, 7])])
def test_one_user_or_one_movie(name: str, users: list[int], movies: list[int]) -> None:
    model = untrained(name).fit(Interactions(users, movies, [4.0] * len(users), range(len(users))))
    found = model.recommend([5], 3, exclude_seen=False)
    assert set(found.movie_ids[0].tolist()) - {NO_MOVIE} == set(movies)
    assert (
        model.recommend_for_history(Histories.of([([7], [4.0], [1])]), 3).movie_ids[0, len(set(movies)) - 1] == NO_MOVIE
    )


def test_nothing_to_learn_from_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="found none"):
        untrained(name).fit(Interactions([], [], []))


def test_the_products_of_embeddings_are_scores(name: str, model: Recommender) -> None:
    found = model.embeddings()
    assert (found is not None) == (name in ("mf", "two-tower", "vae"))
    if found is None:
        return
    assert found.user_ids.tolist() == np.unique(some_ratings().user_id).tolist()
    assert (UNRATED in found.movie_ids) == model.knows_features
    own = Histories.of_users(some_ratings(), found.user_ids)
    expected = model.score(own)[:, np.isin(model.movie_ids, found.movie_ids)]
    np.testing.assert_allclose(found.users @ found.movies.T, expected, rtol=1e-4, atol=1e-4)
    added = SideFeatures(np.array([50]), np.array([[1]], np.float32), np.array([1990]), ("Even",))
    wider = model.with_movies(added).embeddings()
    assert wider is not None
    assert (50 in wider.movie_ids) == model.knows_features
    np.testing.assert_array_equal(wider.movies[np.isin(wider.movie_ids, found.movie_ids)], found.movies)


def test_without_torch_the_error_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in SMALL:
        pytest.skip(f"{name} needs no torch")
    for module in [module for module in sys.modules if module.endswith("_training")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"torch is not installed.*streamlens\[train\]"):
        untrained(name).fit(some_ratings())


def test_movies_added_after_training_are_ranked_and_nothing_else_changes(model: Recommender, tmp_path: Path) -> None:
    added = SideFeatures(np.array([50, 8_888]), np.array([[1], [0]], np.float32), np.array([1990, 2000]), ("Even",))
    wider = model.with_movies(added)
    assert wider.movie_ids.tolist() == sorted([*model.movie_ids.tolist(), 50, 8_888])
    assert 50 not in model.movie_ids
    old = np.isin(wider.movie_ids, model.movie_ids)
    np.testing.assert_array_equal(wider.score(histories())[:, old], model.score(histories()))
    assert wider.recommend([0], 1_000).movie_ids[0].tolist().count(50) == 1
    assert wider.recommend([77_777], 5).movie_ids.tolist() == model.recommend([77_777], 5).movie_ids.tolist()
    rated = Histories.of([([50, 100], [4.0, 4.0], [1, 2]), ([50], [4.0], [1])])
    assert 50 not in wider.recommend_for_history(rated, 1_000).movie_ids
    wider.save(tmp_path / "wider")
    np.testing.assert_array_equal(load_model(tmp_path / "wider").score(histories()), wider.score(histories()))


def test_without_features_to_know_them_by_added_movies_come_last(model: Recommender) -> None:
    if model.knows_features:
        pytest.skip(f"{model.name} scores movies by their features")
    wider = model.with_movies(SideFeatures(np.array([50]), np.ones((1, 1), np.float32), np.array([1990]), ("Even",)))
    scores = wider.score(histories())
    assert (scores[:, 0] <= scores[:, 1:].min(axis=1)).all()


def test_a_rating_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Interactions([1], [2], [float("nan")], [3])


def test_predicted_stars_are_stars(model: Recommender) -> None:
    if not isinstance(model, RatingPredictor):
        pytest.skip(f"{model.name} ranks, and predicts no stars")
    users, movies = [0, 0, 77_777, 0], [100, 101, 100, 123_456]
    stars = model.predict(users, movies)
    assert stars.shape == (4,)
    assert ((stars >= 0.5) & (stars <= 5.0)).all()
    own = Histories.of_users(some_ratings(), np.array([0, 0]))
    assert np.abs(model.predict_for_history(own, [100, 101]) - stars[:2]).max() < 1.0

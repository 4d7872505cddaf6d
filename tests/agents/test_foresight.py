"""Which version predicts a day, what it knows of users, and what a prediction waits for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents.foresight import Foresight, RatingModel
from featurestore.catalogue import Catalogue
from featurestore.writer import FeatureWriter
from models.interactions import Histories, Interactions
from models.matrix_factorisation import MatrixFactorization
from models.registry import Registry, Version
from models.side_features import SideFeatures
from models.versions import Manifest, write_manifest
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.dataset import Movie
from streams.events import DAY_S, RATINGS, Rating, Tick
from streams.records import TopicPartition
from tests.agents.monitored import batch_of

DAY = 14_000
TP = TopicPartition(RATINGS, 0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def add_version(registry: Registry, as_of: int) -> Version:
    """Matrix factorisation of a few users, who like movie 1 and not movie 2."""
    user = np.repeat(np.arange(20), 3)
    movie, stars = np.tile([1, 2, 3], 20), np.tile([5.0, 1.0, 3.0], 20)
    movies = SideFeatures.of_catalogue(Catalogue([Movie(i, str(i), 2000, ()) for i in (1, 2, 3)]))
    model = MatrixFactorization(factors=2, rating_factors=2, epochs=2, device="cpu")
    model.fit(Interactions(user, movie, stars, np.arange(60)), movies)
    with registry.draft() as draft:
        folder = draft / "version"
        model.save(folder)
        manifest = Manifest(
            version_id=f"mf-{as_of}",
            kind="mf",
            created_at="2026-01-01T00:00:00.000+00:00",
            as_of=as_of,
            seed=0,
            hyperparameters={},
            n_ratings=60,
            n_users=20,
            n_movies=3,
        )
        write_manifest(folder, manifest)
        return registry.add(folder)


def apply(folder: Path, *records: Rating | Tick) -> str:
    url = f"sqlite:///{folder}/features.db"
    with FeatureWriter(url, agent="features", topic=RATINGS) as writer:
        writer.assign(TopicInfo(RATINGS, 1, None, "log"), {TP: OffsetRange(0, 100)})
        writer.apply([decode_ratings(batch_of(TP, 0, [msgspec.json.encode(record) for record in records]))])
    return url


def test_a_version_counts_once_what_asked_for_it_takes_effect(registry: Registry) -> None:
    live = DAY * DAY_S
    first, second = add_version(registry, live), add_version(registry, live + 5 * DAY_S)
    model = RatingModel("mf", registry.folder, live, delay_s=2 * DAY_S)
    versions = registry.versions()
    of_days = [model.of_day(versions, DAY + day) for day in (-1, 0, 6, 7)]
    assert [one and one.version_id for one in of_days] == [None, first.version_id, first.version_id, second.version_id]
    registry.reject(second, by="test", why="worse")
    assert model.of_day(registry.versions(), DAY + 7) == first


def test_stars_are_of_what_users_had_rated_before_the_day(registry: Registry, tmp_path: Path) -> None:
    version = add_version(registry, DAY * DAY_S)
    ratings = [Rating(7, 1, 5.0, DAY * DAY_S + 10), Rating(7, 3, 1.0, (DAY + 1) * DAY_S + 10)]
    url = apply(tmp_path, ratings[0], Tick((DAY + 1) * DAY_S), ratings[1], Tick((DAY + 2) * DAY_S))
    foresight = Foresight(RatingModel("mf", registry.folder, DAY * DAY_S, DAY_S), url)
    assert foresight.waits_for((DAY + 2) * DAY_S) == ""
    found = foresight.stars(DAY + 1, np.array([7, 8, 7]), np.array([2, 2, 1]))
    model = version.load()
    assert isinstance(model, MatrixFactorization)
    rated, none = ([1], [5.0], [DAY * DAY_S + 10]), ([], [], [])
    np.testing.assert_allclose(found, model.predict_for_history(Histories.of([rated, none, rated]), [2, 2, 1]))
    assert found[2] > found[0]


def test_a_prediction_waits_for_the_features_of_the_days_before(registry: Registry, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/features.db"
    foresight = Foresight(RatingModel("mf", registry.folder, DAY * DAY_S, DAY_S), url)
    boundary = (DAY + 1) * DAY_S
    assert foresight.waits_for(boundary) == ""  # no version, nothing to predict
    assert np.isnan(foresight.stars(DAY, np.array([1]), np.array([1]))).all()
    add_version(registry, DAY * DAY_S)
    assert "not there yet" in foresight.waits_for(boundary)
    apply(tmp_path, Rating(7, 1, 5.0, DAY * DAY_S + 10))
    assert str(boundary) in foresight.waits_for(boundary)
    assert foresight.waits_for(DAY * DAY_S) == ""  # training is not predicted


def test_what_came_late_is_left_out(registry: Registry, tmp_path: Path) -> None:
    """The store may have it by now, or not yet: either way the prediction is the same."""
    add_version(registry, DAY * DAY_S)
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    rated, tick = Rating(7, 1, 5.0, DAY * DAY_S + 10), Tick((DAY + 3) * DAY_S)
    late = Rating(7, 2, 5.0, DAY * DAY_S + 20)
    urls = [apply(tmp_path / "with", rated, tick, late), apply(tmp_path / "without", rated, tick)]
    found = []
    for url in urls:
        foresight = Foresight(RatingModel("mf", registry.folder, DAY * DAY_S, DAY_S), url)
        assert foresight.waits_for((DAY + 3) * DAY_S) == ""
        found.append(foresight.stars(DAY + 2, np.array([7]), np.array([3])).tolist())
    assert found[0] == found[1]

"""``streamlens recommend`` from a store and a registry to the lines a user reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from featurestore.catalogue import Catalogue
from featurestore.reader import FeatureReader
from featurestore.writer import FeatureWriter
from models.interactions import Histories, Interactions
from models.kinds import make_model
from models.registry import Registry, Version
from models.side_features import SideFeatures
from models.versions import Manifest, new_version_id, write_manifest
from streamlens.cli.app import run
from streamlens.settings import load_settings
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.dataset import Movie
from streams.events import DAY_S, Rating, Tick
from streams.records import RecordBatch, TopicPartition

Capture = pytest.CaptureFixture[str]

CLOCK = 1_000_000_000 - 1_000_000_000 % DAY_S
MOVIES = [Movie(m, f"Movie {m} (199{m % 10})", 1990 + m % 10, ("Comedy" if m % 2 else "War",)) for m in range(12)]
ADDED = Movie(99, "Added Later (2001)", 2001, ("War",))
YET_TO_COME = Movie(98, "Yet To Come (2030)", 2030, ("War",))


def rated() -> list[tuple[int, int]]:
    """Users like odd or even movies; user 7 has rated two odd ones, one of them twice."""
    pairs = [(u, m) for u in range(6) for m in range(12) if m % 2 == u % 2 and (u + m) % 5]
    return [*pairs, (7, 1), (7, 3), (7, 1)]


@pytest.fixture
def store_url(workplace: Path) -> str:
    url = f"sqlite:///{workplace / 'features.db'}"
    records = [Rating(u, m, 4.0, CLOCK - 1_000 + i) for i, (u, m) in enumerate(rated())]
    lines = b"\n".join(map(msgspec.json.encode, [*records, Tick(CLOCK)]))
    n = len(records) + 1
    with FeatureWriter(
        url, agent="features", topic="ratings", catalogue=Catalogue([*MOVIES, ADDED, YET_TO_COME])
    ) as writer:
        writer.assign(TopicInfo("ratings", 1, None, "log"), {TopicPartition("ratings", 0): OffsetRange(0, n)})
        batch = RecordBatch("ratings", 0, np.arange(n), np.full(n, 2 * 10**12), n, lines)
        writer.apply([decode_ratings(batch)])
    return url


def add_version(kind: str, **hyperparameters: object) -> Version:
    """Trained on users 0 to 5, before movie 99 was there."""
    users, movies = zip(*rated()[:-3], strict=True)
    ratings = Interactions(users, movies, [4.0] * len(users), range(len(users)))
    model = make_model(kind, **hyperparameters).fit(ratings, SideFeatures.of_catalogue(Catalogue(MOVIES)))
    manifest = Manifest(
        version_id=new_version_id(kind, CLOCK),
        kind=kind,
        created_at="2026-11-27T04:00:00.000+00:00",
        as_of=CLOCK,
        seed=0,
        hyperparameters=model.hyperparameters,
        n_ratings=len(users),
        n_users=6,
        n_movies=12,
    )
    registry = Registry(load_settings({}).var / "models")
    with registry.draft() as draft:
        model.save(draft / "version")
        write_manifest(draft / "version", manifest)
        return registry.add(draft / "version")


@pytest.fixture
def champion(store_url: str) -> Version:
    version = add_version("ease", l2=1.0)
    return Registry(version.folder.parent).promote(version, by="test", why="the first")


def recommend(store_url: str, capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert run(["recommend", *arguments, "--store", store_url, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_champion_lists_unseen_movies_of_the_users_taste(
    store_url: str, champion: Version, capsys: Capture
) -> None:
    found = recommend(store_url, capsys, "7", "--k", "3", "--explain")
    assert (found["version"], found["status"]) == (champion.version_id, "champion")
    assert (found["cold"], found["history"]) == (False, 2)
    model = champion.load()
    with FeatureReader(store_url) as reader:
        history = Histories.of_stored(reader.history(7))
    listed = [movie["movie_id"] for movie in found["movies"]]
    assert listed == model.recommend_for_history(history, 3).movie_ids[0].tolist()
    assert all(movie % 2 == 1 and movie not in (1, 3) for movie in listed)
    first = found["movies"][0]
    assert first["title"] == f"Movie {listed[0]} (199{listed[0] % 10})"
    assert first["n_ratings"] == sum(m == listed[0] for _, m in rated())
    assert {reason["movie_id"] for reason in first["because_you_rated"]} <= {1, 3}
    assert first["because_you_rated"][0]["change"] > 0


def test_movies_that_came_after_training_are_ranked_and_those_of_years_to_come_are_not(
    store_url: str, champion: Version, capsys: Capture
) -> None:
    found = recommend(store_url, capsys, "7", "--k", "100")
    assert len(found["movies"]) == 11
    assert found["movies"][-1]["movie_id"] == 99


def test_who_rated_nothing_gets_what_is_popular_and_is_told_so(
    store_url: str, champion: Version, capsys: Capture
) -> None:
    assert recommend(store_url, capsys, "1234")["cold"]
    assert run(["recommend", "1234", "--explain", "--store", store_url]) == 0
    assert "user 1234: no ratings that the model knows; what is popular, by " in capsys.readouterr().out


def test_rules_change_the_list(store_url: str, champion: Version, capsys: Capture) -> None:
    diverse = recommend(store_url, capsys, "7", "--k", "2", "--diversity", "1")["movies"]
    assert diverse[0]["genres"] != diverse[1]["genres"]
    war = recommend(store_url, capsys, "7", "--k", "2", "--genre", "Comedy=0", "--genre", "War=2")["movies"]
    assert [movie["genres"] for movie in war] == [["War"], ["War"]]


def test_another_version_is_taken_by_name(store_url: str, champion: Version, capsys: Capture) -> None:
    other = add_version("popularity")
    found = recommend(store_url, capsys, "7", "--model", other.version_id)
    assert (found["version"], found["status"]) == (other.version_id, "challenger")


def test_people_read_a_table_with_titles_and_reasons(store_url: str, champion: Version, capsys: Capture) -> None:
    assert run(["recommend", "7", "--k", "2", "--explain", "--store", store_url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"user 7, 2 movies rated, by {champion.version_id}, the champion"
    assert any("Movie" in line and "(0." in line for line in lines[5:])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--genre", "Comedy"], "expected NAME=WEIGHT"),
        (["--genre", "Comedy=much"], "expected NAME=WEIGHT"),
        (["--genre", "Comedy=-1"], "expected a weight of 0 or more"),
        (["--genre", "Polka=2"], "expected one of Comedy, War, found Polka"),
        (["--model", "nothing-1"], "expected a version nothing-1"),
    ],
)
def test_what_cannot_be_is_one_line(
    store_url: str, champion: Version, capsys: Capture, arguments: list[str], told: str
) -> None:
    assert run(["recommend", "7", *arguments, "--store", store_url]) == 2
    assert told in capsys.readouterr().err


def test_without_a_champion_the_next_step_is_told(store_url: str, capsys: Capture) -> None:
    assert run(["recommend", "7", "--store", store_url]) == 2
    assert "streamlens train" in capsys.readouterr().err

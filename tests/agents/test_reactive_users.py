"""Made-up users click by the known taste of their world, and differ only where what they are shown does."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from agents.reactive_users import ReactiveUsers
from models.slates import SESSION_GAP_S
from streams.dataset import open_dataset
from streams.events import Slate
from streams.synthetic import Oracle, SyntheticDataset

WORLD = "synthetic:users=300,ratings=15000,movies=500,seed=3"


@pytest.fixture(scope="module")
def world() -> SyntheticDataset:
    found = open_dataset(WORLD)
    assert isinstance(found, SyntheticDataset)
    return found


def slates_of(world: SyntheticDataset, movies: dict[int, list[int]], *, rounds: int = 1) -> list[Slate]:
    """``rounds`` slates for each user, of the user's ``movies``."""
    numbers = count()
    return [
        Slate(f"{user}-{next(numbers)}", f"{user}-0", user, "champion", "v1", shown, world.last_timestamp - 86_400)
        for _ in range(rounds)
        for user, shown in movies.items()
    ]


def by_taste(oracle: Oracle) -> dict[int, list[int]]:
    return {user: oracle.top_items(user, 10).tolist() for user in range(1, 301)}


def by_popularity(oracle: Oracle) -> dict[int, list[int]]:
    chance = oracle.popularity()
    top = sorted(chance, key=lambda movie: (-chance[movie], movie))[:10]
    return dict.fromkeys(range(1, 301), top)


def test_what_fits_a_users_taste_is_clicked_more_often_than_what_is_popular(world: SyntheticDataset) -> None:
    users = ReactiveUsers(world.oracle)
    ctr = {}
    for name, movies in (("taste", by_taste(world.oracle)), ("popularity", by_popularity(world.oracle))):
        answers = users.answer(slates_of(world, movies, rounds=5))
        ctr[name] = sum(len(a.clicked) for a in answers) / sum(a.n_shown for a in answers)
    assert 0.01 < ctr["popularity"] < ctr["taste"] < 0.5
    assert ctr["taste"] > 1.2 * ctr["popularity"]


def test_as_many_click_as_the_chances_say(world: SyntheticDataset) -> None:
    users, slates = ReactiveUsers(world.oracle), slates_of(world, by_taste(world.oracle), rounds=20)
    chances = users.chances(slates)
    n_clicks = sum(len(answer.clicked) for answer in users.answer(slates))
    spread = np.sqrt((chances * (1 - chances)).sum())
    assert abs(n_clicks - chances.sum()) < 4 * spread


def test_an_answer_depends_on_no_other_slate(world: SyntheticDataset) -> None:
    users, slates = ReactiveUsers(world.oracle), slates_of(world, by_taste(world.oracle))
    together = users.answer(slates)
    assert together == [users.answer([slate])[0] for slate in slates]
    assert together != ReactiveUsers(world.oracle, seed=1).answer(slates)


def test_says_that_it_is_made_up_and_when_the_visit_is_over(world: SyntheticDataset) -> None:
    (slate,) = slates_of(world, {1: [1, 2, 3]})
    (answer,) = ReactiveUsers(world.oracle).answer([slate])
    assert answer.simulated
    assert answer.timestamp == slate.timestamp + SESSION_GAP_S
    assert (answer.n_shown, answer.slate_id, answer.model_version) == (3, slate.slate_id, "v1")


def test_nobody_clicks_nothing(world: SyntheticDataset) -> None:
    users = ReactiveUsers(world.oracle)
    assert users.answer([]) == []
    assert users.answer(slates_of(world, {1: []}))[0].clicked == []


def test_strangers_are_refused(world: SyntheticDataset) -> None:
    with pytest.raises(KeyError, match="301"):
        ReactiveUsers(world.oracle).answer(slates_of(world, {301: [1]}))

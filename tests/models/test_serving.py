"""Serving, over every model."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.explanations import explain
from models.interactions import Histories, Interactions
from models.kinds import MODELS
from models.recommender import Recommender
from models.rules import Rules
from models.serving import Server
from models.side_features import SideFeatures
from streams.errors import ModelError
from tests.models.test_contract import UNRATED, some_features, some_ratings, untrained

HISTORY = Histories.of([([100, 102, 104, 103], [5.0, 4.5, 4.0, 2.0], [1, 2, 3, 4])])
NOBODY = Histories.of([([], [], [])])


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Recommender:
    return untrained(str(request.param)).fit(some_ratings(), some_features())


def serving(model: Recommender) -> Server:
    server = Server(some_features())
    server.swap("v1", model)
    return server


def test_answers_as_the_model_does(model: Recommender) -> None:
    answer = serving(model).recommend(HISTORY, 5)
    expected = model.recommend_for_history(HISTORY, 5)
    assert answer.movie_ids.tolist() == expected.movie_ids[0].tolist()
    np.testing.assert_array_equal(answer.scores, expected.scores[0])
    assert (answer.version, answer.cold, answer.cached) == ("v1", False, False)
    assert not set(answer.movie_ids.tolist()) & set(HISTORY.movie_id.tolist())


def test_who_has_no_history_gets_what_is_popular_and_is_told_so(model: Recommender) -> None:
    answer = serving(model).recommend(NOBODY, 5)
    assert answer.cold
    assert answer.movie_ids.tolist() == model.recommend_for_history(NOBODY, 5).movie_ids[0].tolist()
    assert serving(model).recommend(Histories.of([([123_456], [5.0], [1])]), 5).cold


def test_movies_it_does_not_know_change_nothing(model: Recommender) -> None:
    more = Histories.of([([100, 123_456, 102], [5.0, 1.0, 4.5], [1, 2, 3])])
    fewer = Histories.of([([100, 102], [5.0, 4.5], [1, 3])])
    server = serving(model)
    assert server.recommend(more, 5).movie_ids.tolist() == server.recommend(fewer, 5).movie_ids.tolist()


def test_movies_that_came_after_training_are_ranked(model: Recommender) -> None:
    server = Server(SideFeatures(np.array([8_888]), np.ones((1, 1), np.float32), np.array([1990]), ("Even",)))
    server.swap("v1", model)
    assert 8_888 in server.recommend(HISTORY, 1_000).movie_ids


def test_rules_choose_among_the_same_movies(model: Recommender) -> None:
    server = serving(model)
    buried = server.recommend(HISTORY, 1_000, rules=Rules(genre_weights=(("Even", 0.0),)))
    assert sorted(buried.movie_ids.tolist()) == sorted(server.recommend(HISTORY, 1_000).movie_ids.tolist())
    odd = (buried.movie_ids[buried.movie_ids != UNRATED] % 2 == 1).tolist()
    worthless = {m for m, s in zip(buried.movie_ids.tolist(), buried.scores, strict=True) if s == buried.scores.min()}
    assert odd[: sum(odd) - len(worthless)] == [True] * (sum(odd) - len(worthless))
    diverse = server.recommend(HISTORY, 2, rules=Rules(diversity=1.0)).movie_ids
    assert diverse[0] % 2 != diverse[1] % 2
    assert not set(diverse.tolist()) & set(HISTORY.movie_id.tolist())


def test_many_at_once_are_answered_as_one_by_one(model: Recommender) -> None:
    users = Histories.of_users(some_ratings(), np.arange(20))
    with Server(threads=2) as server:
        server.swap("v1", model)
        found = server.recommend_many(users, 5)
        alone = [server.recommend(users.slice(i, i + 1), 5) for i in range(20)]
    expected = model.recommend_for_history(users, 5)
    assert found.movie_ids.tolist() == expected.movie_ids.tolist() == [one.movie_ids.tolist() for one in alone]
    assert found.cold.tolist() == expected.cold.tolist() == [one.cold for one in alone]
    np.testing.assert_allclose(found.scores, [one.scores for one in alone], rtol=1e-5, atol=1e-5)


def test_a_few_movies_score_as_among_all(model: Recommender) -> None:
    """Asked together, unknown users and movies that came later among them."""
    wider = model.with_movies(SideFeatures(np.array([8_888]), np.ones((1, 1), np.float32), np.array([1990]), ("Even",)))
    users = Histories.of_users(some_ratings(), np.arange(20))
    for asked in (users, users.slice(0, 1), NOBODY, HISTORY):
        for movie_ids in ([UNRATED, 104, 100], [8_888, 104]):
            at = np.searchsorted(wider.movie_ids, movie_ids)
            scores = wider.score_of(asked, movie_ids)
            np.testing.assert_allclose(scores, wider.score(asked)[:, at], rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="expected movies that it ranks, found 7"):
        model.score_of(HISTORY, [7])


def test_each_reason_is_the_score_lost_without_that_rating(model: Recommender) -> None:
    listed = model.recommend_for_history(HISTORY, 3).movie_ids[0]
    whole = model.score(HISTORY)[0]
    for reasons, movie_id in zip(explain(model, HISTORY, listed), listed.tolist(), strict=True):
        at = model.movie_ids.tolist().index(movie_id)
        assert reasons.score == pytest.approx(whole[at], rel=1e-5)
        for i, rated in enumerate(HISTORY.movie_id.tolist()):
            rest = HISTORY.kept(np.arange(4) != i, HISTORY.movie_id)
            assert reasons.rated[i] == rated
            np.testing.assert_allclose(reasons.changes[i], whole[at] - model.score(rest)[0, at], rtol=1e-3, atol=1e-5)


def test_a_movie_it_does_not_know_is_no_reason_and_the_only_one_is_all_of_it(model: Recommender) -> None:
    history = Histories.of([([123_456, 100], [5.0, 5.0], [1, 2])])
    (reasons,) = explain(model, history, model.recommend_for_history(history, 1).movie_ids[0])
    assert np.abs(reasons.changes[0]) < 1e-5
    assert np.isnan(reasons.changes[1])
    assert reasons.strongest(1)[0][0] == 100


def test_each_feature_counts_by_the_score_lost_without_it(model: Recommender) -> None:
    """Seen from a new movie, which is its features and nothing else."""
    ids = np.array([50, 51, 52])
    new = SideFeatures(ids, np.array([[1, 0], [0, 0], [1, 0]], np.float32), np.array([1990, 1990, 0]), ("Even", "Odd"))
    wider = model.with_movies(new)
    (reasons,) = explain(wider, HISTORY, np.array([50]), new)
    if not model.knows_features:
        assert reasons.features == ()
        return
    full, without_genre, without_year = wider.score(HISTORY)[0, np.searchsorted(wider.movie_ids, ids)].tolist()
    assert reasons.features == ("Even", "year")
    np.testing.assert_allclose(
        reasons.feature_changes, [full - without_genre, full - without_year], rtol=1e-3, atol=1e-5
    )


# What is the same whatever the model


@pytest.fixture(scope="module")
def two() -> tuple[Recommender, Recommender]:
    ease = untrained("ease").fit(some_ratings(), some_features())
    return ease, untrained("popularity").fit(some_ratings(), some_features())


def test_the_same_question_is_answered_from_the_cache(two: tuple[Recommender, Recommender]) -> None:
    server = serving(two[0])
    first, second = server.recommend(HISTORY, 5), server.recommend(HISTORY, 5)
    assert (first.cached, second.cached) == (False, True)
    assert second.movie_ids.tolist() == first.movie_ids.tolist()
    assert not second.movie_ids.flags.writeable


def test_a_new_rating_rule_or_model_is_answered_anew(two: tuple[Recommender, Recommender]) -> None:
    server = serving(two[0])
    server.recommend(HISTORY, 5)
    rated_again = Histories(HISTORY.start, HISTORY.movie_id, HISTORY.rating + 0.5, HISTORY.timestamp)
    one_more = Histories.of([([100, 102, 104, 103, 106], [5.0, 4.5, 4.0, 2.0, 5.0], [1, 2, 3, 4, 5])])
    assert not server.recommend(rated_again, 5).cached
    answer = server.recommend(one_more, 5)
    assert not answer.cached
    assert 106 not in answer.movie_ids
    assert not server.recommend(HISTORY, 5, rules=Rules(diversity=0.5)).cached
    assert not server.recommend(HISTORY, 6).cached
    server.swap("v2", two[1])
    answer = server.recommend(HISTORY, 5)
    assert (answer.version, answer.cached) == ("v2", False)


def test_the_cache_is_bounded(two: tuple[Recommender, Recommender]) -> None:
    server = Server(cached_answers=1)
    server.swap("v1", two[0])
    for k in (5, 6, 5):
        assert not server.recommend(HISTORY, k).cached


def test_latency_is_told_by_variant(two: tuple[Recommender, Recommender]) -> None:
    ticks = iter([0.0, 0.010, 1.0, 1.002, 2.0, 2.004])
    server = Server(clock_s=lambda: next(ticks))
    server.swap("v1", two[0])
    server.swap("v2", two[1], "challenger")
    for variant in ("champion", "champion", "challenger"):
        server.recommend(HISTORY, 5, variant=variant)
    found = server.latency()
    assert (found["champion"].answers, found["champion"].hits) == (2, 1)
    assert found["champion"].p50_ms == pytest.approx(6.0)
    assert found["challenger"].answers == 1
    assert found["challenger"].p99_ms == pytest.approx(4.0)


def test_a_variant_that_nothing_serves_as_is_named(two: tuple[Recommender, Recommender]) -> None:
    server = serving(two[0])
    with pytest.raises(ModelError, match=r"variants champion, found challenger"):
        server.recommend(HISTORY, 5, variant="challenger")
    server.withdraw("champion")
    with pytest.raises(ModelError, match="none"):
        server.recommend(HISTORY, 5)


def test_a_request_is_answered_in_whole_by_the_model_it_began_with(two: tuple[Recommender, Recommender]) -> None:
    server, slow = Server(), copy.copy(two[0])

    def meanwhile(*asked: Any, **options: Any) -> Any:
        server.swap("v2", two[1])
        return two[0].recommend_for_history(*asked, **options)

    slow.recommend_for_history = meanwhile  # type: ignore[method-assign]
    server.swap("v1", slow)
    answer = server.recommend(HISTORY, 5)
    assert answer.version == "v1"
    assert answer.movie_ids.tolist() == two[0].recommend_for_history(HISTORY, 5).movie_ids[0].tolist()
    assert (server.recommend(HISTORY, 5).version, server.versions) == ("v2", {"champion": "v2"})


def test_who_rated_nothing_gets_what_is_popular_in_their_group() -> None:
    """Each group rates one movie more than a thousand times."""
    users = np.arange(3_000)
    movies = np.where(users < 1_100, 100, np.where(users < 2_300, 101, 102))
    groups = {user: "young" if user < 1_100 else "old" for user in range(2_300)}
    features = replace(SideFeatures.none(), user_groups=groups)
    model = untrained("ease").fit(Interactions(users, movies, [4.0] * 3_000), features)
    server = Server()
    server.swap("v1", model)
    first = {group: int(server.recommend(NOBODY, 1, group=group).movie_ids[0]) for group in ("young", "old", None, "?")}
    assert first == {"young": 100, "old": 101, None: 101, "?": 101}
    assert [model.group_of(user) for user in (5, 2_000, 2_900)] == ["young", "old", None]


def test_swaps_drop_no_request_and_every_answer_is_of_one_version(two: tuple[Recommender, Recommender]) -> None:
    server = Server(some_features(), cached_answers=50)
    histories = [Histories.of([([100 + i, 120], [5.0, 4.0], [1, 2])]) for i in range(20)]
    expected = {
        (f"v{version}", i): model.recommend_for_history(history, 5).movie_ids[0].tolist()
        for version, model in enumerate(two)
        for i, history in enumerate(histories)
    }
    server.swap("v0", two[0])
    done = threading.Event()

    def ask() -> set[str]:
        versions: set[str] = set()
        while not done.is_set() or len(versions) < 2:
            for i, history in enumerate(histories):
                answer = server.recommend(history, 5)
                assert answer.movie_ids.tolist() == expected[answer.version, i]
                versions.add(answer.version)
        return versions

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        swaps = 0
        while swaps < 100 or not all(future.done() for future in asking):
            swaps += 1
            server.swap(f"v{swaps % 2}", two[swaps % 2])
            if swaps == 100:
                done.set()
        assert [future.result(timeout=30) for future in asking] == [{"v0", "v1"}] * 4


def test_serving_needs_no_torch(two: tuple[Recommender, Recommender], tmp_path: Path) -> None:
    for name in ("mf", "two-tower", "vae", "neumf"):
        untrained(name).fit(some_ratings(), some_features()).save(tmp_path / name)
    program = """if True:
        import sys
        from pathlib import Path
        from models.explanations import explain
        from models.interactions import Histories
        from models.kinds import load_model
        from models.serving import Server
        history = Histories.of([([100, 102], [5.0, 4.5], [1, 2])])
        for folder in Path(sys.argv[1]).iterdir():
            server = Server()
            server.swap("v1", load_model(folder))
            explain(server.model(), history, server.recommend(history, 3).movie_ids)
        assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

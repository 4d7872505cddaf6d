"""Slates and feedback of a small run are the same bytes whatever the batches, the speed, the restarts and the waits."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agents import slate_lists
from agents.tally import Tally
from featurestore.features import History
from featurestore.reader import FeatureReader
from models.interactions import Histories
from models.slates import SESSION_GAP_S, clicked_slates, find_sessions
from streams.events import DAY_S, IMPRESSIONS, Rating, Tick
from tests.agents.loop_world import (
    EXPERIMENT,
    LIVE,
    LOG,
    N_USERS,
    Published,
    World,
    batches_of,
    expected,
    feedback_of,
    in_one_go,
    published,
    ranges_of,
    ratings_of_world,
    run_out,
    slates_of,
    world,
)

__all__ = ["expected", "world"]


def test_the_run_shows_what_it_should(expected: Published, world: World) -> None:
    slates, feedback = slates_of(expected), feedback_of(expected)
    assert len(slates) > 150
    assert {slate.variant for slate in slates} == {"a", "b", "c"}
    assert all(slate.variant == EXPERIMENT.variant_of(slate.user_id).name for slate in slates)
    assert {(s.variant, s.model_version) for s in slates} == {
        ("a", "ease-0"),
        ("b", "popularity-0"),
        ("c", "decayed-0"),
    }
    assert sorted(s.slate_id for s in slates) == sorted(f.slate_id for f in feedback)
    shown = {slate.slate_id: slate.movie_ids for slate in slates}
    assert any(f.clicked for f in feedback)
    for f in feedback:
        assert set(f.clicked) <= set(shown[f.slate_id])
        assert f.n_shown == len(shown[f.slate_id]) == 10
    for (topic, partition), lines in expected.items():
        ids = [msgspec.json.decode(line)["event_id"] for line in lines]
        assert ids == sorted(set(ids))
        ticks = [r for r in map(msgspec.json.decode, lines) if r["type"] == "tick"]
        assert [t["event_time"] for t in ticks] == [r.event_time for r in world.log[partition] if isinstance(r, Tick)]
        assert ticks[-1]["end_of_run"], topic


def test_lists_are_what_the_model_says_of_the_history_before(expected: Published, world: World) -> None:
    """Of users whose ratings came in order, as the store's own history has it."""
    world.apply_features()
    in_order = {
        u for u in range(N_USERS) if (np.diff([r.timestamp for r in world.ratings if r.user_id == u]) >= 0).all()
    }
    model = world.registry.get("ease-0").load()
    n = 0
    with FeatureReader(world.store_url) as reader:
        for slate in slates_of(expected):
            if slate.variant == "a" and slate.user_id in in_order:
                history: History = reader.history(slate.user_id, before=slate.timestamp)
                listed = model.recommend_for_history(Histories.of_stored(history), 10).movie_ids[0]
                assert slate.movie_ids == listed.tolist()
                n += 1
    assert n > 20


def test_in_order_the_slates_are_those_of_offline_evaluation(tmp_path: Path) -> None:
    world = World(tmp_path / "run", ratings_of_world(3, late=0))
    live = [r for r in world.ratings if r.timestamp >= LIVE]
    sessions = find_sessions(np.array([r.user_id for r in live]), np.array([r.timestamp for r in live]))
    due = {(live[i].user_id, live[i].timestamp, int(sessions.n_before[i])) for i in sessions.triggers.tolist()}
    slates = slates_of(in_one_go(world))
    assert {(s.user_id, s.timestamp, int(s.slate_id.split("-")[2])) for s in slates} == due
    assert len(slates) == len(due)


def test_feedback_is_what_offline_evaluation_finds_of_the_slates_shown(tmp_path: Path) -> None:
    world = World(tmp_path / "run", ratings_of_world(3, late=0))
    world.apply_features()
    steps = world.loop()
    steps.offer(batches_of(world.log, 1_000))
    run_out(steps)
    told = {f.slate_id: f for f in feedback_of(published(steps))}
    lists = {s.slate_id: s.movie_ids for s in slates_of(published(steps))}
    live = [r for r in world.ratings if r.timestamp >= LIVE]
    users, movies, times = (np.array([getattr(r, n) for r in live]) for n in ("user_id", "movie_id", "timestamp"))
    sessions = find_sessions(users, times)
    at, session = sessions.triggers, sessions.session
    first = {int(n): int(times[session == n][0]) for n in np.unique(session)}
    ids = [f"{users[i]}-{first[int(session[i])]}-{sessions.n_before[i]}" for i in at.tolist()]
    assert sorted(ids) == sorted(told)
    clicked = clicked_slates(session, movies, session[at], at, np.array([lists[name] for name in ids]))
    for k, name in enumerate(ids):
        of_session = times[session == session[at[k]]]
        one = told[name]
        assert one.clicked == movies[clicked == k].tolist()
        assert one.n_ratings == len(of_session)
        assert one.session_seconds == of_session[-1] - of_session[0]
        assert one.timestamp == of_session[-1] + SESSION_GAP_S
        assert one.session_id == name.rpartition("-")[0]
    for variant, tally in steps.tallies.items():
        own = [f for f in told.values() if f.variant == variant]
        assert tally == Tally(len(own), sum(f.n_shown for f in own), sum(len(f.clicked) for f in own))


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batch_sizes_change_nothing(world: World, expected: Published, size: int) -> None:
    world.apply_features()
    steps = world.loop(records_at_once=size)
    for batch in batches_of(world.log, size):
        steps.offer([batch])
        run_out(steps)
    assert published(steps) == expected


def test_what_a_replayer_published_twice_counts_once(tmp_path: Path, expected: Published) -> None:
    world = World(tmp_path / "run")
    for partition, records in world.log.items():
        twice = [isinstance(one, Rating) and i % 7 == 3 for i, one in enumerate(records)]
        world.log[partition] = [one for one, again in zip(records, twice, strict=True) for _ in range(1 + again)]
    assert in_one_go(world) == expected


def test_the_live_part_begins_with_the_first_rating_that_is_not_before_it(tmp_path: Path) -> None:
    before, at = Rating(2, 5, 4.0, LIVE - 1, "run", 0), Rating(3, 5, 4.0, LIVE, "run", 1)
    ratings = [msgspec.structs.replace(one, event_id=n) for n, one in enumerate([*ratings_of_world()[:50], before, at])]
    assert [slate.slate_id for slate in slates_of(in_one_go(World(tmp_path / "run", ratings)))] == [f"3-{LIVE}-0"]


def test_late_ratings_are_counted(tmp_path: Path) -> None:
    of_user = [Rating(3, 5, 4.0, LIVE + after, "run", 0) for after in (0, 2 * DAY_S, 100)]
    ratings = [msgspec.structs.replace(one, event_id=n) for n, one in enumerate([*ratings_of_world()[:50], *of_user])]
    world = World(tmp_path / "run", ratings)
    world.apply_features()
    steps = world.loop(records_at_once=20)
    steps.offer(batches_of(world.log, 10))
    run_out(steps)
    assert [slate.timestamp for slate in slates_of(published(steps))] == [LIVE, LIVE + 2 * DAY_S]
    assert [cursor.late for cursor in steps.writer.cursors.values()] == [0, 1]


def test_features_must_have_applied_the_rating_itself(world: World) -> None:
    world.apply_features()
    steps = world.loop()
    steps.offer(batches_of(world.log, 100_000))
    ends = {p: len(records) for p, records in world.log.items()}
    for p, end in ends.items():
        world.features.database.execute("UPDATE applied SET next_offset = ? WHERE partition = ?", end - 1, p)
    run_out(steps)
    assert {p: cursor.next_offset for p, cursor in steps.writer.cursors.items()} == {p: n - 1 for p, n in ends.items()}
    assert all(why.startswith("features to apply offset") for why in steps.waits.values())
    assert len(steps.waits) == 2


def test_histories_may_be_read_in_portions(world: World, expected: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slate_lists, "_RATINGS_AT_ONCE", 50)
    assert in_one_go(world) == expected


def test_features_may_be_just_ahead_or_far_ahead(world: World, expected: Published) -> None:
    """Late ratings that features know already are not in lists of before."""
    steps = world.loop()
    for batch in batches_of(world.log, 13):
        steps.offer([batch])
        run_out(steps)
        assert steps.waits[batch.partition].startswith("features to apply offset")
        world.apply_features([batch])
        run_out(steps)
        assert batch.partition not in steps.waits
    assert published(steps) == expected


def test_features_that_were_built_anew_are_read_anew(world: World, expected: Published, tmp_path: Path) -> None:
    batches = batches_of(world.log, 30)
    half = len(batches) // 2
    world.apply_features(batches[:half])
    steps = world.loop()
    steps.offer(batches)
    run_out(steps)
    assert steps.waits
    world.features.close()
    for file in world.folder.glob("features.db*"):
        file.unlink()
    again = World(world.folder)
    again.apply_features()
    steps._features.close()  # as it does by itself after a second
    run_out(steps)
    assert published(steps) == expected


def test_what_comes_after_changes_nothing_of_before(tmp_path: Path, expected: Published) -> None:
    """No leak: with the log shuffled after a cut, or cut off there, all that was told by then is the same bytes."""
    ratings = ratings_of_world()
    cut = LIVE + 5 * DAY_S
    first = next(i for i, r in enumerate(ratings) if r.timestamp >= cut)
    random = np.random.default_rng(1)
    movies = random.permutation([r.movie_id for r in ratings[first:]]).tolist()
    stars = random.permutation([r.rating for r in ratings[first:]]).tolist()
    after = [
        msgspec.structs.replace(r, movie_id=m, rating=s) for r, m, s in zip(ratings[first:], movies, stars, strict=True)
    ]
    shuffled = in_one_go(World(tmp_path / "run", [*ratings[:first], *after]))
    assert shuffled != expected

    cut_off = World(tmp_path / "cut", ratings[:first])
    for part in cut_off.log.values():
        part.pop()  # the end of the run, which closes what goes on
    before = in_one_go(cut_off)
    assert len(slates_of(before)) > 80
    assert sum(len(f.clicked) for f in feedback_of(before)) > 10
    for key, lines in before.items():
        assert shuffled[key][: len(lines)] == expected[key][: len(lines)] == lines


def test_what_was_sent_is_forgotten_and_nothing_else(world: World) -> None:
    world.apply_features()
    steps = world.loop(records_at_once=20)
    steps.offer(batches_of(world.log, 20))
    run_out(steps)
    rows = steps.writer.outgoing()
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    steps.writer.sent(rows[2:4])
    assert steps.writer.outgoing() == [*rows[:2], *rows[4:]]


def test_where_made_up_users_answer_the_loop_tells_slates_alone(world: World, expected: Published) -> None:
    world.apply_features()
    steps = world.loop(records_at_once=200, tells_feedback=False)
    steps.offer(batches_of(world.log, 100))
    run_out(steps)
    found = published(steps)
    assert {topic for topic, _ in found} == {IMPRESSIONS}
    for key, lines in found.items():
        told, usual = ([msgspec.json.decode(line) for line in part] for part in (lines, expected[key]))
        assert [one.pop("event_id") for one in told] == list(range(1, len(told) + 1))
        assert [one | {"event_id": number} for one, number in zip(told, count(), strict=False)] == [
            one | {"event_id": number} for one, number in zip(usual, count(), strict=False)
        ]
    assert sum(tally.slates for tally in steps.tallies.values()) == len(slates_of(expected))
    assert all((tally.shown, tally.clicks) == (0, 0) for tally in steps.tallies.values())


def test_partitions_that_come_disturb_nobody_who_looks_at_those_there(world: World) -> None:
    """What only tells may be called by another thread in the middle of an assignment."""
    steps = world.loop()
    steps.release([0])
    looking = iter(steps._held.items())
    steps.assign(LOG, ranges_of(world.log))
    assert [partition for partition, _ in looking] == [1]

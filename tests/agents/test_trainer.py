"""The trainer: events answered once, by champions that are better; limits, and what is planted."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from unittest.mock import patch

import msgspec
import pytest

from agents import training_supervisor
from agents.monitor_store import Request, open_monitors, write_closed, write_requests
from agents.trainer import Trainer
from agents.training_progress import progress_of
from agents.training_supervisor import Supervisor
from featurestore.schema import applied
from models.training import Recipe, train_version
from streams.bus import open_bus
from streams.errors import GroupBusy, StoreUnavailable
from streams.events import DAY_S, DEADLETTER, MODELS, RATINGS, RETRAIN, DeadLetter, ModelEvent
from streams.testing import collect
from tests.agents.trainer_place import INITIAL, QUIET, build_store, decisions, place, plant, stored
from tests.agents.training_world import END, GATES, TRAINING_END, T, Workplace, child, in_a_fork, retrain_event

__all__ = ["build_store", "place", "stored"]


async def test_from_the_first_champion_to_a_better_one_that_is_kept(place: Workplace) -> None:
    beside = "decayed-popularity"  # MF would do the same, in seven seconds each time
    options = {"rating_model": beside, "kinds": ("popularity",), "run": in_a_fork()}
    events = await place.work(retrain_event("e1"), retrain_event("e1"), **options)
    jobs = place.jobs
    assert {job.id: job.state for job in jobs.values()} == {INITIAL: "promoted", "e1": "promoted", "e1/shadow": "done"}
    first, better = jobs[INITIAL].version_id, jobs["e1"].version_id
    assert decisions(place) == [("promoted", INITIAL, TRAINING_END), ("promoted", "e1", T + DAY_S)]
    serving = [place.registry.champion_at(at) for at in (TRAINING_END, T + DAY_S - 1, T + DAY_S)]
    assert [version.version_id if version else None for version in serving] == [first, first, better]
    assert place.registry.champion_at(TRAINING_END - 1) is None
    assert [(e.kind, e.model, e.request, e.event_id) for e in events] == [
        ("trained", beside, None, 1),
        ("promoted", "popularity", None, 2),
        ("trained", beside, "e1", 3),
        ("promoted", "ease", "e1", 4),
    ]
    evidence = events[-1].metrics
    assert evidence["slates"] >= GATES.min_slates
    assert TRAINING_END <= evidence["window"][0] < evidence["window"][1] == T
    assert evidence["difference"][1] > 0
    winner = place.registry.get(better or "")
    assert (winner.manifest.as_of, winner.manifest.serves_from, winner.manifest.request) == (T, T + DAY_S, "e1")
    assert jobs["e1/shadow"].reason.startswith("kept")
    assert jobs["e1/shadow"].event_time % DAY_S == 0
    rating = [place.registry.newest(beside, at) for at in (TRAINING_END, T + DAY_S - 1, T + DAY_S)]
    assert [version.manifest.as_of if version else None for version in rating] == [TRAINING_END, TRAINING_END, T]
    assert not any((place.folder / "jobs").iterdir()), "folders of jobs that are done were left"


async def test_a_store_that_is_away_for_a_moment_is_waited_for(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of those that the trainer reads."""
    away: Counter[str] = Counter()

    def first_away(name: str) -> None:
        read = getattr(training_supervisor, name)

        def tried(*args: object) -> object:
            away[name] += 1
            if away[name] == 1:
                raise StoreUnavailable("database is locked")
            return read(*args)

        monkeypatch.setattr(training_supervisor, name, tried)

    for name in ("progress_of", "ratings_since", "slates_since"):
        first_away(name)
    await place.work(retrain_event("e1"), kinds=("popularity",), rating_model="decayed-popularity")
    assert {job.id: job.state for job in place.jobs.values()} == {
        INITIAL: "promoted",
        "e1": "promoted",
        "e1/shadow": "done",
    }
    assert min(away.values()) > 1
    assert len(away) == 3


async def test_what_is_no_better_is_rejected_with_the_reason(place: Workplace) -> None:
    plant(place, "ease")
    events = await place.work(
        retrain_event("same"), retrain_event("worse", "popularity"), retrain_event("unknown", "nope"),
        retrain_event("early", "ease", TRAINING_END + 2 * DAY_S), b"{", b'{"id":"x"}', training_end=None,
    )  # fmt: skip
    told = {event.request: event for event in events}
    assert {name: event.kind for name, event in told.items()} == {
        "same": "rejected",
        "worse": "rejected",
        "unknown": "failed",
        "early": "rejected",
    }
    assert told["worse"].reason.startswith("worse: CTR -")
    assert told["same"].reason.startswith(("inconclusive", "worse"))
    assert told["early"].reason == "too few slates: 48 of 300 since what the champion has learnt from"
    assert told["early"].version is None
    assert "expected one of the models" in told["unknown"].reason
    assert place.registry.get(told["worse"].version or "").status == "rejected"
    assert Counter(action for action, *_ in decisions(place)) == {"promoted": 1, "rejected": 2}
    assert [letter.offset for letter in place.dead_letters()] == [4, 5]


async def test_a_challenger_is_compared_with_who_serves_when_its_answer_takes_effect(place: Workplace) -> None:
    """Not with who was decided on for later."""
    (serving,) = plant(place, "ease")
    later = train_version(place.store_url, place.registry, Recipe("popularity"), as_of=TRAINING_END)
    place.registry.promote(later, by="test", why="planted", effective=T + 40 * DAY_S)
    (told,) = await place.work(retrain_event("e1"), **QUIET)
    assert (told.kind, told.metrics["champion"]) == ("rejected", serving)


async def test_an_event_that_comes_again_after_its_answer_is_not_answered_again(place: Workplace) -> None:
    plant(place, "ease")
    first = await place.work(retrain_event("e1", "popularity"), **QUIET)
    decided = decisions(place)
    assert await place.work(retrain_event("e1"), first=1, **QUIET) == first
    assert (decisions(place), place.jobs["e1"].state) == (decided, "rejected")


async def test_a_worse_model_planted_as_champion_is_rolled_back(place: Workplace) -> None:
    good, bad = plant(place, "ease", "popularity")
    events = await place.work(training_end=None)
    (shadow,) = place.jobs.values()
    assert (shadow.state, shadow.version_id, shadow.against) == ("done", bad, good)
    assert [(e.kind, e.version, e.event_time) for e in events] == [("rolled_back", good, shadow.due)]
    assert events[0].metrics["difference"][2] < 0
    assert decisions(place)[-1] == ("rolled back", shadow.id, shadow.due)
    at = [place.registry.champion_at(moment) for moment in (T, shadow.due - 1, shadow.due)]
    assert [version.version_id if version else None for version in at] == [bad, bad, good]


async def test_a_better_model_planted_as_champion_is_looked_back_at_and_stays(place: Workplace) -> None:
    _, good = plant(place, "popularity", "ease")
    assert await place.work(training_end=None) == []
    (shadow,) = place.jobs.values()
    assert (shadow.kind, shadow.state, shadow.version_id) == ("shadow", "done", good)
    assert shadow.reason.startswith("kept")
    assert shadow.metrics["difference"][1] > 0
    serving = place.registry.champion_at(END)
    assert serving is not None
    assert serving.version_id == good
    assert [action for action, *_ in decisions(place)] == ["promoted"] * 2


async def test_a_champion_that_another_one_follows_is_not_rolled_back(place: Workplace) -> None:
    """The next one is decided on, though it does not serve yet when the shadow ends."""
    _, bad = plant(place, "ease", "popularity")
    version = train_version(place.store_url, place.registry, Recipe("decayed-popularity"), as_of=T)
    options = QUIET | {"gates": GATES}
    await place.work(**options, command=(sys.executable, "-c", "import sys; sys.exit(2)"), prepare=none)
    place.registry.promote(version, by="test", why="next", effective=T + 40 * DAY_S)
    await place.work(**options)
    jobs = list(place.jobs.values())
    assert (jobs[0].version_id, jobs[0].state, jobs[0].kind) == (bad, "done", "shadow")
    assert "takes over; nothing to roll back" in jobs[0].reason
    assert [action for action, *_ in decisions(place)] == ["promoted"] * 3


def none(supervisor: Supervisor) -> None:
    """The trainer only sees what was promoted, and has no job to run."""

    async def step() -> bool:
        progress = progress_of(supervisor.options)
        assert progress is not None
        await supervisor._watch_others_promotion(progress)
        return False

    supervisor.step = step  # type: ignore[method-assign]


async def test_the_end_comes_once_monitors_have_ended_all_is_answered_and_told(place: Workplace) -> None:
    plant(place, "ease")
    with closing(sqlite3.connect(place.folder / "features.db")) as database, database:
        database.execute("UPDATE applied SET end_of_run = 1")
    options = QUIET | {"monitored": True}
    seen: list[Supervisor] = []

    async def waits_for(*events: bytes, first: int = 0) -> tuple[str, bool]:
        await place.work(*events, first=first, **options, prepare=seen.append)
        return seen[-1].waiting_for, seen[-1].idle_at_end

    assert await waits_for() == ("the monitors to close the end of the run", False)
    monitored(place, T, ended=False)
    assert await waits_for() == ("the monitors to close the end of the run", False)
    monitored(place, END, ended=True)
    assert await waits_for() == ("the event e1, which the monitors have decided on", False)
    assert await waits_for(retrain_event("e1")) == ("", False), "its answer is not published yet"
    with closing(sqlite3.connect(place.folder / "trainer.db")) as database, database:
        database.execute("DELETE FROM outbox")
    options |= {"monitored": False}
    assert await waits_for(first=1) == ("", True)


async def test_an_event_waits_until_the_monitors_have_decided_up_to_it(place: Workplace) -> None:
    """So a shadow that ends before it, but is asked for later, comes first."""
    plant(place, "ease")
    monitored(place, T - 1, ended=False)
    await place.work(retrain_event("e1"), **QUIET)
    assert place.jobs["e1"].state == "queued"
    await place.work(first=1, **QUIET | {"aligned": False})
    assert place.jobs["e1"].state == "rejected"


def monitored(place: Workplace, closed: int, *, ended: bool) -> None:
    """What monitors leave that have asked for e1."""
    with closing(open_monitors(place.store_url, create=True)) as database, database.transaction():
        write_closed(database, closed)
        write_requests(database, [Request("e1", T, T + DAY_S, "ease")])
        row = {column.name: 0 for column in applied.columns} | {"agent": "monitors", "topic": RATINGS}
        row |= {"log_id": "log-1", "end_of_run": ended}
        database.execute("DELETE FROM applied")
        values = [row[column.name] for column in applied.columns]
        database.execute(f"INSERT INTO applied VALUES ({', '.join('?' * len(values))})", *values)


async def test_jobs_that_are_forgotten_are_answered_by_what_was_decided(place: Workplace) -> None:
    plant(place, "popularity")
    await place.work(retrain_event("e1"), training_end=None)
    versions = place.registry.versions()
    for file in place.folder.glob("trainer.db*"):
        file.unlink()
    await place.work(retrain_event("e1"), training_end=None)
    assert place.jobs["e1"].state == "promoted"
    assert place.registry.versions() == versions
    assert len(decisions(place)) == 2


SLOW = ("import sys, time; print('at work', flush=True); time.sleep(600)",)
HUNGRY = ("import time; held = bytearray(200 << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(600)",)


@pytest.mark.parametrize(
    ("code", "limits", "said"),
    [
        (SLOW, {"time_limit_s": 0.5}, "time limit: not done after 0.5 s"),
        (HUNGRY, {"memory_limit_mib": 100.0}, "memory limit: "),
        (
            ("import sys; sys.exit('no luck')",),
            {},
            "given up after 3 tries: its process ended with exit code 1: no luck",
        ),
        (("import sys; sys.stderr.write('bad data'); sys.exit(2)",), {}, "exit code 2: bad data"),
    ],
    ids=["slow", "hungry", "dying", "refusing"],
)
async def test_a_job_that_goes_wrong_has_failed_and_says_why(
    place: Workplace, code: tuple[str], limits: dict[str, float], said: str
) -> None:
    (told,) = await place.work(retrain_event("e1"), command=(sys.executable, "-c", *code), training_end=None, **limits)
    assert (told.kind, told.request) == ("failed", "e1")
    assert said in told.reason
    assert place.jobs["e1"].attempts == (3 if "3 tries" in said else 1)
    assert decisions(place) == []


async def test_two_events_while_one_is_at_work_and_a_second_trainer_is_refused(place: Workplace) -> None:
    """On a bus: the log is read on while a job is at work, stopping puts it back, and every event is answered once."""
    bus_url = f"sqlite:///{place.folder}/bus.db"
    plant(place, "ease")
    slow = replace(place.options(training_end=None, command=child("import time; time.sleep(600)")), bus_url=bus_url)
    trainer, stopping = Trainer(slow), asyncio.Event()
    running = asyncio.create_task(trainer.run(stopping))
    async with asyncio.timeout(200), open_bus(bus_url) as bus:
        while not trainer.store.held:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        async with bus.producer() as producer:
            for value in (retrain_event("e1"), b"garbage", retrain_event("e2", "popularity"), retrain_event("e1")):
                await producer.send(RETRAIN, value)
            await producer.flush()
        while len(place.jobs) < 2 or trainer.supervisor.running is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(GroupBusy):
            await Trainer(slow).run(asyncio.Event())
        stopping.set()
        await running
        assert {job.id: (job.state, job.attempts) for job in place.jobs.values()} == {
            "e1": ("queued", 0),
            "e2": ("queued", 0),
        }
        with patch.object(training_supervisor, "run_process", in_a_fork()):
            trainer, stopping = Trainer(slow), asyncio.Event()
            running = asyncio.create_task(trainer.run(stopping))
            letters = await collect(bus, DEADLETTER, 1, 90)
            told = [msgspec.json.decode(value, type=ModelEvent) for value in await collect(bus, MODELS, 2, 90)]
            stopping.set()
            await running
        assert msgspec.json.decode(letters[0], type=DeadLetter).offset == 1
        assert sorted(event.request or "" for event in told) == ["e1", "e2"]
        assert {event.source for event in told} == {"run/trainer/retrain/0"}
    assert place.all_final()

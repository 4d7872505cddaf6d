"""Jobs as values: when each may run, what becomes of it, and what is told of it."""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np
import pytest

from agents.jobs import (
    Job,
    Outcome,
    Progress,
    answers,
    finished,
    interrupted,
    next_job,
    put_back,
    retrain_job,
    shadow_checked,
    shadow_job,
    started,
)
from agents.promotion_gates import judge_challenger, judge_in_shadow, too_few_slates
from agents.thresholds import Gates
from models.bootstrap import Interval
from streams.events import DAY_S
from streams.retrain import RetrainRequested
from tests.agents.training_world import T, retrain_event

DAY = 100 * DAY_S


def job(job_id: str = "a", event_time: int = DAY, **changes: object) -> Job:
    made = Job(id=job_id, number=0, kind="retrain", model="ease", event_time=event_time, due=event_time + DAY_S)
    return msgspec.structs.replace(made, **changes)


def test_the_earliest_that_is_settled_runs_next_and_one_at_a_time() -> None:
    early, late, done = job("early", DAY - 1), job("late", DAY), job("done", 0, state="done")
    assert next_job([late, done, early], DAY) == early
    assert next_job([late, early], DAY - 2) is None
    assert next_job([late, started(early)], DAY) is None
    assert next_job([job(number=2), job("b", number=1)], DAY) == job("b", number=1)
    assert next_job([job(ready=False)], DAY) is None
    assert next_job([early, late], DAY, DAY - 1) == early
    assert next_job([early, late], DAY, DAY - 2) is None, "before the monitors have decided up to it"
    assert next_job([job(kind="initial")], DAY, 0) == job(kind="initial")


def test_what_a_person_gave_as_the_reason_stays_with_the_job() -> None:
    event = msgspec.json.decode(retrain_event("e1"), type=RetrainRequested)
    assert retrain_job(event, 3, DAY_S).asked == ""
    why = msgspec.structs.replace(event.data, asked_by="pages/me", justification="films are missing")
    by_hand = msgspec.structs.replace(event, data=why)
    assert retrain_job(by_hand, 3, DAY_S).asked == "pages/me: films are missing"
    with pytest.raises(ValueError, match="NUL"):
        retrain_job(msgspec.structs.replace(by_hand, data=msgspec.structs.replace(why, justification="a\0")), 3, DAY_S)


def test_ratings_are_waited_for_until_the_run_has_ended() -> None:
    assert Progress(closed=DAY, ended=False).settled(DAY_S) == DAY - DAY_S
    assert Progress(closed=DAY, ended=True, monitored=DAY - 5).decided(DAY_S) == DAY - 5
    assert Progress(closed=DAY, ended=False, monitored=DAY).decided(DAY_S) == DAY - DAY_S
    assert Progress(closed=DAY, ended=True).settled(DAY_S) == DAY


def test_tries_are_counted_and_end() -> None:
    running = started(job())
    again = interrupted(running, "killed", 2)
    assert (again.state, again.attempts) == ("queued", 1)
    given_up = interrupted(started(again), "killed", 2)
    assert (given_up.state, given_up.reason) == ("failed", "given up after 2 tries: killed")
    assert put_back(running).attempts == 0
    (told,) = answers(given_up, None)
    assert (told.kind, told.request, told.version, told.event_time) == ("failed", "a", None, DAY + DAY_S)
    for change in (started, put_back, lambda j: finished(j, Outcome(decision="none", reason=""))):
        with pytest.raises(ValueError, match="expected it"):
            change(given_up)


def test_what_was_decided_is_told_once_each() -> None:
    outcome = Outcome(decision="promote", reason="better", version_id="v2", against="v1", trained={"mf": "m2"})
    ended = finished(started(job()), outcome)
    assert (ended.state, ended.version_id, ended.against) == ("promoted", "v2", "v1")
    assert [(e.kind, e.model, e.version, e.request) for e in answers(ended, outcome)] == [
        ("trained", "mf", "m2", "a"),
        ("promoted", "ease", "v2", "a"),
    ]
    shadow = msgspec.structs.replace(shadow_job(ended, DAY_S), ready=True)
    kept = Outcome(decision="none", reason="kept")
    assert answers(finished(started(shadow), kept), kept) == []
    back = Outcome(decision="roll back", reason="worse")
    (told,) = answers(finished(started(shadow), back), back)
    assert (told.kind, told.version, told.request) == ("rolled_back", "v1", None)


def test_a_shadow_job_is_ready_as_of_the_boundary_after_its_slates_however_late_they_are_counted() -> None:
    since = DAY + DAY_S
    waiting = shadow_job(job(version_id="v2", against="v1"), DAY_S)
    slates = np.array([since + 10, since + DAY_S + 5, since + DAY_S + 6, since + 4 * DAY_S])
    assert (waiting.ready, waiting.due) == (False, since + 2 * DAY_S)
    found = set()
    for settled in range(since, since + 6 * DAY_S, 7_201):
        looked = shadow_checked(waiting, slates[slates < settled], 3, settled, DAY_S)
        assert looked.due > settled or looked.ready, "who waits for what is due would not have waited"
        assert looked.ready == (settled >= since + 2 * DAY_S)
        if looked.ready:
            found.add((looked.event_time, looked.due))
        else:
            assert looked.due <= since + 3 * DAY_S, "due later than it becomes"
    assert found == {(since + 2 * DAY_S, since + 3 * DAY_S)}


@pytest.mark.parametrize(
    ("low", "high", "challenger", "shadow"),
    [
        (0.001, 0.02, "promote", "none"),
        (-0.01, 0.02, "reject", "none"),
        (-0.02, 0.01, "reject", "none"),
        (-0.02, -0.001, "reject", "roll back"),
    ],
)
def test_both_sides_of_the_gates(low: float, high: float, challenger: str, shadow: str) -> None:
    difference = Interval((low + high) / 2, low, high)
    decision, reason = judge_challenger(difference, 0.95)
    assert decision == challenger
    assert reason.split(":")[0] == {True: "better", False: "worse" if high < 0 else "inconclusive"}[low > 0]
    assert judge_in_shadow(difference, 0.95)[0] == shadow
    assert judge_challenger(Interval(0.0, 0.0, 0.0), 0.95)[0] == "reject"


@pytest.mark.parametrize(("n_slates", "enough"), [(500, True), (499, False)])
def test_there_are_enough_slates_or_too_few(n_slates: int, enough: bool) -> None:
    assert (too_few_slates(n_slates, Gates(min_slates=500)) is None) is enough


def test_an_event_that_names_no_moment_is_refused() -> None:
    event = msgspec.json.decode(retrain_event("7"), type=RetrainRequested)
    assert retrain_job(event, 3, DAY_S).due == T + DAY_S
    for changes in ({"id": ""}, {"id": "a\0"}, {"subject": "\0"}, {"time": datetime(2020, 1, 1)}):
        with pytest.raises(ValueError, match="expected"):
            retrain_job(msgspec.structs.replace(event, **changes), 3, DAY_S)

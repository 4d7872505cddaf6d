"""The story of a closed loop, told from its topics."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agents.thresholds import default_thresholds
from streamlens.cli.demo import print_story
from streamlens.demo_loop import loop_environment, loop_settings
from streamlens.loop_story import LoopRecords, LoopStory, tell_story
from streamlens.settings import load_settings
from streams.drift import InjectedDrift
from streams.events import DAY_S, Alert, Feedback, ModelEvent, Tick
from streams.retrain import RetrainRequest, RetrainRequested

BEGINS = 1_000 * DAY_S
DRIFT = InjectedDrift("popularity-flip", 1, "high", BEGINS, 1, 1, {})


def at(day: int) -> int:
    """That day after the drift began."""
    return BEGINS + day * DAY_S


def feedback(user: int, day: int, n_clicks: int, variant: str = "champion") -> Feedback:
    shown = list(range(1, 11))
    return Feedback(f"{user}-{day}-0", f"{user}-{day}", user, variant, "v", 10, shown[:n_clicks], 5, 60, at(day))


def asked(number: int, day: int) -> RetrainRequested:
    why = RetrainRequest(reason="drift", severity="schedule", asked_by="monitors")
    return RetrainRequested.of("ease", why, id=f"r{number}", source="run", time=datetime.fromtimestamp(at(day), UTC))


def answered(kind: str, day: int, request: str | None) -> ModelEvent:
    return ModelEvent(kind, "ease", f"v{day}", at(day), "because", request=request)  # type: ignore[arg-type]


def story(
    *, drift: InjectedDrift | None = DRIFT, models: tuple[ModelEvent, ...] = (), clean: tuple[Alert, ...] = ()
) -> LoopStory:
    records = LoopRecords(
        alerts=[Alert("popularity_drift", "investigate", "drift", {}, at(9))],
        retrains=[asked(2, 50), asked(1, 10)],
        models=models,
        feedback=[
            *(feedback(user, -20, 4) for user in range(8)),
            *(feedback(user, 5, 0) for user in range(8)),
            *(feedback(user, 40, 2) for user in range(8)),
            feedback(99, 5, 10, "other"),
            Tick(at(60)),
        ],
        asked_ms={"r1": 1_000, "r2": 5_000},
        answered_ms={"r1": 3_500, "shadow": 9_000},
        shown_ms={("other", "v30"): 2_000, ("champion", "v30"): 7_000, ("champion", "v35"): 8_000},
    )
    return tell_story(records, drift, clean, default_thresholds(), frozenset({"champion"}))


def test_tells_clicks_before_the_drift_under_it_and_after_the_first_promotion() -> None:
    told = story(
        models=(answered("promoted", -60, None), answered("promoted", 30, "r1"), answered("promoted", 35, None))
    )
    assert [(p.name, p.n_slates, p.n_users, p.ctr.value) for p in told.periods] == [
        ("before the drift", 8, 8, pytest.approx(0.4)),
        ("until a promotion", 8, 8, 0.0),
        ("after it", 8, 8, pytest.approx(0.2)),
    ]
    assert (told.periods[0].until, told.periods[1].until) == (BEGINS, at(30))


def test_without_a_promotion_there_is_no_after() -> None:
    told = story(models=(answered("rejected", 30, "r1"),))
    assert [(p.name, p.ctr.value) for p in told.periods] == [("before the drift", 0.4), ("since the drift", 0.1)]


def test_without_drift_there_is_one_period_and_nothing_to_detect() -> None:
    told = story(drift=None)
    assert [(p.name, p.n_slates) for p in told.periods] == [("all of it", 24)]
    assert told.detection is None


def test_each_retrain_event_stands_beside_its_answer() -> None:
    told = story(models=(answered("rejected", 30, "r1"), answered("trained", 51, "r2")))
    assert told.answer_s == [2.5]
    assert [(event.id, answer and answer.kind) for event, answer in told.retrains] == [("r1", "rejected"), ("r2", None)]


def test_a_promotion_serves_once_a_slate_of_its_version_was_shown_as_the_champions() -> None:
    assert story(models=(answered("promoted", 30, "r1"), answered("promoted", 35, None))).serving_s == [6.0]
    assert story(models=(answered("promoted", 31, "r1"),)).serving_s == [], "nobody was shown it before the end"
    assert story(models=(answered("rejected", 30, "r1"),)).serving_s == []


def test_the_summary_says_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_story(story(models=(answered("promoted", 30, "r1"), answered("rolled_back", 45, None))))
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line] == [
        "the closed loop:",
        "drift popularity-flip, high, from 1972-09-27 on",
        "detected popularity_drift, 1972-10-06, 9 event days after; silent without the drift",
        "retrain events:",
        "1972-10-07 schedule: drift",
        "promoted, because",
        "1972-11-16 schedule: drift",
        "no answer yet",
        "answered 2.5 s after they were published, 2.5 s at most",
        "serving 6.0 s after they were published, 6.0 s at most: the first slate of what was promoted",
        "1972-11-11 rolled back: because",
        "clicks on what the champion showed (replayed users cannot react: a hit rate):",
        "until slates users ctr 95 %",
        "before the drift 1972-09-27 8 8 40.00% 40.00% to 40.00%",
        "until a promotion 1972-10-27 8 8 0.00% 0.00% to 0.00%",
        "after it 1972-11-06 8 8 20.00% 20.00% to 20.00%",
    ]


def test_the_summary_of_what_was_not_found_or_not_injected(capsys: pytest.CaptureFixture[str]) -> None:
    print_story(story(clean=(Alert("popularity_drift", "investigate", "drift", {}, at(10)),)))
    out = capsys.readouterr().out
    assert "not found by a detector that is silent on the same data without it" in out
    assert "serving" not in out
    print_story(story(drift=None))
    assert "none was injected" in capsys.readouterr().out


def test_the_children_of_the_demo_are_given_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = loop_settings(load_settings({}))
    assert wanted.monitors.thresholds is not None
    assert {variant.name for variant in wanted.experiment.variants} == {"champion", "decayed-popularity", "popularity"}
    for name, value in loop_environment(wanted).items():
        monkeypatch.setenv(name, value)
    found = load_settings({})
    assert (found.loop, found.experiment, found.monitors) == (wanted.loop, wanted.experiment, wanted.monitors)


def test_the_drift_was_found_by_a_detector_that_is_silent_without_it() -> None:
    found = story().detection
    assert found is not None
    assert (found.detector, found.after_s) == ("popularity_drift", 9 * DAY_S)


def test_a_loop_that_told_nothing_has_no_periods() -> None:
    nothing = LoopRecords([], [], [], [])
    assert tell_story(nothing, DRIFT, [], default_thresholds(), frozenset({"champion"})).periods == []

"""What the demo says of its closed loop at the end, and what its processes are told at the start."""

from __future__ import annotations

import pytest

from agents.thresholds import default_thresholds
from streamlens.cli.demo import print_story
from streamlens.demo_loop import loop_environment, loop_settings
from streamlens.loop_story import LoopRecords, tell_story
from streamlens.settings import ExperimentSettings, LoopSettings, load_settings
from tests.streamlens.test_loop_story import DRIFT, answered, story

Capture = pytest.CaptureFixture[str]


def test_the_story_tells_drift_answers_and_clicks_in_its_order(capsys: Capture) -> None:
    models = (answered("promoted", 30, "r1"), answered("rolled_back", 45, None), answered("rejected", 51, "r2"))
    print_story(story(models=models))
    said = capsys.readouterr().out
    in_order = [
        "drift          popularity-flip, high, from 1972-09-27 on",
        "detected       popularity_drift, 1972-10-06, 9 event days after",
        "retrain events:",
        "1972-10-07     schedule: drift",
        "promoted, because",
        "1972-11-16     schedule: drift",
        "rejected, because",
        "2.5 s",
        "1972-11-11     rolled back: because",
        "replayed users cannot react",
        "before the drift",
        "until a promotion",
        "after it",
    ]
    places = [said.find(one) for one in in_order]
    assert -1 not in places, (in_order[places.index(-1)], said)
    assert places == sorted(places)
    rows = {name: line for line in said.splitlines() for name in in_order[-3:] if line.lstrip().startswith(name)}
    for name, ctr in zip(in_order[-3:], ("40.00%", "0.00%", "20.00%"), strict=True):
        assert ctr in rows[name]
    assert "no answer yet" not in said


def test_what_is_missing_is_said(capsys: Capture) -> None:
    print_story(story(models=(answered("promoted", 30, "r1"),)))
    assert capsys.readouterr().out.count("no answer yet") == 1
    nothing = LoopRecords([], [], [], [])
    print_story(tell_story(nothing, DRIFT, [], default_thresholds(), frozenset({"champion"})))
    said = capsys.readouterr().out
    assert "detected       not found" in said
    assert "retrain events" not in said
    assert "clicks on" not in said
    print_story(story(drift=None))
    said = capsys.readouterr().out
    assert "none was injected" in said
    assert "detected" not in said


@pytest.mark.parametrize("own", [{}, {"loop": {"aligned": False, "rating_model": "mf", "train_delay_days": 3}}])
def test_the_demos_processes_read_the_settings_that_it_has(
    own: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = loop_settings(load_settings(own))
    assert (wanted.loop == LoopSettings(), wanted.experiment == ExperimentSettings()) == (False, False)
    for name, value in loop_environment(wanted).items():
        monkeypatch.setenv(name, value)
    found = load_settings({})
    assert (found.loop, found.experiment, found.monitors) == (wanted.loop, wanted.experiment, wanted.monitors)

"""Features, loop, monitors and trainer of one run: the same results however it goes, and nobody waits for ever."""

from __future__ import annotations

import msgspec
import pytest

from tests.loop.golden import GOLDEN, lines_of
from tests.loop.together import Results

pytestmark = pytest.mark.slow


def test_the_run_has_what_is_to_be_compared(results: dict[str, Results]) -> None:
    found = results["at-once"]
    assert [state for job, state in found.jobs if job.startswith("RUN/monitors/") and "shadow" not in job] == [
        "rejected",
        "rejected",
        "promoted",
    ]
    assert [entry["action"] for entry in found.trail] == ["promoted", "rejected", "rejected", "promoted"]
    assert {name: len(records) for name, records in found.topics.items() if records}.keys() == {
        *("impressions/0", "impressions/1", "feedback/0", "feedback/1", "alerts/0", "retrain/0", "models/0")
    }
    served = {msgspec.json.decode(line).get("model_version") for line in found.topics["impressions/0"]}
    assert {entry["version_id"] for entry in found.trail if entry["action"] == "promoted"} < served


@pytest.mark.parametrize("name", ["small-batches", "restarted", "slow-trainer", "monitors-away"])
def test_batches_restarts_and_slow_others_change_no_byte(results: dict[str, Results], name: str) -> None:
    assert results[name].same == results["at-once"].same


def test_a_log_that_comes_slowly_changes_nothing_but_offsets_and_names(results: dict[str, Results]) -> None:
    assert results["slowly"].alike == results["at-once"].alike


def test_retrain_events_are_those_of_the_golden_file(results: dict[str, Results]) -> None:
    assert lines_of(results["at-once"]) == GOLDEN.read_text().splitlines(), "see docs/loop.md: Golden file"


def test_a_slow_trainer_is_waited_for(results: dict[str, Results]) -> None:
    assert any("the trainer's answer to" in why for why in results["slow-trainer"].waits)
    assert any("the trainer's first training" in why for why in results["slow-trainer"].waits)


def test_dead_monitors_are_waited_for_and_said_to_be(results: dict[str, Results]) -> None:
    found = results["monitors-away"]
    assert any("the monitors to close" in why for why in found.waits)
    assert found.status == ["the monitors to close "]


def test_a_failed_job_is_an_answer(results: dict[str, Results]) -> None:
    found = results["failing"]
    states = dict(found.jobs)
    assert states.pop("RUN/trainer/initial") == "promoted"
    assert len(states) > 2
    assert set(states.values()) == {"failed"}
    assert len(found.trail) == 1
    ticks = [msgspec.json.decode(line) for line in found.topics["impressions/1"]]
    assert ticks[-1].get("end_of_run")


def test_a_partition_without_ratings_holds_up_nobody(results: dict[str, Results]) -> None:
    found = results["idle"].topics
    kinds = {msgspec.json.decode(line)["type"] for line in found["impressions/1"]}
    assert kinds == {"tick"}
    assert msgspec.json.decode(found["impressions/1"][-1])["end_of_run"]
    assert len(found["impressions/0"]) > 300
    assert any(job.startswith("RUN/monitors/") for job, _ in results["idle"].jobs)

"""The monitors killed between any two steps, and with a store that fails: the same alerts, events and state."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents import monitor_ingest
from agents.monitor_store import open_monitors, read_requests, read_state
from streams.errors import StoreAheadOfLog, StoreSetBack, StoreUnavailable
from streams.events import ALERTS, DAY_S, RETRAIN
from tests.agents.monitored import LIVE, falling, tuned
from tests.agents.monitored_run import Predictor, Run, closed_of


async def test_a_crash_between_any_two_steps_changes_nothing(tmp_path: Path) -> None:
    """Steps: a batch taken in; the outbox published, and not yet forgotten; forgotten."""
    logs = falling(5)
    whole = Run(tmp_path / "whole", logs)
    await whole.read()
    expected = whole.outcome()
    assert {topic for topic, _, _ in expected["records"]} == {ALERTS, RETRAIN}
    n_steps = 3 * len(logs.batches(60))
    for crash_at in range(1, n_steps, 2):
        run = Run(tmp_path / str(crash_at), logs, save_every_s=0.0 if crash_at % 4 == 1 else 1e9)
        since, step = await run.start(), 0
        for batch in logs.batches(60, crash_at, since):
            assert run.ingest is not None
            await run.ingest.apply([batch])
            if (step := step + 1) == crash_at:
                break
            rows = await run.ingest.outbox()
            run.published += rows
            if (step := step + 1) == crash_at:
                break
            await run.ingest.published(rows)
            if (step := step + 1) == crash_at:
                break
        run.kill()
        await run.read(13, crash_at)
        assert run.outcome() == expected, crash_at


@pytest.mark.parametrize("broken", ["write_state", "write_requests", "write_days"])
async def test_a_transaction_that_fails_leaves_nothing_and_is_done_again(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Run(tmp_path / "whole", falling())
    await whole.read()
    write, failures = getattr(monitor_ingest, broken), [StoreUnavailable("disk full")] * 2

    def fail_sometimes(*arguments: Any) -> None:
        write(*arguments)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(monitor_ingest, broken, fail_sometimes)
    run = Run(tmp_path / "run", falling())
    await run.read()
    assert failures == []
    assert run.outcome() == whole.outcome()


async def test_closed_days_are_told_before_their_state_is_written(tmp_path: Path) -> None:
    """Whoever steps in time with the monitors does not wait for megabytes; and what was told holds after a crash."""
    logs = falling(2)
    run = Run(tmp_path, logs, save_every_s=1e9)
    await run.start()
    assert run.ingest is not None
    await run.ingest.apply(logs.batches(1_000))
    run.kill()
    told = closed_of(run.url)
    with closing(open_monitors(run.url)) as database:
        assert (told, read_state(database).state) == ((LIVE + 3) * DAY_S, None)
    await run.start()
    assert run.ingest is not None
    assert run.ingest.closed == told
    run.kill()


async def test_a_state_of_other_thresholds_is_built_anew_and_repeats_nothing(tmp_path: Path) -> None:
    """So is one of another River. What was decided stays decided, whatever other thresholds would have said."""
    logs = falling()
    run = Run(tmp_path, logs)
    await run.read()
    before = len(run.published)
    run.settings = replace(run.settings, thresholds=tuned(ctr={"for_days": 2}))
    start = await run.start()
    assert set(start.values()) == {0}
    run.kill()
    await run.read()
    assert len(run.published) == before
    assert [asked.id for asked in read_requests(run.url)] == [f"run/monitors/{LIVE + 3}"]
    assert closed_of(run.url) == (LIVE + 9) * DAY_S


async def test_a_log_that_ends_before_what_was_read_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, falling())
    await run.read()
    run.logs = falling(1)
    with pytest.raises(StoreAheadOfLog, match="--role monitors --rebuild"):
        await run.start()
    run.kill()


async def test_a_feature_store_that_goes_away_within_a_day_has_the_day_read_again(tmp_path: Path) -> None:
    logs = falling(3)
    run = Run(tmp_path, logs, tuned(rmse={}))
    run.predictor = Predictor(away=True)
    since = await run.start()
    assert run.ingest is not None
    with pytest.raises(StoreSetBack):
        await run.ingest.apply(logs.batches(1_000, 0, since))
    await run.ingest.release(list(logs.values))  # as the app does, which has all partitions given again
    run.kill()
    await run.read()
    whole = Run(tmp_path / "whole", logs, tuned(rmse={}))
    whole.predictor = Predictor()
    await whole.read()
    assert run.outcome() == whole.outcome()

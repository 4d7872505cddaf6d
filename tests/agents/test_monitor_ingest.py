"""The monitors over whole logs: any portions, any order, a crash anywhere give the same alerts, events and state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agents import monitor_ingest
from agents.monitor_figures import metrics_of
from agents.monitor_ingest import MonitorIngest
from agents.monitor_settings import MonitorSettings
from agents.monitor_store import open_monitors, read_closed, read_figures, read_requests, read_state
from agents.thresholds import Thresholds
from featurestore.partition_writer import OutboxRow
from models.interactions import Float32s
from streamlens.monitors_status import monitors_status
from streams.errors import StoreAheadOfLog, StoreSetBack, StoreUnavailable
from streams.events import ALERTS, DAY_S, DEADLETTER, FEEDBACK, IMPRESSIONS, RATINGS, RETRAIN, Tick
from streams.records import Int64s, TopicPartition
from streams.retrain import RetrainRequested
from tests.agents.monitored import DAY_0, LIVE, Logs, batch_of, falling, tuned

CTR = tuned(ctr={"for_days": 3})


class Facts:
    """Nothing but what names tell; ``baselines``: of each version."""

    def __init__(self, **baselines: float) -> None:
        self.of_all = baselines

    def kind(self, version_id: str) -> str | None:
        return version_id.partition("-")[0]

    def baselines(self, version_id: str) -> Mapping[str, float]:
        return self.of_all


class Run:
    """Monitors in a folder, started as often as a test likes; what they published, each record as often as it was."""

    def __init__(self, folder: Path, logs: Logs, thresholds: Thresholds = CTR, **settings: Any) -> None:
        self.url = f"sqlite:///{folder}/features.db"
        self.logs = logs
        self.settings = MonitorSettings("run", thresholds, LIVE * DAY_S, **{"save_every_s": 0.0} | settings)
        self.facts = Facts()
        self.predictor: Any = None
        self.published: list[OutboxRow] = []
        self.ingest: MonitorIngest | None = None

    async def start(self) -> dict[TopicPartition, int]:
        self.ingest = MonitorIngest(self.url, self.settings, self.facts, self.predictor, store_patience_s=0.2)
        ranges = {tp: held for tp, held in self.logs.ranges().items() if tp.topic in self.settings.topics}
        return await self.ingest.assign(self.logs.infos(), ranges)

    def kill(self) -> None:
        """Nothing is written any more; the connection goes as it would with the process."""
        assert self.ingest is not None
        self.ingest.close()
        self.ingest = None

    async def publish(self, limit: int = 1_000) -> None:
        assert self.ingest is not None
        rows = (await self.ingest.outbox())[:limit]
        self.published += rows
        await self.ingest.published(rows)

    async def read(self, size: int = 50, seed: int = 0) -> None:
        """Start, read all, publish, end."""
        since = await self.start()
        assert self.ingest is not None
        for batch in self.logs.batches(size, seed, since):
            if batch.topic in self.settings.topics:
                await self.ingest.apply([batch])
        await self.ingest.release([])
        await self.publish()
        self.kill()

    def outcome(self) -> dict[str, Any]:
        """All that a run comes to. What was published twice is there once."""
        with closing(open_monitors(self.url)) as database:
            state = read_state(database)
            offsets = database.rows(
                "SELECT topic, partition, next_offset, duplicates, invalid FROM applied ORDER BY 1, 2"
            )
        records = dict.fromkeys((row.topic, row.key, row.value) for row in self.published)
        return {
            "records": sorted(records),
            "state": state.state,
            "closed": state.closed,
            "offsets": offsets,
            "requests": read_requests(self.url),
            "figures": read_figures(self.url, 100),
        }

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(row.value) for row in self.published if row.topic == topic]


async def test_a_fallen_ctr_alerts_and_asks_for_a_training_once(tmp_path: Path) -> None:
    run = Run(tmp_path, falling(), train_delay_s=2 * DAY_S)
    await run.read()
    (alert,) = run.values(ALERTS)
    decided = LIVE + 3
    assert (alert["name"], alert["severity"], alert["event_time"]) == ("ctr", "critical", (decided + 1) * DAY_S)
    assert (alert["source"], alert["event_id"]) == ("run/monitors", decided * 1_000)
    (event,) = run.values(RETRAIN)
    assert (event["id"], event["source"], event["subject"]) == (f"run/monitors/{decided}", "run/monitors", "ease")
    assert msgspec.json.decode(json.dumps(event), type=RetrainRequested).time.timestamp() == (decided + 1) * DAY_S
    assert event["data"]["evidence"]["ctr"]["value"] == 0.0125
    (asked,) = read_requests(run.url)
    assert asked == (event["id"], (decided + 1) * DAY_S, (decided + 3) * DAY_S, "ease")
    assert read_closed(run.url) == (LIVE + 9) * DAY_S
    assert [figures.metrics.day for figures in read_figures(run.url, 3)] == [LIVE + 6, LIVE + 7, LIVE + 8]


async def test_just_above_the_threshold_nothing_is_said(tmp_path: Path) -> None:
    run = Run(tmp_path, falling(low=18))
    await run.read()
    assert run.published == []
    assert read_requests(run.url) == []


@pytest.mark.parametrize(("size", "seed"), [(1, 1), (7, 2), (1_000, 3)])
async def test_any_portions_in_any_order_come_to_the_same(tmp_path: Path, size: int, seed: int) -> None:
    one, other = Run(tmp_path / "one", falling()), Run(tmp_path / "other", falling(), save_every_s=1e9)
    await one.read()
    await other.read(size, seed)
    assert other.outcome() == one.outcome()


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
    told = read_closed(run.url)
    with closing(open_monitors(run.url)) as database:
        assert (told, read_state(database).state) == ((LIVE + 3) * DAY_S, None)
    await run.start()
    assert run.ingest is not None
    assert run.ingest.closed == told
    run.kill()


async def test_a_partition_that_is_silent_but_for_ticks_holds_nothing_up(tmp_path: Path) -> None:
    logs = falling()
    for topic in (RATINGS, IMPRESSIONS, FEEDBACK):
        tp = TopicPartition(topic, 1)
        logs.values[tp] = [value for value in logs.values[tp] if b'"type":"tick"' in value]
    run = Run(tmp_path, logs, tuned(ctr={"for_days": 3, "min_sample": 10}))
    await run.read()
    assert read_closed(run.url) == (LIVE + 9) * DAY_S
    assert len(run.values(RETRAIN)) == 1


async def test_a_partition_without_its_tick_is_waited_for(tmp_path: Path) -> None:
    logs = falling(3)
    run = Run(tmp_path, logs)
    await run.start()
    assert run.ingest is not None
    silent = TopicPartition(FEEDBACK, 1)
    await run.ingest.apply([batch for batch in logs.batches(1_000) if batch.tp != silent])
    assert (run.ingest.closed, run.ingest.behind()) == (0, frozenset({silent}))
    await run.ingest.apply([batch_of(silent, 0, logs.values[silent])])
    assert (run.ingest.closed, run.ingest.behind()) == ((LIVE + 4) * DAY_S, frozenset())
    run.kill()


async def test_what_is_far_ahead_is_read_no_further(tmp_path: Path) -> None:
    logs = falling(3)
    run = Run(tmp_path, logs, held_records=100)
    await run.start()
    assert run.ingest is not None
    await run.ingest.apply([batch for batch in logs.batches(1_000) if batch.topic == RATINGS])
    assert {tp.topic for tp in run.ingest.ahead()} == {RATINGS}
    await run.ingest.apply([batch for batch in logs.batches(1_000) if batch.topic != RATINGS])
    assert run.ingest.ahead() == frozenset()
    run.kill()


async def test_without_a_loop_ratings_alone_are_monitored(tmp_path: Path) -> None:
    """A log of two live weeks, in the second of which half as many rate."""
    logs = Logs()
    for day in range(LIVE - 14, LIVE):
        logs.day(day, slates=False)
    for day in range(LIVE, LIVE + 7):
        logs.day(day, slates=False, n=20)
    logs.tick(LIVE + 7, end=True)
    volume = tuned(volume={"window_days": 7})
    run = Run(tmp_path, logs, volume, slates=False)
    await run.read()
    assert [alert["name"] for alert in run.values(ALERTS)] == ["volume"]
    assert run.values(RETRAIN) == []  # to be looked at by a person, since no detector fired


@pytest.mark.parametrize(("n", "alerts"), [(28, 1), (29, 0)])
async def test_volume_fires_at_its_threshold_and_is_silent_above(tmp_path: Path, n: int, alerts: int) -> None:
    logs = Logs()
    for day in range(LIVE - 7, LIVE):
        logs.day(day, slates=False)
    logs.day(LIVE, slates=False, n=n)
    logs.tick(LIVE + 1, end=True)
    run = Run(tmp_path, logs, tuned(volume={}), slates=False)
    await run.read()
    assert len(run.values(ALERTS)) == alerts


async def test_garbage_is_dead_lettered_once_and_stops_nothing(tmp_path: Path) -> None:
    logs = falling(3)
    garbage = [b"", b"\xff\xfe", b"{" * 500, b"[]", b'{"type":"slate"}', b'{"type":"tick","event_time":99999999999}']
    for number, value in enumerate(garbage):
        logs.values[TopicPartition(IMPRESSIONS, 0)].insert(15 * number, value)
    logs.values[TopicPartition(RATINGS, 0)].insert(3, b"nothing")
    logs.values[TopicPartition(FEEDBACK, 1)].append(logs.values[TopicPartition(FEEDBACK, 1)][30])  # told again
    clean, run = Run(tmp_path / "clean", falling(3)), Run(tmp_path / "run", logs)
    await clean.read()
    await run.read()
    letters = run.values(DEADLETTER)
    assert [(letter["topic"], letter["partition"], letter["offset"]) for letter in letters] == [
        (IMPRESSIONS, 0, 15 * number) for number in range(len(garbage))
    ]
    assert [letter["event_id"] for letter in letters] == [1, 2, 3, 4, 5, 6]
    assert run.values(RETRAIN)[0]["id"] == clean.values(RETRAIN)[0]["id"]
    assert read_closed(run.url) == read_closed(clean.url)


async def test_a_gap_of_a_billion_seconds_costs_nothing(tmp_path: Path) -> None:
    logs = falling(3)
    later = LIVE + 4 - 7_000
    early = Logs()
    early.day(later - 100)
    for tp, values in early.values.items():
        logs.values[tp] = values + logs.values[tp]
    run = Run(tmp_path, logs)
    await run.read()
    assert len(run.values(RETRAIN)) == 1


async def test_a_tick_that_only_some_partitions_have_ends_no_day_too_early(tmp_path: Path) -> None:
    """A tick of somebody else's on one partition: what the others hold up to it counts, once."""
    logs = falling(5)
    tp = TopicPartition(RATINGS, 0)
    tick = msgspec.json.encode(Tick((LIVE + 2) * DAY_S + 3_600, "other", 1))
    position = next(i for i, v in enumerate(logs.values[tp]) if f'"event_time":{(LIVE + 3) * DAY_S}'.encode() in v)
    logs.values[tp].insert(position, tick)
    plain, run = Run(tmp_path / "plain", falling(5)), Run(tmp_path / "run", logs)
    await plain.read()
    await run.read(3)
    wanted = {(figures.metrics.day, figures.severity, figures.retrain) for figures in read_figures(plain.url, 50)}
    assert {(figures.metrics.day, figures.severity, figures.retrain) for figures in read_figures(run.url, 50)} == wanted
    assert [event["id"] for event in run.values(RETRAIN)] == [event["id"] for event in plain.values(RETRAIN)]


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
    assert read_closed(run.url) == (LIVE + 9) * DAY_S


async def test_a_log_that_ends_before_what_was_read_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, falling())
    await run.read()
    run.logs = falling(1)
    with pytest.raises(StoreAheadOfLog, match="--role monitors --rebuild"):
        await run.start()
    run.kill()


class Predictor:
    """Foresees every rating half a star too high, from the second look on; ``away``: fails at first."""

    def __init__(self, *, away: bool = False) -> None:
        self.looks = 0
        self.asked: list[int] = []
        self.away = away

    def waits_for(self, event_time: int) -> str:
        self.looks += 1
        return "" if self.looks % 2 == 0 else "the feature store"

    def stars(self, day: int, user_ids: Int64s, movie_ids: Int64s) -> Float32s:
        if self.away:
            self.away = False
            raise StoreUnavailable("away")
        self.asked.append(day)
        return np.full(len(user_ids), 4.5, np.float32)


async def test_days_wait_for_the_features_that_their_predictions_need(tmp_path: Path) -> None:
    run = Run(tmp_path, falling(3), tuned(rmse={}))
    run.predictor = Predictor()
    await run.read()
    assert run.predictor.asked == list(range(LIVE, LIVE + 4))
    (figures,) = read_figures(run.url)
    assert figures.metrics.measures["rmse"].value == pytest.approx(0.5)


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


async def test_another_champion_begins_anew_with_its_own_baseline(tmp_path: Path) -> None:
    logs = Logs()
    for day in range(DAY_0, LIVE + 3):
        logs.day(day, clicks=20)
    for day in range(LIVE + 3, LIVE + 9):
        logs.day(day, clicks=5, version="vae-20090101-abcdef")
    logs.tick(LIVE + 9, end=True)
    run = Run(tmp_path, logs)
    run.facts = Facts(ctr=0.0125)
    await run.read()
    assert run.published == []
    assert [figures.version for figures in read_figures(run.url, 7)][::6] == [
        "ease-20080101-abcdef",
        "vae-20090101-abcdef",
    ]


async def test_a_bad_challenger_never_asks_for_a_training(tmp_path: Path) -> None:
    """Its users click nothing from the second day on; the champion's go on as before."""
    logs = Logs()
    for day in range(DAY_0, LIVE + 8):
        clicks = {"champion": 10, "challenger": 10 if day == LIVE else 0}
        logs.day(
            day, n=80, variant_of=lambda user: ("champion", "challenger")[user // 40], clicks_of=clicks.__getitem__
        )
    logs.tick(LIVE + 8, end=True)
    run = Run(tmp_path, logs)
    await run.read()
    assert run.published == []
    (figures,) = read_figures(run.url)
    measured = {name: variant.measures["ctr"] for name, variant in figures.variants.items()}
    assert measured == {"champion": 0.025, "challenger": 0.0}
    assert figures.metrics.measures["ctr"].value == 0.025
    assert figures.variants["challenger"].difference is None  # 40 users are too few to say


@pytest.mark.parametrize("simulated", [True, False])
async def test_what_made_up_users_did_says_so_wherever_it_shows(tmp_path: Path, simulated: bool) -> None:
    wanted = tuned(ctr={"for_days": 3}, new_user_share={})
    run = Run(tmp_path, falling(simulated=simulated), wanted)
    await run.read()
    (alert,) = (one for one in run.values(ALERTS) if one["name"] == "ctr")
    (event,) = run.values(RETRAIN)
    evidence = event["data"]["evidence"]
    assert alert["evidence"].get("simulated", False) is evidence["ctr"].get("simulated", False) is simulated
    day = read_figures(run.url)[-1]
    told = [(name, labels) for name, _, labels in metrics_of(day, wanted)]
    marked = {name for name, labels in told if labels.get("simulated") == "true"}
    of_feedback = {name for name, _ in told if "ctr" in name or "ratings_per_session" in name}
    assert of_feedback >= {"monitors.ctr", "monitors.ctr.threshold", "monitors.variant.ctr_since_start"}
    assert marked == (of_feedback if simulated else set())
    shown = monitors_status(run.url, {})
    assert shown is not None
    assert shown["day"]["measures"]["ctr"]["simulated"] is simulated
    assert shown["day"]["measures"]["new_user_share"]["simulated"] is False
    assert shown["day"]["variants"]["champion"]["simulated"] is simulated


async def test_made_up_clicks_are_not_measured_by_a_validation_on_replayed_ones(tmp_path: Path) -> None:
    """By what the champion's validation gave, this run would fall short from its first day on."""
    run = Run(tmp_path, falling(low=20, simulated=True))
    run.facts = Facts(ctr=0.5)
    await run.read()
    assert run.published == []
    baseline = read_figures(run.url)[-1].metrics.measures["ctr"].baseline
    assert baseline is not None
    assert (baseline.origin, baseline.value) == ("first_window", 0.05)

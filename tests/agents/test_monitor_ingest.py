"""The monitors over whole logs: any portions and any order give the same alerts, events and state."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from agents.monitor_figures import metrics_of
from agents.monitor_store import read_figures, read_requests
from streamlens.cli.monitors_role import print_monitors
from streamlens.monitors_status import monitors_status
from streams.events import ALERTS, DAY_S, DEADLETTER, FEEDBACK, IMPRESSIONS, RATINGS, RETRAIN, Tick
from streams.records import TopicPartition
from streams.retrain import RetrainRequested
from tests.agents.monitored import DAY_0, LIVE, Logs, batch_of, falling, tuned
from tests.agents.monitored_run import Facts, Predictor, Run, closed_of


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
    assert closed_of(run.url) == (LIVE + 9) * DAY_S
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


async def test_a_partition_that_is_silent_but_for_ticks_holds_nothing_up(tmp_path: Path) -> None:
    logs = falling()
    for topic in (RATINGS, IMPRESSIONS, FEEDBACK):
        tp = TopicPartition(topic, 1)
        logs.values[tp] = [value for value in logs.values[tp] if b'"type":"tick"' in value]
    run = Run(tmp_path, logs, tuned(ctr={"for_days": 3, "min_sample": 10}))
    await run.read()
    assert closed_of(run.url) == (LIVE + 9) * DAY_S
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
    assert closed_of(run.url) == closed_of(clean.url)


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


async def test_days_wait_for_the_features_that_their_predictions_need(tmp_path: Path) -> None:
    run = Run(tmp_path, falling(3), tuned(rmse={}))
    run.predictor = Predictor()
    await run.read()
    assert run.predictor.asked == list(range(LIVE, LIVE + 4))
    (figures,) = read_figures(run.url)
    assert figures.metrics.measures["rmse"].value == pytest.approx(0.5)


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


async def test_revenue_says_that_it_is_assumed_wherever_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = tuned(ctr={}, revenue_per_user={})
    run = Run(tmp_path, falling(), wanted)
    await run.read()
    told = [(name, labels) for name, _, labels in metrics_of(read_figures(run.url)[-1], wanted)]
    marked = {name for name, labels in told if labels.get("assumed") == "true"}
    assert marked == {name for name, _ in told if "revenue" in name} >= {"monitors.revenue_per_user"}
    shown = monitors_status(run.url, {})
    assert shown is not None
    found = shown["day"]["measures"]
    assert (found["revenue_per_user"]["assumed"], found["ctr"]["assumed"]) == (True, False)
    print_monitors(shown, None)
    assert "revenue_per_user (assumed)" in capsys.readouterr().out


async def test_made_up_clicks_are_not_measured_by_a_validation_on_replayed_ones(tmp_path: Path) -> None:
    """By what the champion's validation gave, this run would fall short from its first day on."""
    run = Run(tmp_path, falling(low=20, simulated=True))
    run.facts = Facts(ctr=0.5)
    await run.read()
    assert run.published == []
    baseline = read_figures(run.url)[-1].metrics.measures["ctr"].baseline
    assert baseline is not None
    assert (baseline.origin, baseline.value) == ("first_window", 0.05)

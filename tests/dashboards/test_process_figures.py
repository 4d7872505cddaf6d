"""Processes as their heartbeats tell of them."""

from __future__ import annotations

import numpy as np
import pytest

from dashboards.live_records import LiveRecords
from dashboards.process_figures import availability, process_rows
from streams.events import METRICS, Metric
from streams.process_metrics import ProcessMetrics
from tests.dashboards.test_subscriber import batch


def beats(times: range, pid: str, *, role: str = "features", host: str = "a", rss: float = 100.0) -> list[Metric]:
    return [
        Metric("process.rss_mib", rss, float(t), {"role": role, "host": host, "pid": pid}, source=pid) for t in times
    ]


def records_of(*metrics: Metric) -> LiveRecords:
    records = LiveRecords()
    records.take([batch(METRICS, *metrics)])
    return records


@pytest.mark.parametrize(
    ("heard", "now", "expected"),
    [
        ([], 100.0, 0.0),
        (list(range(100)), 100.0, 1.0),
        ([0.0], 50.0, 0.1),
        ([99.0], 100.0, 1.0),
        (list(range(62)), 61.0, 1.0),  # the part that runs counts neither way
        (list(range(100)), 10_000.0, 0.0),  # too long ago
        ([0.0, *range(900, 1_000)], 1_000.0, 1.0),  # from the first one in the window on
    ],
)
def test_availability_is_the_share_of_time_with_heartbeats(heard: list[float], now: float, expected: float) -> None:
    assert availability(np.array(heard, float), now) == expected


def test_a_restarted_process_is_one_row_with_the_gap_in_its_availability() -> None:
    cpu = Metric("process.cpu", 0.5, 79.0, {"role": "features", "host": "a", "pid": "2"})
    (row,) = process_rows(records_of(*beats(range(20), "1"), *beats(range(60, 80), "2", rss=90.0), cpu), now=80.0)
    assert (row.pid, row.rss_mib, row.cpu, row.at) == ("2", 90.0, 0.5, 79.0)
    assert row.available == 0.5


def test_workers_of_one_role_are_a_row_each() -> None:
    """Three at once; one falls silent, and the one that is started then takes its row, not another's."""
    told = [*beats(range(80), "1"), *beats(range(80), "2"), *beats(range(20), "3"), *beats(range(40, 80), "4")]
    rows = process_rows(records_of(*told), now=80.0)
    assert [(row.pid, row.available) for row in rows] == [("1", 1.0), ("2", 1.0), ("4", 0.75)]


def test_whoever_fell_silent_last_is_the_one_who_is_replaced() -> None:
    told = [*beats(range(20), "1"), *beats(range(40), "2"), *beats(range(60, 80), "3")]
    rows = process_rows(records_of(*told), now=80.0)
    assert [(row.pid, row.available) for row in rows] == [("1", 0.25), ("3", 0.75)]


def test_one_that_fell_silent_is_missed() -> None:
    rows = process_rows(records_of(*beats(range(80), "1"), *beats(range(20), "2")), now=80.0)
    assert [(row.pid, row.at, row.available) for row in rows] == [("1", 79.0, 1.0), ("2", 19.0, 0.25)]


def test_the_same_pid_on_two_machines_is_two_processes() -> None:
    told = [*beats(range(40), "1", host="a", rss=10.0), *beats(range(40), "1", host="b", rss=20.0)]
    assert [(row.host, row.rss_mib) for row in process_rows(records_of(*told), now=40.0)] == [("a", 10.0), ("b", 20.0)]


def test_roles_stand_in_the_order_of_the_path_of_a_rating() -> None:
    told = [metric for role in ("trainer", "odd", "loop", "features") for metric in beats(range(5), "1", role=role)]
    assert [row.role for row in process_rows(records_of(*told), now=5.0)] == ["features", "loop", "trainer", "odd"]


def test_a_process_tells_what_it_costs() -> None:
    wall, cpu = iter([0.0, 2.0]), iter([1.0, 2.0])
    metrics = ProcessMetrics("features", wall_s=lambda: next(wall), cpu_s=lambda: next(cpu)).take({"replay.total": 7.0})
    found = {metric.name: metric for metric in metrics}
    assert found["process.cpu"].value == 0.5
    assert found["process.rss_mib"].value > 1
    assert (found["replay.total"].value, found["replay.total"].labels) == (7.0, {})
    assert found["process.cpu"].labels.keys() == {"role", "host", "pid"}

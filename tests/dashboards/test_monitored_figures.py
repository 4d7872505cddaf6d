"""What the monitors tell, as it is drawn: beside its thresholds, its alerts and the injected truth."""

from __future__ import annotations

from dashboards import charts
from dashboards.live_records import LiveRecords
from dashboards.monitored_figures import alert_marks, alert_rows, drift_marks, measures
from dashboards.units import Unit
from streams.drift import InjectedDrift
from streams.events import ALERTS, METRICS, Alert, Metric
from tests.dashboards.test_subscriber import batch

DAY = 86_400


def told(name: str, value: float, **labels: str) -> Metric:
    return Metric(f"monitors.{name}", value, 1.0, labels, event_time=DAY)


def records_of(topic: str, *values: object) -> LiveRecords:
    records = LiveRecords()
    records.take([batch(topic, *values)])
    return records


def test_measures_stand_beside_their_thresholds() -> None:
    metrics = [
        told("ctr", 0.03), told("ctr.baseline", 0.04), told("ctr.threshold", 0.034, bound="low"),
        told("ctr.for_days", 7), told("ctr.breached_closes", 3), told("volume", 5),
        told("volume.threshold", 4, bound="low"), told("volume.threshold", 9, bound="high"),
        told("volume.breached_closes", 0), told("volume.for_days", 1),
        told("closed", DAY), told("variant.ctr", 0.1, variant="a"), told("rmse.baseline", 0.9),
    ]  # fmt: skip
    ctr, volume = measures(records_of(METRICS, *metrics))
    assert (ctr.name, ctr.unit, ctr.event_time) == ("ctr", Unit("CTR, %", 100), DAY)
    assert [name for name, _ in ctr.lines] == ["value", "baseline", "low threshold"]
    assert ctr.about == "breached 3 of 7 closes in a row"
    assert [name for name, _ in volume.lines] == ["value", "low threshold", "high threshold"]
    assert volume.about == ""
    table = charts.series_table(ctr.lines, time="event")
    assert table.column("value").to_pylist() == [0.03, 0.04, 0.034]
    assert set(table.column("t").to_pylist()) == {DAY * 1_000.0}


def test_detectors_stand_beside_what_they_fire_at() -> None:
    """Page-Hinkley by its statistic, in the unit of its threshold; ADWIN, which has none, by what it observes."""
    metrics = [
        told("detector.statistic", 5, detector="stars"), told("detector.threshold", 14, detector="stars"),
        told("detector.latest", 3.5, detector="stars"), told("detector.level", 3.4, detector="stars"),
        told("detector.latest", 0.5, detector="taste"), told("detector.level", 0.4, detector="taste"),
        told("detector.significance", 0.002, detector="taste"), told("detector.spread", 0.1, detector="taste"),
        told("detector.threshold", 9, detector="warming up"),
    ]  # fmt: skip
    stars, taste = measures(records_of(METRICS, *metrics))
    assert (stars.name, stars.unit.title, stars.about) == ("stars", "standard deviations", "observed last: 3.5")
    assert [(name, series.value.tolist()) for name, series in stars.lines] == [("statistic", [5]), ("threshold", [14])]
    assert (taste.name, taste.unit.title) == ("taste", "log of likelihoods")
    assert [(name, series.value.tolist()) for name, series in taste.lines] == [("latest", [0.5]), ("level", [0.4])]
    assert "significance of 0.002" in taste.about


def test_what_made_up_users_did_is_called_that() -> None:
    ctr, rmse = measures(records_of(METRICS, told("ctr", 0.3, simulated="true"), told("rmse", 0.9)))
    assert (ctr.title, rmse.title) == ("CTR, made-up users", "RMSE")


def test_what_rests_on_assumptions_is_one_chart_that_says_so() -> None:
    metrics = [
        told("revenue_per_user", 0.3, assumed="true"),
        told("revenue_per_user.baseline", 0.4, assumed="true"),
        told("revenue_per_user.threshold", 0.36, bound="low", assumed="true"),
    ]
    (revenue,) = measures(records_of(METRICS, *metrics))
    assert (revenue.unit.title, revenue.title) == ("dollars (assumed)", "revenue per user")
    assert [name for name, _ in revenue.lines] == ["value", "baseline", "low threshold"]


def test_alerts_say_what_was_measured() -> None:
    alert = Alert("ctr", "critical", "threshold", {"ctr": {"value": 0.02, "baseline": 0.03, "n": 2_531}}, DAY)
    (row,) = alert_rows(records_of(ALERTS, alert), now=7.0)
    assert row == ["1970-01-02", "ctr", "critical", "threshold", "0.02, baseline 0.03, n 2,531", "2.0 s ago"]


def test_alerts_are_marked_where_they_belong_and_listed_newest_first() -> None:
    records = records_of(ALERTS, *(Alert(f"m{i % 2}", "schedule", "drift", {}, i * DAY) for i in range(20)))
    rows = alert_rows(records, now=6.0)
    assert [row[0] for row in rows[:2]] == ["1970-01-20", "1970-01-19"]
    assert len(rows) == 12
    marks = alert_marks(records.recent(ALERTS), "m1")
    assert [mark["t"] for mark in marks] == [i * DAY * 1_000.0 for i in range(1, 20, 2)]
    assert {mark["kind"] for mark in marks} == {"alert"}


def test_the_injected_truth_is_marked_where_it_begins() -> None:
    (mark,) = drift_marks([_drift(3 * DAY)])
    assert (mark["t"], mark["series"], mark["kind"]) == (3 * DAY * 1_000.0, "rating-bias, high", "injected")


def _drift(begins: int) -> InjectedDrift:
    return InjectedDrift("rating-bias", 10, "high", begins, first_ordinal=1, n_records=9, parameters={})

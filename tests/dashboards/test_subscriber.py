"""The subscriber: what it keeps, and that it goes on after whatever happens to bus and records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from dashboards.live_records import KEPT, LiveRecords
from dashboards.rings import Point, SeriesRing
from dashboards.subscriber import Subscriber
from streams.bus import open_bus
from streams.errors import BusUnavailable
from streams.events import (
    ALERTS,
    DEADLETTER,
    FEEDBACK,
    IMPRESSIONS,
    METRICS,
    RATINGS,
    RETRAIN,
    Alert,
    DeadLetter,
    Feedback,
    Metric,
    Slate,
    Tick,
)
from streams.records import RecordBatch
from streams.topics import run_topics


def metric(value: float, at: float = 1_000.0, name: str = "features.lag", **labels: str) -> Metric:
    return Metric(name, value, at, labels, event_time=86_400)


def feedback(event_id: int, variant: str = "champion", clicked: int = 1, user_id: int = 7) -> Feedback:
    return Feedback(
        f"s{event_id}", "s", user_id, variant, "v1", 10, [1] * clicked, 4, 60, 86_400, source="loop", event_id=event_id
    )


def batch(topic: str, *values: object, partition: int = 0, at_ms: int = 5_000) -> RecordBatch:
    lines = [value if isinstance(value, bytes) else msgspec.json.encode(value) for value in values]
    n = len(lines)
    return RecordBatch(topic, partition, np.arange(n), np.full(n, at_ms), n, None, _values=lines)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def publish(url: str, topic: str, *records: object) -> None:
    async def main() -> None:
        async with open_bus(url) as bus:
            await bus.create_topics(*run_topics(2))
            async with bus.producer() as producer:
                for record in records:
                    value = record if isinstance(record, bytes) else msgspec.json.encode(record)
                    await producer.send(topic, value, partition=0)

    asyncio.run(main())


class Watched:
    """A log of its own, and a subscriber to it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/bus.db"
        self.subscriber = Subscriber(self.url, retry_s=(0.02, 0.1))

    @property
    def records(self) -> LiveRecords:
        return self.subscriber.records


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.subscriber.close()


def test_a_ring_keeps_the_newest_in_their_order() -> None:
    ring = SeriesRing("x", {}, size=100)
    for i in range(250):
        ring.add(Point(float(i), float(2 * i)))
    ring.add(Point(3.0, 9.0))  # comes late
    series = ring.series()
    assert series.at.tolist() == list(range(150, 250))
    assert series.since(240.0).value.tolist() == [2.0 * i for i in range(240, 250)]
    assert series.last == Point(249.0, 498.0)


def test_records_are_kept_within_bounds() -> None:
    records = LiveRecords()
    records.take([batch(ALERTS, *(Alert("ctr", "critical", "threshold", {}, i) for i in range(KEPT[ALERTS] + 50)))])
    assert len(records.recent(ALERTS)) == KEPT[ALERTS]
    assert records.recent(ALERTS)[-1].record.event_time == KEPT[ALERTS] + 49
    records.take([batch(METRICS, *(metric(i, at=i) for i in range(5_000)))])
    series = records.series("features.lag")
    assert series is not None
    assert len(series) == 1_200
    records.take([batch(METRICS, *(metric(1, at=i, name=f"x.{i}") for i in range(5_000)))])
    kept = {series.name for series in records.all_series("x.")}
    assert 2_000 < len(kept) <= 3_000
    assert "x.0" not in kept
    assert "x.4999" in kept
    assert records.latest("features.lag") is not None, "what is told last stays"
    records.take([batch(METRICS, metric(1, name="y" * 201))])
    assert records.garbage[METRICS] == 1


def test_garbage_is_counted_and_passed_over() -> None:
    records = LiveRecords()
    records.take([batch(METRICS, b"\xff", b"[]", metric(3.0), b'{"name":"x","value":NaN,"emitted_at":1}', metric(4.0))])
    assert records.latest("features.lag") == Point(1_000.0, 4.0, 86_400)
    assert records.garbage[METRICS] == 3
    records.take([batch(DEADLETTER, b"{", DeadLetter("ratings", 0, 3, "rating: out of range", "{}"))])
    assert [placed.record.reason.split(":")[0] for placed in records.recent(DEADLETTER)] == [
        "not a dead letter",
        "rating",
    ]


def test_what_comes_twice_counts_once() -> None:
    records = LiveRecords()
    for part in ([1, 2], [1, 2, 3]):
        records.take([batch(FEEDBACK, *map(feedback, part), Tick(86_400, "loop", 1))])
    rows, variants = records.feedback()
    assert (len(rows), variants, rows["clicks"].sum(), rows["shown"].sum()) == (3, ("champion",), 3, 30)
    slate = Slate("s", "s", 7, "champion", "v1", [1, 2], 86_400, source="loop", event_id=1)
    records.take([batch(IMPRESSIONS, slate, slate, Tick(90_000))])
    assert [placed.record.slate_id for placed in records.recent(IMPRESSIONS)] == ["s"]


def test_variants_beyond_what_is_told_apart_are_others_and_known_ones_stay() -> None:
    records = LiveRecords()
    told = [*(f"v{i}" for i in range(102)), "v7"]
    records.take([batch(FEEDBACK, *(feedback(i + 1, name) for i, name in enumerate(told)))])
    rows, names = records.feedback()
    assert [names[i] for i in rows["variant"][-4:]] == ["v99", "other", "other", "v7"]


def test_ages_are_those_of_measuring_and_publishing() -> None:
    records = LiveRecords()
    assert records.latest("features.lag") is None
    assert records.published(METRICS) is None
    records.take([batch(METRICS, metric(1.0, at=40.0), at_ms=41_500)])
    point = records.latest("features.lag")
    assert point is not None
    assert (point.at, records.published(METRICS), records.event_time) == (40.0, 41.5, 86_400)


def test_labels_keep_series_apart() -> None:
    records = LiveRecords()
    records.take([batch(METRICS, *(metric(v, name="loop.ctr", variant=n) for v, n in ((0.1, "a"), (0.2, "b"))))])
    found = {series.labels["variant"]: series.value.tolist() for series in records.all_series("loop.ctr")}
    assert found == {"a": [0.1], "b": [0.2]}


def test_it_reads_what_was_there_and_what_comes(watched: Watched) -> None:
    publish(watched.url, METRICS, metric(1.0, at=1.0), metric(2.0, at=2.0))
    watched.subscriber.start()
    until(lambda: watched.records.latest("features.lag") == Point(2.0, 2.0, 86_400), "what was there")
    publish(watched.url, METRICS, b"garbage", metric(3.0, at=3.0))
    until(lambda: watched.records.latest("features.lag") == Point(3.0, 3.0, 86_400), "what came")
    assert watched.subscriber.connection.connected
    until(lambda: watched.subscriber.ends == {0: 0, 1: 0}, "ends of ratings")
    publish(watched.url, RATINGS, Tick(86_400))
    until(lambda: watched.subscriber.ends == {0: 1, 1: 0}, "new ends of ratings")


def test_it_waits_for_a_bus_and_does_not_make_one(watched: Watched) -> None:
    watched.subscriber.start()
    until(lambda: "yet" in watched.subscriber.connection.problem, "says why")
    assert not Path(watched.url.removeprefix("sqlite:///")).exists()
    with pytest.raises(BusUnavailable, match="not connected"):
        watched.subscriber.submit(lambda bus: bus.topics())
    publish(watched.url, METRICS, metric(1.0))
    until(lambda: watched.records.latest("features.lag") is not None, "found it")


def test_it_resumes_after_the_bus_was_away_and_reads_nothing_twice(watched: Watched, tmp_path: Path) -> None:
    publish(watched.url, FEEDBACK, feedback(1), feedback(2))
    publish(watched.url, ALERTS, Alert("ctr", "critical", "threshold", {}, 86_400))  # has no identity to know it by
    watched.subscriber.start()
    until(lambda: (watched.records.n_feedback, watched.records.count(ALERTS)) == (2, 1), "the first")
    away = tmp_path / "away"
    away.mkdir()
    files = list(tmp_path.glob("bus.db*"))
    for path in files:
        path.rename(away / path.name)
    until(lambda: not watched.subscriber.connection.connected, "notices that it is away")
    heard_at = watched.subscriber.heard_at
    assert 0 < heard_at <= watched.subscriber.connection.since
    for path in files:
        (away / path.name).rename(path)
    publish(watched.url, FEEDBACK, feedback(3))
    until(lambda: watched.records.n_feedback == 3, "goes on")
    assert watched.subscriber.connection.connected
    until(lambda: watched.subscriber.heard_at > heard_at, "answers again")
    assert (watched.records.count(FEEDBACK), watched.records.count(ALERTS)) == (3, 1)


def test_another_log_in_its_place_is_read_anew(watched: Watched, tmp_path: Path) -> None:
    publish(watched.url, FEEDBACK, *(feedback(i) for i in range(1, 6)))
    watched.subscriber.start()
    until(lambda: watched.records.n_feedback == 5, "the first log")
    first = watched.records.generation
    other = tmp_path / "other"
    other.mkdir()
    publish(f"sqlite:///{other}/bus.db", FEEDBACK, feedback(1))
    for path in tmp_path.glob("bus.db*"):
        path.unlink()
    for path in other.iterdir():
        path.rename(tmp_path / path.name)  # the new one is whole at once: nothing is read while it is made
    until(lambda: watched.records.n_feedback == 1, "the second log")
    assert watched.records.generation != first, "what was computed of the old log is not shown for the new"


def test_pages_publish_through_it(watched: Watched) -> None:
    publish(watched.url, METRICS, metric(1.0))
    watched.subscriber.start()
    until(lambda: watched.subscriber.connection.connected, "connected")
    topics = watched.subscriber.submit(lambda bus: bus.topics())
    assert RETRAIN in topics


def test_of_a_long_log_the_last_records_are_read(watched: Watched) -> None:
    n = KEPT[DEADLETTER] + 70
    publish(watched.url, DEADLETTER, *(DeadLetter("ratings", 0, i, "why", "{}") for i in range(n)))
    watched.subscriber.start()
    until(lambda: len(watched.records.recent(DEADLETTER)) == KEPT[DEADLETTER], "the last ones")
    assert watched.records.count(DEADLETTER) == KEPT[DEADLETTER]
    assert watched.records.recent(DEADLETTER)[-1].record.offset == n - 1


def test_retention_that_overtakes_it_is_passed_over(watched: Watched) -> None:
    publish(watched.url, METRICS, metric(1.0, at=1.0))
    watched.subscriber.start()
    until(lambda: watched.records.latest("features.lag") == Point(1.0, 1.0, 86_400), "the first")
    watched.subscriber._positions = dict.fromkeys(watched.subscriber._positions, -5)

    async def forget() -> None:
        async with open_bus(watched.url) as bus:
            await bus.create_topics(*run_topics(2))
            await bus.enforce_retention(10**15)

    watched.subscriber.close()
    asyncio.run(forget())
    again = Subscriber(watched.url, retry_s=(0.02, 0.1))
    again._positions = dict(watched.subscriber._positions)
    again.start()
    try:
        publish(watched.url, METRICS, metric(2.0, at=2.0))
        until(lambda: again.records.latest("features.lag") == Point(2.0, 2.0, 86_400), "what came after")
    finally:
        again.close()

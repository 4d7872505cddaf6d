"""``features`` and ``status`` say how old the answers of a store are, and which are stale."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from featurestore.embeddings import EmbeddingStore, embeddings_url
from featurestore.writer import FeatureWriter
from streamlens.cli.app import run
from streamlens.run_status import freshness_status
from streamlens.store_freshness import look_at_log
from streamlens.target import find_target
from streams.batch import decode_ratings
from streams.bus import open_bus
from streams.events import DAY_S, RATINGS, Rating, Tick
from streams.topics import run_topics

Capture = pytest.CaptureFixture[str]
T0 = 15_000 * DAY_S
PUBLISHED_S = 1_700_000_000.0


async def _publish(bus_url: str, records: tuple[Rating | Tick, ...]) -> None:
    async with open_bus(bus_url) as bus:
        await bus.create_topics(*run_topics(1))
        async with bus.producer() as producer:
            for record in records:
                await producer.send(RATINGS, msgspec.json.encode(record), timestamp_ms=int(PUBLISHED_S * 1_000))


async def _apply(bus_url: str, store_url: str) -> None:
    async with open_bus(bus_url) as bus, await bus.consumer(RATINGS) as consumer:
        with FeatureWriter(store_url, agent="features", topic=RATINGS) as writer:
            start = writer.assign((await bus.topics())[RATINGS], await bus.offsets(RATINGS))
            for tp, offset in start.items():
                consumer.seek(tp, offset)
            writer.apply([decode_ratings(batch) for batch in await consumer.fetch()])


class Log:
    """A log and its store in files of the current folder, named to every command by variables."""

    def __init__(self, folder: Path) -> None:
        self.bus_url, self.store_url = (f"sqlite:///{folder}/{name}.db" for name in ("bus", "features"))

    def publish(self, *records: Rating | Tick) -> None:
        asyncio.run(_publish(self.bus_url, records))

    def apply(self) -> None:
        asyncio.run(_apply(self.bus_url, self.store_url))

    def status(self, *, wall_s: float) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            async with open_bus(self.bus_url) as bus:
                return await freshness_status(find_target(None), bus, wall_s)

        found = asyncio.run(look())
        assert found is not None
        return found


@pytest.fixture
def log(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log(workplace)
    monkeypatch.setenv("STREAMLENS_BUS", log.bus_url)
    monkeypatch.setenv("STREAMLENS_STORE", log.store_url)
    log.publish(Rating(1, 8, 4.0, T0), Tick(T0 + DAY_S))
    log.apply()
    return log


def as_json(*arguments: str) -> Any:
    with redirect_stdout(io.StringIO()) as out:
        assert run([*arguments, "--json"]) == 0
    return json.loads(out.getvalue())


def text(capsys: Capture, *arguments: str) -> str:
    assert run(arguments) == 0
    return capsys.readouterr().out


def test_what_is_applied_in_full_is_fresh(log: Log, capsys: Capture) -> None:
    for command in ("user 1", "item 8", "user 404"):
        freshness = as_json("features", *command.split())["freshness"]
        assert (freshness["stale"], freshness["event_age_s"], freshness["wall_age_s"]) == (False, 0, 0.0)
        assert "stale" not in text(capsys, "features", *command.split())
    assert "fresh     users, items, popular\n" in text(capsys, "status")


def test_a_store_that_lies_behind_its_log_says_so(log: Log, capsys: Capture) -> None:
    log.publish(Rating(1, 9, 4.0, T0 + 4 * DAY_S), Tick(T0 + 4 * DAY_S + 1))
    behind = "3.0 days of event time behind now"
    for command in ("user 1", "item 8", "item 404"):
        freshness = as_json("features", *command.split())["freshness"]
        assert freshness["event_age_s"] == 3 * DAY_S + 1
        assert freshness["why"].startswith(behind)
        assert f"\nstale: {behind}" in text(capsys, "features", *command.split())
    found = log.status(wall_s=PUBLISHED_S + 30)
    assert {view: found[view]["stale"] for view in ("users", "items", "popular")} == {
        "users": True,
        "items": True,
        "popular": False,
    }
    assert f"stale     users: {behind}" in text(capsys, "status")
    assert as_json("status")["freshness"]["users"]["stale"]
    assert not as_json("features", "user", "1", "--as-of", str(T0 + DAY_S))["freshness"]["stale"]
    log.apply()
    assert not as_json("features", "user", "1")["freshness"]["stale"]


def test_a_record_that_waits_longer_than_is_allowed_is_told_by_the_wall_clock(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.publish(Rating(1, 9, 4.0, T0 + DAY_S))
    assert not log.status(wall_s=PUBLISHED_S + 60)["popular"]["stale"]
    assert log.status(wall_s=PUBLISHED_S + 61)["popular"]["why"] == "a published record has waited 61 s to be applied"
    monkeypatch.setenv("STREAMLENS_FRESHNESS_WAITING_TTL_S", "99")
    assert not log.status(wall_s=PUBLISHED_S + 61)["popular"]["stale"]


def test_a_run_that_has_ended_is_fresh_at_any_time_asked_for(log: Log) -> None:
    later = str(T0 + 400 * DAY_S)
    assert as_json("features", "user", "1", "--as-of", later)["freshness"]["stale"]
    log.publish(Tick(T0 + 2 * DAY_S, end_of_run=True))
    log.apply()
    for command in ("user", "item"):
        freshness = as_json("features", command, "1", "--as-of", later)["freshness"]
        assert (freshness["stale"], freshness["event_age_s"]) == (False, 0)


def test_without_its_log_a_store_still_answers(log: Log) -> None:
    Path("bus.db").unlink()
    freshness = as_json("features", "user", "1")["freshness"]
    assert (freshness["stale"], freshness["wall_age_s"]) == (False, None)


def test_another_log_says_nothing_of_the_store(log: Log, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Log(workplace)
    other.bus_url = f"sqlite:///{workplace}/other.db"
    monkeypatch.setenv("STREAMLENS_BUS", other.bus_url)
    other.publish(Rating(1, 8, 4.0, T0 + 900 * DAY_S))
    assert look_at_log(find_target(None), []).ahead is not None
    freshness = as_json("features", "user", "1")["freshness"]
    assert (freshness["stale"], freshness["wall_age_s"]) == (False, None)


def test_embeddings_that_know_nothing_recent_are_stale(log: Log, capsys: Capture) -> None:
    with EmbeddingStore(embeddings_url(log.store_url), create=True) as store:
        for version, age_days in (("old", 40), ("new", 20)):
            vectors = np.ones((1, 4), np.float32)
            store.write("user", "mf", version, np.array([1]), vectors, as_of=T0 + DAY_S - age_days * DAY_S)
    (row,) = as_json("features", "user", "1")["embeddings"]
    assert (row["version"], row["freshness"]["event_age_s"], row["freshness"]["stale"]) == ("new", 20 * DAY_S, False)
    assert "user embeddings of mf" in text(capsys, "status")
    log.publish(Tick(T0 + 12 * DAY_S))
    log.apply()
    stale = "stale: trained on nothing of the last 31.0 days of event time"
    assert stale in text(capsys, "features", "user", "1")
    assert "stale     user embeddings of mf: trained on nothing" in text(capsys, "status")

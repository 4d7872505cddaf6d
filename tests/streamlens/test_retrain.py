"""``streamlens retrain`` and ``retrain watch``: what is asked for, and acting on it at least once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec
import pytest

from featurestore.writer import FeatureWriter
from streamlens.cli.app import run
from streamlens.retrain_watch import CommandFailed, WatchedEvent, run_command, watch_retrain
from streams.batch import decode_ratings
from streams.bus import Bus, OffsetRange, TopicInfo, open_bus
from streams.errors import GroupBusy
from streams.events import RATINGS, RETRAIN, Tick
from streams.records import TopicPartition
from streams.retrain import RetrainRequested
from streams.testing import collect, eventually, publish_retrain
from streams.topics import run_topics
from tests.agents.monitored import batch_of

Capture = pytest.CaptureFixture[str]
CLOCK = 14_000 * 86_400


async def taken(bus: Bus, group: str | None, n: int, since: Any = "start") -> list[WatchedEvent]:
    """The first ``n`` events, all but the last one done."""
    found = []
    async with asyncio.timeout(20), aclosing(watch_retrain(bus, asyncio.Event(), group=group, since=since)) as events:
        async for event in events:
            found.append(event)
            if len(found) == n:
                break
    return found


def ids(events: list[WatchedEvent]) -> list[str]:
    return ["" if one.event is None else one.event.id for one in events]


@pytest.mark.streamlens_bus("memory", "sqlite", "kafka")
async def test_a_group_goes_on_with_the_event_that_it_had_not_done(streamlens_bus: Bus) -> None:
    for number in range(3):
        await publish_retrain(streamlens_bus, id=str(number))
    async with streamlens_bus.producer() as producer:
        await producer.send(RETRAIN, b"nothing", key=b"mf")
    assert ids(await taken(streamlens_bus, "one", 2)) == ["0", "1"]
    rest = await taken(streamlens_bus, "one", 3)
    assert ids(rest) == ["1", "2", ""]
    assert rest[-1].fault.startswith("no retrain event")
    assert ids(await taken(streamlens_bus, "other", 1)) == ["0"]
    assert ids(await taken(streamlens_bus, None, 1)) == ["0"]


async def test_from_the_end_only_what_is_still_to_come_is_watched(streamlens_bus: Bus) -> None:
    await publish_retrain(streamlens_bus, id="before")
    watching = asyncio.create_task(taken(streamlens_bus, "late", 1, since="end"))
    await eventually(lambda: _has_committed(streamlens_bus, "late"))
    await publish_retrain(streamlens_bus, id="after")
    assert ids(await watching) == ["after"]


async def _has_committed(bus: Bus, group: str) -> bool:
    return bool(await bus.committed(group))


async def test_two_of_a_group_are_refused(streamlens_bus: Bus) -> None:
    await publish_retrain(streamlens_bus, id="1")
    async with await streamlens_bus.consumer(RETRAIN, group="one"):
        with pytest.raises(GroupBusy):
            await taken(streamlens_bus, "one", 1)


async def an_event(bus: Bus) -> WatchedEvent:
    await publish_retrain(bus, id="run/1")
    (event,) = await taken(bus, None, 1)
    return event


async def test_a_command_gets_the_event_and_its_id(streamlens_bus: Bus, tmp_path: Path) -> None:
    event = await an_event(streamlens_bus)
    command = f'cat > {tmp_path}/event; printf %s "$STREAMLENS_EVENT_ID" > {tmp_path}/id'
    assert await run_command(command, event, asyncio.Event())
    assert ((tmp_path / "event").read_bytes(), (tmp_path / "id").read_text()) == (event.value, "run/1")


async def test_a_command_that_fails_is_tried_again_and_then_the_event_waits(
    streamlens_bus: Bus, tmp_path: Path
) -> None:
    event, said = await an_event(streamlens_bus), []
    flaky = f'echo x >> {tmp_path}/tries; test "$(wc -l < {tmp_path}/tries)" -ge 3'
    assert await run_command(flaky, event, asyncio.Event(), delays_s=(0, 0, 0), say=said.append)
    assert said == ["retrain event run/1: exit code 1, trying again in 0 s"] * 2
    with pytest.raises(CommandFailed, match=r"failed 3 times, the last time with exit code 7; .* the event waits"):
        await run_command("exit 7", event, asyncio.Event(), delays_s=(0, 0))


async def test_a_command_is_told_to_end_where_the_watch_is(streamlens_bus: Bus, tmp_path: Path) -> None:
    event, stopping = await an_event(streamlens_bus), asyncio.Event()
    command = f"trap 'touch {tmp_path}/told; exit 0' TERM; touch {tmp_path}/begun; while true; do sleep 0.02; done"
    running = asyncio.create_task(run_command(command, event, stopping))
    await eventually((tmp_path / "begun").exists)
    stopping.set()
    assert await running is False
    assert (tmp_path / "told").exists()


@pytest.fixture
def at_work(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bus with a run's topics, and a store whose clock stands; the settings name both."""
    url = f"sqlite:///{workplace}/bus.db"
    store = f"sqlite:///{workplace}/features.db"

    async def create() -> None:
        async with open_bus(url) as bus:
            await bus.create_topics(*run_topics(1))

    asyncio.run(create())
    tp = TopicPartition(RATINGS, 0)
    with FeatureWriter(store, agent="features", topic=RATINGS) as writer:
        writer.assign(TopicInfo(RATINGS, 1, None, "log"), {tp: OffsetRange(0, 1)})
        writer.apply([decode_ratings(batch_of(tp, 0, [msgspec.json.encode(Tick(CLOCK))]))])
    monkeypatch.setenv("STREAMLENS_BUS", url)
    monkeypatch.setenv("STREAMLENS_STORE", store)
    return url


def asked(url: str, count: int) -> list[RetrainRequested]:
    async def look() -> list[bytes]:
        async with open_bus(url) as bus:
            return await collect(bus, RETRAIN, count)

    return [msgspec.json.decode(value, type=RetrainRequested) for value in asyncio.run(look())]


def test_what_a_person_asks_for_is_an_event_with_the_reason_and_the_runs_time(at_work: str, capsys: Capture) -> None:
    arguments = ["retrain", "--model", "ease", "--reason", "a new catalogue", "--severity", "schedule", "--by", "Ann"]
    assert run([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (event,) = asked(at_work, 1)
    assert msgspec.json.encode(event) == msgspec.json.encode(msgspec.convert(printed, RetrainRequested))
    assert (event.subject, event.time.timestamp(), event.source) == ("ease", CLOCK, "cli")
    why = event.data
    assert (why.reason, why.justification, why.severity, why.asked_by) == (
        *("a new catalogue", "a new catalogue", "schedule", "Ann"),
    )
    assert run(["retrain", "--model", "ease", "--reason", "again"]) == 0
    assert "as of 2008-05-01" in capsys.readouterr().out
    assert len({one.id for one in asked(at_work, 2)}) == 2


@pytest.mark.parametrize(
    "arguments", [[], ["--model", "ease"], ["--reason", "x"], ["--model", "ease", "--reason", " "]]
)
def test_a_request_without_a_model_or_a_reason_is_refused(at_work: str, arguments: list[str], capsys: Capture) -> None:
    assert run(["retrain", *arguments]) == 2
    assert "--model NAME and --reason TEXT" in capsys.readouterr().err


def test_a_watch_runs_its_command_once_for_each_event_and_stops_at_one_that_fails(
    at_work: str, workplace: Path
) -> None:
    for model in ("ease", "mf", "ease"):
        assert run(["retrain", "--model", model, "--reason", "x"]) == 0
    events = [event.id for event in asked(at_work, 3)]
    watch = [sys.executable, "-m", "streamlens", "retrain", "watch", "--model", "ease", "--json", "--exec"]
    command = "echo $STREAMLENS_EVENT_ID >> ids; test $(wc -l < ids) -ge 2 && kill -TERM $PPID; true"
    done = subprocess.run([*watch, command], capture_output=True, timeout=60, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [events[0], events[2]]
    assert (workplace / "ids").read_text().split() == [events[0], events[2]]


def test_killed_at_work_a_watch_runs_the_event_again_beside_the_command_that_goes_on(
    at_work: str, workplace: Path
) -> None:
    for _ in range(2):
        assert run(["retrain", "--model", "ease", "--reason", "x"]) == 0
    first, second = (event.id for event in asked(at_work, 2))
    command = (
        "echo $STREAMLENS_EVENT_ID >> begun; while test -e hang; do sleep 0.02; done; echo $STREAMLENS_EVENT_ID >> done"
    )
    watch = [sys.executable, "-m", "streamlens", "retrain", "watch", "--exec", command]
    begun, done, hang = (workplace / name for name in ("begun", "done", "hang"))
    begun.touch()
    done.touch()
    hang.touch()
    watching = subprocess.Popen(watch, stdout=subprocess.DEVNULL)
    try:
        wait_for_lines(begun, 1)
        watching.kill()
        watching.wait()
        watching = subprocess.Popen(watch, stdout=subprocess.DEVNULL)
        wait_for_lines(begun, 2)
        assert done.read_text() == ""
        hang.unlink()
        wait_for_lines(done, 3)
    finally:
        hang.unlink(missing_ok=True)  # so that no command is left behind
        watching.kill()
        watching.wait()
    assert begun.read_text().split() == [first, first, second]
    assert sorted(done.read_text().split()) == sorted([first, first, second])


def wait_for_lines(path: Path, count: int) -> None:
    asyncio.run(eventually(lambda: len(path.read_text().splitlines()) >= count, within_s=60))


@pytest.mark.broker
@pytest.mark.streamlens_bus("kafka")
async def test_a_foreign_client_receives_the_same_bytes(streamlens_bus: Bus, streamlens_broker: str) -> None:
    event = await publish_retrain(streamlens_bus, "two-tower", id="run/monitors/14610")
    prefix = streamlens_bus.url.rpartition("/")[2]
    reader = confluent_kafka.Consumer({"bootstrap.servers": streamlens_broker, "group.id": f"{prefix}-foreign"})
    reader.assign([confluent_kafka.TopicPartition(f"{prefix}.{RETRAIN}", 0, 0)])
    try:
        message = await asyncio.to_thread(reader.poll, 20.0)
    finally:
        reader.close()
    assert message is not None
    assert (message.key(), message.value()) == (b"two-tower", msgspec.json.encode(event))

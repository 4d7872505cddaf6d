"""Dead letters published again from the command line, applied by the real ingest, and proven by verify."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.features import FEATURES
from agents.ingest import FeatureIngest
from agents.outbox import drain_outbox
from featurestore.reader import FeatureReader
from featurestore.writer import FeatureWriter
from streamlens.cli.app import run
from streams.batch import KEPT_BYTES
from streams.bus import TopicSpec, open_bus
from streams.events import CONTROL, DEADLETTER, RATINGS, DeadLetter, Rating
from streams.records import RecordBatch

Capture = pytest.CaptureFixture[str]

GOOD = msgspec.json.encode(Rating(7, 31, 2.5, 1_260_759_144, "run", 1))


def too_many_stars(movie_id: int, event_id: int) -> bytes:
    return b'{"source":"run","event_id":%d,"user_id":7,"movie_id":%d,"rating":7,"timestamp":1260759144}' % (
        event_id,
        movie_id,
    )


class World:
    """A log of two partitions, and the store that the features agent makes of it."""

    def __init__(self, folder: Path) -> None:
        self.bus_url = f"sqlite:///{folder / 'bus.db'}"
        self.store_url = f"sqlite:///{folder / 'features.db'}"

    def publish(
        self, *values: bytes, topic: str = RATINGS, partition: int = 1, retention_ms: int | None = None
    ) -> None:
        async def send() -> None:
            async with open_bus(self.bus_url) as bus:
                specs = (TopicSpec(RATINGS, 2), TopicSpec(DEADLETTER, 1), TopicSpec(CONTROL, 1))
                await bus.create_topics(*specs)
                async with bus.producer() as producer:
                    for value in values:
                        await producer.send(topic, value, partition=partition)

        asyncio.run(send())

    def apply(self) -> None:
        """As a worker does: what is new on the log into the store, dead letters to their topic."""

        async def work() -> None:
            writer = FeatureWriter(self.store_url, agent=FEATURES, topic=RATINGS, run_id="run")
            ingest = FeatureIngest(writer)
            try:
                async with open_bus(self.bus_url) as bus, await bus.consumer(RATINGS) as consumer:
                    held = await bus.offsets(RATINGS)
                    starts = await ingest.assign((await bus.topics())[RATINGS], held)
                    for tp, start in starts.items():
                        consumer.seek(tp, start)
                    while unread := [tp for tp in held if consumer.position(tp) < held[tp].end]:
                        await ingest.apply(await consumer.fetch(partitions=unread))
                    await drain_outbox(bus, ingest)
            finally:
                ingest.close()

        asyncio.run(work())

    def replay(self, *flags: str) -> int:
        return run(["deadletter", "replay", "--bus", self.bus_url, *flags])

    def movies(self) -> list[int]:
        """What user 7 is known to have rated, in order, as often as it counted."""
        with FeatureReader(self.store_url) as reader:
            return sorted(reader.history(7).movie_id.tolist())

    def records(self) -> list[RecordBatch]:
        async def read() -> list[RecordBatch]:
            async with open_bus(self.bus_url) as bus, await bus.consumer(RATINGS) as consumer:
                held = await bus.offsets(RATINGS)
                batches: list[RecordBatch] = []
                while unread := [tp for tp in held if consumer.position(tp) < held[tp].end]:
                    batches += await consumer.fetch(partitions=unread)
                return batches

        return asyncio.run(read())

    def log_size(self) -> int:
        return sum(map(len, self.records()))

    def last_record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.records()[-1].values[-1])
        return found

    def verified(self) -> bool:
        return run(["verify", "--bus", self.bus_url, "--store", self.store_url]) == 0


@pytest.fixture
def world(workplace: Path) -> World:
    """One good rating, and three of seven stars (offsets 1 to 3), dead-lettered."""
    world = World(workplace)
    world.publish(GOOD, *(too_many_stars(40 + n, n + 2) for n in range(3)))
    world.apply()
    return world


def test_a_mended_rating_counts_once_however_often_it_is_replayed(world: World, capsys: Capture) -> None:
    for _ in range(2):
        assert world.replay("--set", "rating=4.5") == 0
        assert "3 dead letters: 3 published to ratings" in capsys.readouterr().out
        world.apply()
    assert world.movies() == [31, 40, 41, 42]
    assert world.log_size() == 10
    last = world.last_record()
    assert (last["source"], last["event_id"], last["rating"]) == ("dlq/ratings/1/3", 1, 4.5)
    assert world.records()[-1].keys[-1] == b"7"
    assert world.verified()


def test_replayed_records_may_come_in_any_order_among_those_of_other_sources(world: World) -> None:
    assert world.replay("--set", "rating=4", "--offset", "3") == 0
    world.publish(msgspec.json.encode(Rating(7, 50, 3.0, 1_260_759_200, "run", 5)))
    assert world.replay("--set", "rating=4", "--offset", "1", "--offset", "2") == 0
    world.publish(msgspec.json.encode(Rating(7, 51, 3.0, 1_260_759_200, "run", 6)))
    assert world.replay("--set", "rating=4") == 0
    world.apply()
    assert world.movies() == [31, 40, 41, 42, 50, 51]
    assert world.verified()


def test_what_would_be_refused_again_is_reported_and_not_published(world: World, capsys: Capture) -> None:
    assert world.replay() == 1
    out = capsys.readouterr().out
    assert "ratings/1/1  still invalid: rating: expected 0.5 to 5 in half stars, found 7.0" in out
    assert out.splitlines()[-2] == "3 dead letters: none published, 3 still invalid"
    assert world.log_size() == 4


def test_of_many_that_are_not_published_the_first_are_told(world: World, capsys: Capture) -> None:
    world.publish(*[b"{}"] * 30)
    world.apply()
    assert world.replay() == 1
    out = capsys.readouterr().out
    assert out.count("still invalid: ") == 20
    assert "... and 13 more, which --json lists" in out
    assert world.replay("--json") == 1
    assert len(json.loads(capsys.readouterr().out)["records"]) == 33


def test_a_rating_that_failed_twice_counts_once_when_all_its_letters_are_mended(world: World) -> None:
    assert world.replay("--force", "--offset", "2") == 0
    world.apply()
    assert world.verified()
    assert world.replay("--set", "rating=4.5", "--offset", "4") == 0  # the letter of the record that failed again
    world.apply()
    assert world.movies() == [31, 41]
    assert world.replay("--set", "rating=4.5") == 0  # four letters, three ratings
    world.apply()
    assert world.movies() == [31, 40, 41, 42]
    assert world.verified()


def test_a_dry_run_shows_what_would_be_published_and_publishes_nothing(world: World, capsys: Capture) -> None:
    assert world.replay("--dry-run", "--set", "rating=1", "--limit", "2") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "ratings/1/1  ok"
    assert json.loads(out[1]) == {**json.loads(too_many_stars(40, 1)), "rating": 1, "source": "dlq/ratings/1/1"}
    assert out[-1] == "2 dead letters: 2 would be published to ratings"
    assert world.replay("--dry-run", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["selected"], found["published"], found["invalid"]) == (3, {}, 3)
    first = found["records"][0]
    assert (first["offset"], first["outcome"], first["value"]) == (1, "invalid", None)
    assert world.log_size() == 4


FIX = """
import json, sys
record = json.load(sys.stdin)
if record["movie_id"] == 41:
    sys.exit("no stars for 41")
json.dump({**record, "rating": record["rating"] / 2}, sys.stdout, indent=1)
"""


def test_a_command_mends_each_record_or_leaves_it(world: World, workplace: Path, capsys: Capture) -> None:
    (workplace / "fix.py").write_text(FIX)
    assert world.replay("--exec", f"{sys.executable} fix.py") == 1
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "ratings/1/2  skipped: no stars for 41",
        "3 dead letters: 2 published to ratings, 1 skipped by the command",
    ]
    world.apply()
    assert world.movies() == [31, 40, 42]
    assert world.verified()


KILL_AT_THE_THIRD = """
import os, pathlib, signal, sys
calls = pathlib.Path("calls")
calls.write_text((calls.read_text() if calls.exists() else "") + "x")
if len(calls.read_text()) == 3:
    os.kill(os.getppid(), signal.SIGKILL)
sys.stdout.write(sys.stdin.read().replace('"rating":7', '"rating":4'))
"""


def test_a_replay_that_was_killed_in_the_middle_is_done_again(world: World, workplace: Path) -> None:
    (workplace / "fix.py").write_text(KILL_AT_THE_THIRD)
    command = ["deadletter", "replay", "--bus", world.bus_url, "--exec", f"{sys.executable} fix.py"]
    killed = subprocess.run([sys.executable, "-m", "streamlens", *command], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert world.log_size() < 7
    world.apply()
    assert run(command) == 0
    world.apply()
    assert world.movies() == [31, 40, 41, 42]
    assert world.verified()


def test_of_a_large_record_the_log_still_holds_the_rest(world: World, capsys: Capture) -> None:
    note = "é" * KEPT_BYTES
    world.publish(b'{"user_id":7,"movie_id":60,"rating":9,"timestamp":1260759144,"note":"%s"}' % note.encode())
    world.apply()
    assert world.replay("--set", "rating=5", "--offset", "4") == 0
    world.apply()
    assert world.movies() == [31, 60]
    assert world.last_record()["note"] == note
    assert world.verified()


def test_of_a_large_record_that_is_gone_the_letter_says_so(world: World, capsys: Capture) -> None:
    def cut(offset: int) -> bytes:
        return msgspec.json.encode(DeadLetter(RATINGS, 1, offset, "large", '{"user', size=300_000))

    world.publish(cut(2), cut(99), topic=DEADLETTER, partition=0)
    assert world.replay("--reason", "large", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["published"], found["gone"]) == ({}, 2)
    assert "found another" in found["records"][0]["problem"]
    assert "the log holds offsets 0 to 3" in found["records"][1]["problem"]


def test_letters_are_chosen_by_reason_partition_offset_and_number(world: World, capsys: Capture) -> None:
    world.publish(b"garbage", too_many_stars(43, 1), partition=0)
    world.apply()

    def chosen(*flags: str) -> list[tuple[int, int]]:
        assert world.replay("--dry-run", "--json", "--force", *flags) == 0
        return [(row["partition"], row["offset"]) for row in json.loads(capsys.readouterr().out)["records"]]

    everything = chosen()
    assert sorted(everything) == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3)]
    assert chosen("--reason", "not a ratings record") == [(0, 0)]
    assert chosen("--reason", "rating: expected", "--partition", "0") == [(0, 1)]
    assert sorted(chosen("--offset", "1")) == [(0, 1), (1, 1)]
    assert chosen("--limit", "2") == everything[:2]
    assert chosen("--reason", "nothing begins like this") == []


def test_what_is_no_object_is_only_published_by_force_and_as_it_was(world: World, capsys: Capture) -> None:
    world.publish(b"\xff{broken")
    world.apply()
    assert world.replay("--reason", "not a ratings record", "--set", "rating=1") == 1
    assert world.log_size() == 5
    assert world.replay("--reason", "not a ratings record", "--force") == 0
    assert "invalid, forced: not a ratings record" in capsys.readouterr().out
    assert world.records()[-1].values[-1] == b"\xff{broken"


def test_letters_of_other_topics_are_judged_by_their_own_readers(world: World, capsys: Capture) -> None:
    def about(topic: str, payload: str) -> bytes:
        return msgspec.json.encode(DeadLetter(topic, 0, 0, "other", payload))

    dance = '{"run":"r","action":"dance"}'
    world.publish(about(CONTROL, dance), about("feedback", "{}"), topic=DEADLETTER, partition=0)
    assert world.replay("--reason", "other", "--json") == 1
    problems = [row["problem"] for row in json.loads(capsys.readouterr().out)["records"]]
    assert problems[0].startswith("action: expected one of pause")
    assert problems[1] == "the bus has no partition feedback/0"
    assert world.replay("--reason", "other", "--set", 'action="pause"', "--json") == 1
    assert json.loads(capsys.readouterr().out)["published"] == {CONTROL: 1}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--set", "rating"], "expected FIELD=VALUE"),
        (["--set", "type=rating"], "text needs its quotes"),
        (["--exec", "no-such-program --now"], "expected a program"),
        (["--exec", "'open"], "expected a command line"),
        (["--exec", "cat", "--set", "rating=1"], "expected one of them, found both"),
    ],
)
def test_a_fix_that_cannot_be_is_one_line_and_publishes_nothing(
    world: World, flags: list[str], complaint: str, capsys: Capture
) -> None:
    assert world.replay(*flags) == 2
    assert complaint in capsys.readouterr().err
    assert world.log_size() == 4

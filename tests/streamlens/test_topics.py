from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streamlens.cli.app import run
from streams.bus import TopicSpec, open_bus

Capture = pytest.CaptureFixture[str]
DEADLINE_S = 30.0


@pytest.fixture
def bus_url(workplace: Path) -> str:
    """A bus with the topic ``ratings`` over two partitions, three records on the first and one on the second."""
    url = f"sqlite:///{workplace / 'bus.db'}"
    publish(url, (0, b'{"n":1}', b"7"), (0, b"not json", None), (0, b'{"n":\n3}', None), (1, b'{"n":4}', None))
    return url


def publish(url: str, *records: tuple[int, bytes, bytes | None]) -> None:
    async def send() -> None:
        async with open_bus(url) as bus:
            await bus.create_topics(TopicSpec("ratings", 2))
            async with bus.producer() as producer:
                for partition, value, key in records:
                    await producer.send("ratings", value, key=key, partition=partition)

    asyncio.run(send())


def lines(capsys: Capture, *arguments: str) -> list[Any]:
    assert run(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_list_tells_what_each_partition_holds(bus_url: str, capsys: Capture) -> None:
    assert run(["topics", "list", "--bus", bus_url, "--json"]) == 0
    (topic,) = json.loads(capsys.readouterr().out)
    assert (topic["topic"], topic["records"]) == ("ratings", 4)
    assert [(p["partition"], p["end"]) for p in topic["partitions"]] == [(0, 3), (1, 1)]

    assert run(["topics", "list", "--bus", bus_url]) == 0
    assert "ratings" in capsys.readouterr().out


def test_lag_is_what_a_group_has_not_committed(bus_url: str, capsys: Capture) -> None:
    async def commit_two() -> None:
        async with open_bus(bus_url) as bus, await bus.consumer("ratings", group="readers") as consumer:
            first = min(consumer.assignment)
            consumer.seek(first, 2)
            await consumer.commit({first: 2})

    asyncio.run(commit_two())

    assert run(["topics", "lag", "--bus", bus_url, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["group"], r["partition"], r["lag"]) for r in rows] == [("readers", 0, 1), ("readers", 1, 1)]


def test_tail_prints_what_the_log_holds_as_lines_of_json(bus_url: str, capsys: Capture) -> None:
    arguments = ("topics", "tail", "ratings", "--from-beginning", "--bus", bus_url, "--limit")
    assert sorted(map(str, lines(capsys, *arguments, "4"))) == sorted(["{'n': 1}", "not json", "{'n': 3}", "{'n': 4}"])
    assert len(lines(capsys, *arguments, "2")) == 2


def test_tail_of_one_partition_keeps_its_order_and_tells_where_records_stand(bus_url: str, capsys: Capture) -> None:
    flags = ["--from-beginning", "--partition", "0", "--limit", "3", "--meta"]
    records = lines(capsys, "topics", "tail", "ratings", "--bus", bus_url, *flags)
    assert [(r["partition"], r["offset"]) for r in records] == [(0, 0), (0, 1), (0, 2)]
    assert (records[0]["key"], records[0]["value"]) == ("7", {"n": 1})
    assert records[1]["key"] is None


def test_tail_of_what_matches_ends_after_so_many_matches(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, *((0, b'{"n":%d,"user":"\xc3\xa9"}' % n, b"8") for n in (10, 21, 12, 13)))
    arguments = ("topics", "tail", "ratings", "--from-beginning", "--bus", bus_url)
    found = lines(capsys, *arguments, "--grep", r'"n":1\d', "--limit", "2")
    assert [record["n"] for record in found] == [10, 12]
    assert [record["n"] for record in lines(capsys, *arguments, "--grep", "é", "--limit", "4")] == [10, 21, 12, 13]
    assert lines(capsys, *arguments, "--grep", "^not", "--limit", "1") == ["not json"]
    assert lines(capsys, *arguments, "--key", "7", "--limit", "1") == [{"n": 1}]
    found = lines(capsys, *arguments, "--key", "8", "--grep", "2", "--limit", "2")
    assert [record["n"] for record in found] == [21, 12]


def test_lists_and_tails_come_as_csv(bus_url: str, capsys: Capture) -> None:
    assert run(["topics", "list", "--bus", bus_url, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "topic,partition,start,end,records",
        "ratings,0,0,3,3",
        "ratings,1,0,1,1",
    ]
    assert run(["topics", "lag", "--bus", bus_url, "--csv"]) == 0
    assert capsys.readouterr().out == "group,topic,partition,committed,end,lag\n"
    flags = ["--from-beginning", "--partition", "0", "--limit", "3", "--csv"]
    assert run(["topics", "tail", "ratings", "--bus", bus_url, *flags]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["offset"], row["key"], row["value"]) for row in rows] == [
        ("0", "7", '{"n":1}'),
        ("1", "", "not json"),
        ("2", "", '{"n":\n3}'),
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nothing"], "expected one of ratings"),
        (["ratings", "--partition", "2"], "0 to 1"),
        (["ratings", "--grep", "("], "--grep: expected a regular expression, found '('"),
        (["ratings", "--json", "--csv"], "--json and --csv: expected one of them, found both"),
    ],
)
def test_tail_of_what_is_not_there_is_one_line(
    bus_url: str, arguments: list[str], complaint: str, capsys: Capture
) -> None:
    assert run(["topics", "tail", "--bus", bus_url, *arguments]) == 2
    assert complaint in capsys.readouterr().err


class Tail:
    """``streamlens topics tail`` in a process of its own."""

    def __init__(self, bus_url: str, *flags: str) -> None:
        command = [sys.executable, "-m", "streamlens", "topics", "tail", "ratings", "--bus", bus_url, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        os.set_blocking(self.stdout.fileno(), False)

    def first_line(self, meanwhile: Any = None) -> bytes:
        """The first line it prints; ``meanwhile`` is done again and again until then."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if meanwhile:
                meanwhile()
            if line := self.stdout.readline():
                return line
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        raise AssertionError("tail printed nothing")

    def end(self) -> tuple[int, bytes]:
        _, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tail_follows_another_process_and_ends_well_on_a_signal(bus_url: str, number: signal.Signals) -> None:
    tail = Tail(bus_url)
    line = tail.first_line(meanwhile=lambda: publish(bus_url, (1, b'{"n":5}', None)))
    tail.process.send_signal(number)
    code, err = tail.end()
    assert (json.loads(line), code, err) == ({"n": 5}, 0, b"")


def test_a_reader_that_goes_away_is_no_error(bus_url: str) -> None:
    tail = Tail(bus_url, "--from-beginning")
    tail.first_line()
    tail.stdout.close()
    deadline = time.monotonic() + DEADLINE_S
    while tail.process.poll() is None and time.monotonic() < deadline:
        publish(bus_url, (1, b'{"n":5}', None))
    assert tail.process.stderr is not None
    assert (tail.process.returncode, tail.process.stderr.read()) == (0, b"")
    tail.process.stderr.close()

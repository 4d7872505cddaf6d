from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from streamlens.cli.app import run
from streams.bus import TopicSpec, open_bus
from streams.events import DEADLETTER, RATINGS, DeadLetter

Capture = pytest.CaptureFixture[str]


def letter(offset: int, reason: str, payload: str, *, event_id: int | None = None) -> bytes:
    source = None if event_id is None else "run/features/ratings/1"
    return msgspec.json.encode(DeadLetter(RATINGS, 1, offset, reason, payload, "utf-8", source, event_id))


@pytest.fixture
def bus_url(workplace: Path) -> str:
    return f"sqlite:///{workplace / 'bus.db'}"


def publish(url: str, letters: Sequence[bytes]) -> None:
    async def send() -> None:
        async with open_bus(url) as bus:
            await bus.create_topics(TopicSpec(RATINGS, 2), TopicSpec(DEADLETTER, 1))
            async with bus.producer() as producer:
                for value in letters:
                    await producer.send(DEADLETTER, value)

    asyncio.run(send())


def listed(url: str, capsys: Capture, *flags: str) -> dict[str, object]:
    assert run(["deadletter", "list", "--bus", url, "--json", *flags]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_list_counts_by_reason_and_shows_the_last(bus_url: str, capsys: Capture) -> None:
    publish(
        bus_url,
        [
            letter(0, "rating: expected 0.5 to 5 in half stars, found 7.0", "first"),
            letter(1, "rating: expected 0.5 to 5 in half stars, found 9.0", "second"),
            letter(2, "not a ratings record: malformed", "third"),
        ],
    )

    found = listed(bus_url, capsys, "--last", "2")
    assert (found["total"], found["reasons"]) == (3, {"rating": 2, "not a ratings record": 1})
    assert [row["payload"] for row in found["last"]] == ["second", "third"]  # type: ignore[attr-defined]

    assert run(["deadletter", "list", "--bus", bus_url]) == 0
    out = capsys.readouterr().out
    assert "ratings/1/2  not a ratings record: malformed" in out


def test_the_last_letters_come_as_csv(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [letter(0, "rating: no", "first"), letter(1, "a, b", 'sec"ond\n')])
    assert run(["deadletter", "list", "--bus", bus_url, "--csv", "--last", "1"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["offset"], row["reason"], row["payload"], row["size"]) == ("1", "a, b", 'sec"ond\n', "")


def test_a_letter_that_was_delivered_twice_counts_once(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [letter(n, "rating: no", "x", event_id=n) for n in (1, 2, 1, 2, 3)])

    assert listed(bus_url, capsys)["total"] == 3


def test_what_is_no_dead_letter_is_counted_and_never_published(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [b"\xff\xfe", letter(0, "rating: no", "x")])

    assert listed(bus_url, capsys)["reasons"] == {"not a dead letter": 1, "rating": 1}
    assert run(["deadletter", "replay", "--bus", bus_url, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == {RATINGS: 1}


def test_no_dead_letters_are_no_error(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [])

    assert listed(bus_url, capsys)["total"] == 0
    assert run(["deadletter", "replay", "--bus", bus_url]) == 0
    assert "no dead letters to publish again" in capsys.readouterr().out


def test_what_a_terminal_would_obey_is_shown_as_text(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [letter(0, "rating: no", "\x1b[2Jgone\nnext")])

    assert run(["deadletter", "list", "--bus", bus_url]) == 0

    assert "\\x1b[2Jgone\\nnext" in capsys.readouterr().out

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from streamlens.cli.app import run
from streams.batch import decode_ratings
from streams.bus import TopicSpec, open_bus
from streams.events import DEADLETTER, RATINGS, DeadLetter
from streams.records import RecordBatch

Capture = pytest.CaptureFixture[str]

RATING = b'{"user_id":7,"movie_id":31,"rating":2.5,"timestamp":1260759144,"source":"r","event_id":9,"note":"kept"}'


def letter(offset: int, reason: str, payload: str, *, encoding: str = "utf-8", event_id: int | None = None) -> bytes:
    source = None if event_id is None else "run/features/ratings/1"
    return msgspec.json.encode(DeadLetter(RATINGS, 1, offset, reason, payload, encoding, source, event_id))


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


def ratings(url: str) -> dict[int, RecordBatch]:
    """What was published to each partition of ``ratings``."""

    async def read() -> dict[int, RecordBatch]:
        async with open_bus(url) as bus, await bus.consumer(RATINGS) as consumer:
            found = {}
            held = await bus.offsets(RATINGS)
            while unread := [tp for tp in held if consumer.position(tp) < held[tp].end]:
                for batch in await consumer.fetch(partitions=unread):
                    before = [found[batch.partition]] if batch.partition in found else []
                    found[batch.partition] = RecordBatch.concat([*before, batch])
            return found

    return asyncio.run(read())


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


def test_a_letter_that_was_delivered_twice_counts_once(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [letter(n, "rating: no", "x", event_id=n) for n in (1, 2, 1, 2, 3)])

    assert listed(bus_url, capsys)["total"] == 3


def test_what_is_no_dead_letter_is_counted_and_never_published(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [b"\xff\xfe", letter(0, "rating: no", "x")])

    assert listed(bus_url, capsys)["reasons"] == {"not a dead letter": 1, "rating": 1}
    assert run(["deadletter", "replay", "--bus", bus_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"published": {RATINGS: 1}}


def test_replay_sends_the_record_to_its_partition_under_an_identity_of_its_own(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [letter(5, "cannot be applied: ...", RATING.decode())])

    for _ in range(2):
        assert run(["deadletter", "replay", "--bus", bus_url]) == 0
    assert "1 published to ratings" in capsys.readouterr().out

    (batch,) = ratings(bus_url).values()
    assert batch.partition == 1
    assert batch.keys == [b"7", b"7"]
    expected = {**json.loads(RATING), "source": "dlq/ratings/1/5", "event_id": 1}
    assert [json.loads(value) for value in batch.values] == [expected, expected]
    assert len(decode_ratings(batch)) == 2


@pytest.mark.parametrize(
    ("payload", "encoding", "published"),
    [("{broken", "utf-8", b"{broken"), ("//4=", "base64", b"\xff\xfe"), ("[1]", "utf-8", b"[1]")],
)
def test_what_cannot_carry_an_identity_goes_as_it_was(
    bus_url: str, payload: str, encoding: str, published: bytes
) -> None:
    publish(bus_url, [letter(0, "not a ratings record: ...", payload, encoding=encoding)])

    assert run(["deadletter", "replay", "--bus", bus_url]) == 0

    assert ratings(bus_url)[1].values == [published]


def test_replay_of_one_reason_leaves_the_others(bus_url: str) -> None:
    publish(bus_url, [letter(0, "rating: found 7", "a"), letter(1, "timestamp: found 3", "b")])

    assert run(["deadletter", "replay", "--bus", bus_url, "--reason", "timestamp"]) == 0

    assert ratings(bus_url)[1].values == [b"b"]


def test_no_dead_letters_are_no_error(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [])

    assert listed(bus_url, capsys)["total"] == 0
    assert run(["deadletter", "replay", "--bus", bus_url]) == 0
    assert "none to publish" in capsys.readouterr().out


def test_what_a_terminal_would_obey_is_shown_as_text(bus_url: str, capsys: Capture) -> None:
    publish(bus_url, [letter(0, "rating: no", "\x1b[2Jgone\nnext")])

    assert run(["deadletter", "list", "--bus", bus_url]) == 0

    assert "\\x1b[2Jgone\\nnext" in capsys.readouterr().out

"""Dead letters published again: mended, judged as their readers will judge them, and each counted once."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from streams.batch import decode_ratings
from streams.bus import Bus, Consumer
from streams.control import parse_request
from streams.deadletter_fixes import Fix, NotMended, as_object
from streams.deadletters import PlacedLetter, placed_letters
from streams.errors import OffsetOutOfRange
from streams.events import CONTROL, DEADLETTER, RATINGS, DeadLetter
from streams.records import RecordBatch, TopicPartition

__all__ = ["Outcome", "Replayed", "Selection", "replay_dead_letters", "replay_letters"]

_FETCH_S = 5.0


class Outcome(StrEnum):
    """What became of a dead letter's record."""

    PUBLISHED = "published"
    INVALID = "invalid"
    SKIPPED = "skipped"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: all that begin with ``reason``, are about one of ``offsets`` and about ``partition``.

    An empty or absent condition holds for all. ``limit``: no more than so many, the oldest.
    """

    reason: str = ""
    offsets: frozenset[int] = frozenset()
    partition: int | None = None
    limit: int | None = None

    def holds(self, letter: DeadLetter) -> bool:
        return (
            letter.topic != DEADLETTER
            and letter.reason.startswith(self.reason)
            and (not self.offsets or letter.offset in self.offsets)
            and self.partition in (None, letter.partition)
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """A dead letter, what became of it, and why it was not published; ``value``: the record that was (or would be)."""

    placed: PlacedLetter
    outcome: Outcome
    problem: str = ""
    value: bytes | None = None


async def replay_dead_letters(
    bus: Bus,
    selection: Selection,
    *,
    fix: Fix | None = None,
    dry_run: bool = False,
    force: bool = False,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> AsyncGenerator[Replayed]:
    """:func:`replay_letters` of all the letters on the bus that are selected."""
    async with aclosing(placed_letters(bus)) as letters, aclosing(_selected(letters, selection)) as wanted:
        replayed = replay_letters(bus, wanted, fix=fix, dry_run=dry_run, force=force, wall_ms=wall_ms)
        async with aclosing(replayed):
            async for one in replayed:
                yield one


async def _selected(letters: AsyncIterator[PlacedLetter], selection: Selection) -> AsyncGenerator[PlacedLetter]:
    n = 0
    async for placed in letters:
        if n == selection.limit:
            return
        if selection.holds(placed.letter):
            n += 1
            yield placed


async def replay_letters(
    bus: Bus,
    letters: AsyncIterator[PlacedLetter],
    *,
    fix: Fix | None = None,
    dry_run: bool = False,
    force: bool = False,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> AsyncGenerator[Replayed]:
    """Publish the letters' records, mended by ``fix``, to the topic and partition each came from.

    A record goes as source ``dlq/topic/partition/offset`` of its first letter, with id 1: however often it is
    published, and however often it failed in between, it counts once. What its readers would refuse again is not
    published, unless ``force``; what is no JSON object goes without an identity then. ``dry_run``: nothing is
    published. All is durable at the end. Raises BusError.
    """
    topics = await bus.topics()
    async with AsyncExitStack() as stack:
        origins = _Origins(bus, stack)
        producer = await stack.enter_async_context(bus.producer())
        async for placed in letters:
            letter = placed.letter
            if letter.topic not in topics or not 0 <= letter.partition < topics[letter.topic].partitions:
                yield Replayed(placed, Outcome.GONE, f"the bus has no partition {letter.topic}/{letter.partition}")
                continue
            replayed = await _mend(placed, origins, fix, wall_ms(), force)
            if replayed.value is not None and not dry_run:
                key = _key(replayed.value)
                await producer.send(letter.topic, replayed.value, key=key, partition=letter.partition)
            yield replayed
        await producer.flush()


async def _mend(placed: PlacedLetter, origins: _Origins, fix: Fix | None, now_ms: int, force: bool) -> Replayed:
    letter = placed.letter
    try:
        payload = _payload(letter) if letter.size is None else await origins.read(letter)
        mended = payload if fix is None else await fix(payload)
    except NotMended as error:
        return Replayed(placed, Outcome.SKIPPED, str(error))
    except binascii.Error:
        return Replayed(placed, Outcome.INVALID, "the letter's payload is not base64, as it says")
    except _Gone as error:
        return Replayed(placed, Outcome.GONE, str(error))
    fields = as_object(mended)
    if fields is not None:
        mended = msgspec.json.encode({**fields, **_identity(letter, payload)})
    problem = _problem(letter.topic, mended, now_ms)
    if problem and not force:
        return Replayed(placed, Outcome.INVALID, problem)
    return Replayed(placed, Outcome.PUBLISHED, problem, mended)


def _payload(letter: DeadLetter) -> bytes:
    return base64.b64decode(letter.payload, validate=True) if letter.encoding == "base64" else letter.payload.encode()


def _identity(letter: DeadLetter, payload: bytes) -> dict[str, object]:
    """That of the record's first letter, which a record that was replayed before and failed again carries on."""
    place = f"dlq/{letter.topic}/{letter.partition}"
    fields = as_object(payload) or {}
    carried = re.fullmatch(rf'"({re.escape(place)}/\d+)"', bytes(fields.get("source", b"")).decode(errors="replace"))
    return {"source": carried[1] if carried else f"{place}/{letter.offset}", "event_id": 1}


def _key(value: bytes) -> bytes | None:
    """The user id in ASCII, as every rating is keyed; None for a record that has none."""
    user_id = bytes((as_object(value) or {}).get("user_id", b""))
    return user_id if user_id.isdigit() else None


def _problem(topic: str, value: bytes, now_ms: int) -> str:
    """Why the topic's reader would refuse the record; empty if it would not, or nobody knows."""
    if topic == RATINGS:
        one = RecordBatch(topic, 0, np.zeros(1, np.int64), np.array([now_ms]), 1, lines=None, _values=[value])
        return next((record.reason for record in decode_ratings(one).invalid), "")
    return parse_request(value)[1] if topic == CONTROL else ""


class _Gone(Exception):
    """The record that a letter is about is no longer there; the message says why."""


class _Origins:
    """Reads whole records where letters hold only their first part; consumers stay open until the stack closes."""

    def __init__(self, bus: Bus, stack: AsyncExitStack) -> None:
        self._bus = bus
        self._stack = stack
        self._consumers: dict[str, Consumer] = {}

    async def read(self, letter: DeadLetter) -> bytes:
        """The record that ``letter`` is about. Raises _Gone, also where another record stands in its place."""
        tp = TopicPartition(letter.topic, letter.partition)
        held = (await self._bus.offsets(letter.topic))[tp]
        if not held.start <= letter.offset < held.end:
            raise _Gone(
                f"a part of {letter.size:,} bytes is left: the log holds offsets {held.start} to {held.end - 1}"
            )
        if letter.topic not in self._consumers:
            self._consumers[letter.topic] = await self._stack.enter_async_context(
                await self._bus.consumer(letter.topic)
            )
        consumer = self._consumers[letter.topic]
        consumer.seek(tp, letter.offset)
        try:
            batches = await consumer.fetch(timeout_s=_FETCH_S, max_records=1, partitions=[tp])
        except OffsetOutOfRange as error:  # retention came in between
            raise _Gone(str(error)) from error
        found = batches[0].values[0] if batches and batches[0].first_offset == letter.offset else b""
        if len(found) != letter.size or not found.startswith(_payload(letter)):
            raise _Gone(
                f"expected a record of {letter.size:,} bytes at its offset, found another; was the log replaced?"
            )
        return found

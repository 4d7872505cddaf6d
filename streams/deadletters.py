"""Dead letters: what could not be processed, read from the bus: all of them, counted by reason, or a page."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from streams.batch import InvalidRecord
from streams.bus import Bus
from streams.events import DEADLETTER, DeadLetter
from streams.records import RecordBatch

__all__ = ["DeadLetterSummary", "LettersPage", "PlacedLetter", "letters_page", "placed_letters", "read_dead_letters"]

_FETCH_S = 1.0
_decoder = msgspec.json.Decoder(DeadLetter)


@dataclass(frozen=True, slots=True)
class PlacedLetter:
    """A dead letter, the partition and offset of ``deadletter`` it lies at, and when it was published, in ms."""

    letter: DeadLetter
    partition: int
    at: int
    timestamp_ms: int

    @property
    def origin(self) -> str:
        """Where the record stands that it is about."""
        return f"{self.letter.topic}/{self.letter.partition}/{self.letter.offset}"

    @property
    def kind(self) -> str:
        """What the reasons of one sort have in common: the part before the colon."""
        return self.letter.reason.partition(":")[0]

    def as_dict(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self.letter), "timestamp_ms": self.timestamp_ms}


@dataclass(slots=True)
class DeadLetterSummary:
    """``total`` distinct dead letters, how many of each kind, and the last few."""

    last: deque[PlacedLetter]
    total: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, placed: PlacedLetter) -> None:
        self.total += 1
        self.kinds[placed.kind] += 1
        self.last.append(placed)


async def read_dead_letters(bus: Bus, *, last: int = 10) -> DeadLetterSummary:
    """All dead letters up to now; ``last`` of them are kept. None at all if the topic does not exist yet."""
    summary = DeadLetterSummary(deque(maxlen=last))
    async for placed in placed_letters(bus):
        summary.add(placed)
    return summary


async def placed_letters(bus: Bus) -> AsyncGenerator[PlacedLetter]:
    """The dead letters on the bus by now, each once: delivery is at least once, and ids rise per source."""
    if DEADLETTER not in await bus.topics():
        return
    newest: dict[tuple[int, str | None], int] = {}
    ends = {tp: held.end for tp, held in (await bus.offsets(DEADLETTER)).items()}
    async with await bus.consumer(DEADLETTER) as consumer:
        while unread := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
            for batch in await consumer.fetch(timeout_s=_FETCH_S, partitions=unread):
                for placed in _decode(batch):
                    event_id, origin = placed.letter.event_id, (placed.partition, placed.letter.source)
                    if event_id is None or event_id > newest.get(origin, 0):
                        newest[origin] = event_id or 0
                        yield placed


@dataclass(frozen=True, slots=True)
class LettersPage:
    """A part of the dead letters that the bus holds, newest first. total: all that it holds, as often as delivered."""

    letters: list[PlacedLetter]
    total: int
    pages: int


async def letters_page(bus: Bus, page: int, size: int) -> LettersPage:
    """The ``page``-th part of the dead letters, 0 the newest: ``size`` from each partition. Raises BusError.

    A page beyond the last is the last; there is an empty one where the topic does not exist or holds nothing.
    """
    if DEADLETTER not in await bus.topics():
        return LettersPage([], 0, 1)
    held = await bus.offsets(DEADLETTER)
    pages = max(1, *(-(-(one.end - one.start) // size) for one in held.values()))
    page = min(page, pages - 1)
    ends = {tp: one.end - page * size for tp, one in held.items()}
    letters: list[PlacedLetter] = []
    async with await bus.consumer(DEADLETTER) as consumer:
        for tp, end in ends.items():
            consumer.seek(tp, max(held[tp].start, end - size))
        while unread := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
            for batch in await consumer.fetch(timeout_s=_FETCH_S, partitions=unread, max_records=size):
                letters += [placed for placed in _decode(batch) if placed.at < ends[batch.tp]]
    letters.sort(key=lambda placed: (placed.timestamp_ms, placed.at), reverse=True)
    return LettersPage(letters, sum(one.end - one.start for one in held.values()), pages)


def _decode(batch: RecordBatch) -> Iterator[PlacedLetter]:
    rows = zip(batch.offsets.tolist(), batch.timestamps_ms.tolist(), batch.values, strict=True)
    for offset, timestamp_ms, value in rows:
        try:
            letter = _decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = f"not a dead letter: {error}"
            letter = InvalidRecord(offset, reason, value).dead_letter(DEADLETTER, batch.partition)
        yield PlacedLetter(letter, batch.partition, offset, timestamp_ms)

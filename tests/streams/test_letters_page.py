"""Dead letters a page at a time, the newest first."""

from __future__ import annotations

import msgspec
import pytest

from streams.bus import Bus, TopicSpec, open_bus
from streams.deadletters import LettersPage, letters_page
from streams.events import DEADLETTER, RATINGS, DeadLetter


async def filled(bus: Bus, n: int, partitions: int = 1) -> None:
    await bus.create_topics(TopicSpec(DEADLETTER, partitions))
    async with bus.producer() as producer:
        for i in range(n):
            letter = msgspec.json.encode(DeadLetter(RATINGS, 2, i, f"reason {i}", "{}", source="run", event_id=i + 1))
            await producer.send(DEADLETTER, letter, partition=i % partitions)
            await producer.flush()


def offsets(page: LettersPage) -> list[int]:
    return [placed.letter.offset for placed in page.letters]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (0, [24, 23, 22, 21, 20, 19, 18, 17, 16, 15]),
        (1, list(range(14, 4, -1))),
        (2, [4, 3, 2, 1, 0]),
        (9, [4, 3, 2, 1, 0]),
    ],
)
async def test_pages_run_from_the_newest_to_the_oldest(streamlens_bus: Bus, page: int, expected: list[int]) -> None:
    await filled(streamlens_bus, 25)
    found = await letters_page(streamlens_bus, page, 10)
    assert offsets(found) == expected
    assert (found.total, found.pages) == (25, 3)
    assert found.letters[0].origin == f"ratings/2/{expected[0]}"
    assert found.letters[0].at == expected[0]


async def test_all_pages_of_several_partitions_hold_each_letter_once() -> None:
    async with open_bus("memory://") as bus:
        await filled(bus, 13, partitions=3)
        pages = [await letters_page(bus, page, 2) for page in range(3)]
    assert {page.pages for page in pages} == {3}
    assert sorted(offset for page in pages for offset in offsets(page)) == list(range(13))
    assert set(offsets(pages[0])) == set(range(7, 13))


async def test_there_is_an_empty_page_where_there_are_none(streamlens_bus: Bus) -> None:
    assert await letters_page(streamlens_bus, 3, 10) == LettersPage([], 0, 1)
    await filled(streamlens_bus, 0)
    assert await letters_page(streamlens_bus, 3, 10) == LettersPage([], 0, 1)


async def test_what_is_no_dead_letter_is_shown_as_such(streamlens_bus: Bus) -> None:
    await filled(streamlens_bus, 1)
    async with streamlens_bus.producer() as producer:
        await producer.send(DEADLETTER, b"oops", partition=0)
        await producer.flush()
    newest, oldest = (await letters_page(streamlens_bus, 0, 10)).letters
    assert (newest.letter.topic, newest.letter.payload) == (DEADLETTER, "oops")
    assert oldest.letter.topic == RATINGS

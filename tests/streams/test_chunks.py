from __future__ import annotations

import pytest

from streams.chunks import read_chunks
from streams.dataset import open_dataset


@pytest.mark.parametrize("border", [0, 1, 700, 1_000, 1_999, 2_000])
async def test_a_chunk_begins_at_the_border_and_nothing_else_changes(border: int) -> None:
    dataset = open_dataset("synthetic:ratings=2000")
    start, stop = 300, 2_000
    found = [chunk async for chunk in read_chunks(dataset, start, stop, 4, border=border, size=500)]
    begins = [chunk.first_ordinal - 1 for chunk in found]
    whole = [chunk async for chunk in read_chunks(dataset, start, stop, 4, size=500)]
    assert (border in begins) == (start <= border < stop)
    assert [t for chunk in found for t in chunk.ratings.timestamp.tolist()] == [
        t for chunk in whole for t in chunk.ratings.timestamp.tolist()
    ]
    assert begins == [start, *(begin + len(chunk) for begin, chunk in zip(begins, found[:-1], strict=False))]
    assert [at for chunk in found for at in chunk.ticks.event_time.tolist()] == [
        at for chunk in whole for at in chunk.ticks.event_time.tolist()
    ]

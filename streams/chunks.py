"""A dataset cut into chunks that are ready to publish, read ahead in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.dataset import Dataset, Ratings
from streams.murmur2 import partitions_of_ids
from streams.ticks import BoundaryTicks, boundary_ticks

__all__ = ["CHUNK_SIZE", "Chunk", "chunk_of", "read_chunks"]

CHUNK_SIZE = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive ratings (n >= 1) of the total order, ready to publish.

    partition: int16 (n,). first_ordinal: the ordinal of the first rating, from 1. ticks: where event time moves.
    """

    ratings: Ratings
    partition: npt.NDArray[np.int16]
    first_ordinal: int
    ticks: BoundaryTicks

    def __len__(self) -> int:
        return len(self.ratings)


def chunk_of(ratings: Ratings, first_ordinal: int, previous: int | None, partitions: int) -> Chunk:
    """``ratings`` from ordinal ``first_ordinal`` on; ``previous``: when the rating before arrives, or None."""
    partition = partitions_of_ids(ratings.user_id, partitions).astype(np.int16)
    return Chunk(ratings, partition, first_ordinal, boundary_ticks(ratings.arrives, previous))


async def read_chunks(
    dataset: Dataset, start: int, stop: int, partitions: int, *, border: int = 0, size: int = CHUNK_SIZE
) -> AsyncGenerator[Chunk, None]:
    """The ratings at positions ``start`` to ``stop``, each chunk read while the one before is published.

    border: a position that no chunk lies on both sides of.
    A generator to close (``contextlib.aclosing``) when it is left early.
    """
    if start >= stop:
        return
    source = _cut(dataset.chunks(start=start, size=size), border - start)

    def read(position: int, previous: int | None) -> Chunk | None:
        ratings = next(source, None) if position < stop else None
        if ratings is None:
            return None
        return chunk_of(ratings.slice(0, stop - position), position + 1, previous, partitions)

    previous = dataset.timestamp_at(start - 1) if start else None
    coming = asyncio.ensure_future(asyncio.to_thread(read, start, previous))
    try:
        while (chunk := await coming) is not None:
            start += len(chunk)
            coming = asyncio.ensure_future(asyncio.to_thread(read, start, int(chunk.ratings.arrives[-1])))
            yield chunk
    finally:
        coming.cancel()


def _cut(chunks: Iterator[Ratings], border: int) -> Iterator[Ratings]:
    """The same ratings, with a chunk beginning at the one at ``border``, counted from the first."""
    for ratings in chunks:
        if 0 < border < len(ratings):
            yield ratings.slice(0, border)
            yield ratings.slice(border)
        else:
            yield ratings
        border -= len(ratings)

"""The data cut into blocks of whole seconds, so that what drift does within a second needs one block only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streams.dataset import Dataset
from streams.drift.columns import DriftColumns
from streams.records import Int64s

__all__ = ["BLOCK_SIZE", "FAR_AHEAD", "cut_blocks", "read_blocks"]

BLOCK_SIZE = 50_000
FAR_AHEAD = 2**62
"""Event time after everything."""


def cut_blocks(dataset: Dataset, begin: int) -> tuple[Int64s, Int64s]:
    """Where blocks of about ``BLOCK_SIZE`` ratings start from position ``begin`` on: positions, and event times.

    int64 (b + 1,) both: one more entry closes the last block. All ratings of a second lie in one block.
    """
    positions, position = list[int](), begin
    while position < dataset.n_ratings:
        positions.append(position)
        cut = position + BLOCK_SIZE
        if cut >= dataset.n_ratings:
            break
        second = dataset.timestamp_at(cut)
        following = dataset.position_of(second)
        position = following if following > position else dataset.position_of(second + 1)
    times = [dataset.timestamp_at(position) for position in positions]
    return np.array([*positions, dataset.n_ratings], np.int64), np.array([*times, FAR_AHEAD], np.int64)


def read_blocks(dataset: Dataset, positions: Int64s, first: int = 0) -> Iterator[DriftColumns]:
    """Blocks ``first`` and on, each as a whole, however the dataset cuts its chunks."""
    if first >= len(positions) - 1:
        return
    block, at = first, int(positions[first])
    held: list[DriftColumns] = []
    for chunk in dataset.chunks(start=at, size=BLOCK_SIZE):
        left = chunk
        while len(left):
            piece = left.slice(0, int(positions[block + 1]) - at)
            held.append(DriftColumns.of(piece, at))
            at, left = at + len(piece), left.slice(len(piece))
            if at == positions[block + 1]:
                yield DriftColumns.concat(held)
                held, block = [], block + 1

"""Rows of unequal length as a few rectangles, so that one batched solve serves many rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.interactions import Float32s
from streams.records import Int64s

__all__ = ["RowBatch", "row_batches"]

_CELLS = 200_000
"""Of a batch, unless one row has more."""


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows of nearly one length. rows: (b,); at: (b, l), the entries of each; inside: (b, l), 1.0, 0.0 where padded."""

    rows: Int64s
    at: Int64s
    inside: Float32s


def row_batches(row: npt.NDArray[np.integer], n_rows: int) -> Iterator[RowBatch]:
    """The entries of each row, shortest rows first; a row without any is in no batch.

    row: (n,), what row each entry belongs to, in any order.

    >>> [(batch.rows.tolist(), batch.at.tolist()) for batch in row_batches(np.array([2, 0, 2]), 3)]
    [([0, 2], [[1, 1], [0, 2]])]
    """
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=n_rows)
    start = np.cumsum(counts) - counts
    by_length = np.argsort(counts, kind="stable")
    lengths = counts[by_length]
    first = int(np.searchsorted(lengths, 1))
    while first < n_rows:
        longest = max(lengths[first] + 2, int(1.5 * lengths[first]))  # padding costs at most a third, or two cells
        last = int(np.searchsorted(lengths, longest, "right"))
        last = min(last, first + max(1, _CELLS // int(lengths[last - 1])))
        rows, place = by_length[first:last], np.arange(lengths[last - 1])
        inside = place < counts[rows][:, None]
        yield RowBatch(
            rows, order[np.where(inside, start[rows][:, None] + place, start[rows][:, None])], inside.astype(np.float32)
        )
        first = last

"""What the monitor is fed with: ratings, slates and feedback as columns, and the one order in which they count.

That order, (event time, source, event_id), depends on no partition, batch or speed; records without identity come
first within their second, by what they say.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeVar, cast, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from models.interactions import Float32s
from streams.records import Int64s

__all__ = [
    "Columns",
    "FeedbackColumns",
    "PackedArray",
    "RatingColumns",
    "ShownSlates",
    "SlateColumns",
    "ToldFeedback",
    "pack",
    "unpack",
]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Columns:
    """n records. timestamp, event_id: int64 (n,). source: int64 (n,), codes into ``sources``, -1 for none."""

    timestamp: Int64s
    user_id: Int64s
    source: Int64s
    event_id: Int64s
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.timestamp)

    def take(self, index: npt.NDArray[Any] | slice) -> Self:
        """The records at ``index`` (positions, a mask or a slice)."""
        return type(self)(**{name: column[index] for name, column in self.arrays().items()}, sources=self.sources)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "sources"}

    def in_order(self) -> Self:
        """Sorted by (timestamp, source, event_id); what is left equal, by its other columns."""
        tied = [column for name, column in self.arrays().items() if column.ndim == 1 and name not in _IDENTITY]
        return self.take(np.lexsort((*tied, self.event_id, self.source, self.timestamp)))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All ``parts`` (one at least) under one list of sources, which rises, so that codes sort as names do."""
        names = tuple(sorted({name for part in parts for name in part.sources}))
        code = {name: number for number, name in enumerate(names)}
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in parts[0].arrays()}
        of_part = (np.array([*(code[name] for name in part.sources), -1])[part.source] for part in parts)
        return cls(**columns | {"source": np.concatenate(list(of_part))}, sources=names)


_IDENTITY = ("timestamp", "source", "event_id")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RatingColumns(Columns):
    """Ratings. half_stars: int64 (n,), 1 to 10. predicted: float32 (n,), stars as MF foresaw them, NaN for none."""

    movie_id: Int64s
    half_stars: Int64s
    predicted: Float32s


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SlateColumns(Columns):
    """Slates as shown. movie_ids: int64 (n, k), ``NO_MOVIE`` where none is."""

    movie_ids: Int64s


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FeedbackColumns(Columns):
    """What came of each slate, told when its session closes, at ``timestamp``: (user, timestamp) is the session.

    n_shown, n_clicked: int64 (n,), of the slate. n_ratings: int64 (n,), of the session. simulated: bool (n,), whether
    made-up users clicked.
    """

    n_shown: Int64s
    n_clicked: Int64s
    n_ratings: Int64s
    simulated: npt.NDArray[np.bool_]


Names = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ShownSlates(SlateColumns):
    """Slates of all variants. variant, version: str as objects (n,)."""

    variant: Names
    version: Names

    def plain(self, index: npt.NDArray[Any]) -> SlateColumns:
        """Those at ``index``, of whichever variant they are."""
        return _without(SlateColumns, self, index)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ToldFeedback(FeedbackColumns):
    """Feedback of all variants. variant: str as objects (n,)."""

    variant: Names

    def plain(self, index: npt.NDArray[Any]) -> FeedbackColumns:
        """That at ``index``, of whichever variant it is."""
        return _without(FeedbackColumns, self, index)


C = TypeVar("C", bound=Columns)


def _without(kind: type[C], columns: Columns, index: npt.NDArray[Any]) -> C:
    names = {field.name for field in fields(kind)} - {"sources"}
    arrays = {name: column[index] for name, column in columns.arrays().items() if name in names}
    return kind(**arrays, sources=columns.sources)


ArrayType = Literal["<i8", "<f4", "<f8", "|b1"]


class PackedArray(msgspec.Struct, frozen=True):
    """An array as JSON can hold it: little-endian bytes, compressed."""

    dtype: ArrayType
    shape: tuple[int, ...]
    data: bytes


def pack(array: npt.NDArray[Any]) -> PackedArray:
    """Raises ValueError for other types than int64, float32, float64 and bool."""
    if (dtype := array.dtype.str) not in get_args(ArrayType):
        raise ValueError(f"array: expected one of {', '.join(get_args(ArrayType))}, found {dtype}")
    return PackedArray(cast(ArrayType, dtype), array.shape, zlib.compress(np.ascontiguousarray(array).tobytes(), 1))


def unpack(packed: PackedArray) -> npt.NDArray[Any]:
    """Raises ValueError or zlib.error for what :func:`pack` has not made."""
    return np.frombuffer(zlib.decompress(packed.data), packed.dtype).reshape(packed.shape)

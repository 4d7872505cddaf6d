"""Columns as PostgreSQL's binary arrays, packed by numpy: a statement takes thousands of rows as a few parameters.

``INSERT ... SELECT FROM unnest(...)`` over them needs no temporary table, which each transaction would have to empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import cast

import numpy as np
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import BigInteger, Column, Double
from sqlalchemy.types import LargeBinary

from featurestore.schema import ColumnValues

__all__ = ["PackedArray", "pack", "register_arrays"]

_HEADER = np.dtype([("dimensions", ">i4"), ("has_null", ">i4"), ("type", ">i4"), ("length", ">i4"), ("first", ">i4")])


class PackedArray:
    """An array in PostgreSQL's binary format; the subclass says of what."""

    oid: int

    def __init__(self, data: bytes) -> None:
        self.data = data


class _Bigints(PackedArray):
    oid = 1016


class _Doubles(PackedArray):
    oid = 1022


class _Byteas(PackedArray):
    oid = 1001


def pack(column: Column[object], values: ColumnValues) -> PackedArray:
    """The values of a ``column`` of the schema, one or more, none of them NULL."""
    if isinstance(column.type, BigInteger):
        return _Bigints(_fixed(np.asarray(values, ">i8"), 20))
    if isinstance(column.type, Double):
        return _Doubles(_fixed(np.asarray(values, ">f8"), 701))
    if isinstance(column.type, LargeBinary):
        return _Byteas(_variable(cast("Sequence[bytes]", values), 17))
    raise TypeError(f"{column}: cannot be packed")


def _header(length: int, oid: int) -> bytes:
    return np.array((1, 0, oid, length, 1), _HEADER).tobytes()


def _fixed(values: np.ndarray, oid: int) -> bytes:
    cells = np.empty(len(values), [("size", ">i4"), ("value", values.dtype)])
    cells["size"], cells["value"] = values.dtype.itemsize, values
    return _header(len(values), oid) + cells.tobytes()


def _variable(values: Sequence[bytes | memoryview], oid: int) -> bytes:
    sizes = np.fromiter(map(len, values), ">i4", len(values)).tobytes()
    heads = (sizes[i : i + 4] for i in range(0, len(sizes), 4))
    return _header(len(values), oid) + b"".join(chain.from_iterable(zip(heads, values, strict=True)))


def register_arrays(connection: psycopg.Connection) -> None:
    """Let the connection take packed arrays as parameters."""
    for kind in PackedArray.__subclasses__():
        connection.adapters.register_dumper(kind, _dumper(kind.oid))


def _dumper(oid_of_array: int) -> type[Dumper]:
    class PackedDumper(Dumper):
        format = Format.BINARY
        oid = oid_of_array

        def dump(self, obj: PackedArray) -> Buffer:
            return obj.data

    return PackedDumper

"""The tables of a snapshot: how features and interactions stand in Parquet, and how they are read back.

What does not exist (the mean of no ratings) is null in the file, and NaN in the columns of UserFeatures and
ItemFeatures.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from featurestore.aggregate import Accepted
from featurestore.catalogue import Catalogue
from featurestore.features import WINDOWS_S, ItemFeatures, UserFeatures
from streams.dataset import Movie

__all__ = [
    "INTERACTIONS",
    "ITEM_FEATURES",
    "MOVIES",
    "USER_FEATURES",
    "interactions_schema",
    "interactions_table",
    "item_features_of",
    "item_schema",
    "item_table",
    "movies_of",
    "movies_schema",
    "movies_table",
    "user_features_of",
    "user_schema",
    "user_table",
]

INTERACTIONS = "interactions.parquet"
USER_FEATURES = "user_features.parquet"
ITEM_FEATURES = "item_features.parquet"
MOVIES = "movies.parquet"

_USER_COLUMNS = ("n_ratings", "mean_rating", "first_rated", "last_rated", "recency_s", "session_start", "session_n")
_ITEM_COLUMNS = ("n_ratings", "mean_rating", "first_rated", "last_rated", "recency_s", "decayed_popularity")
_EMPTY_LIST = pa.list_(pa.float64())
"""Of any length: Parquet writes lists that are all of length 0 as fixed ones, and cannot read them."""

_FLOATS = {"mean_rating", "recency_s", "decayed_popularity"}


def interactions_schema() -> pa.Schema:
    """One row per rating: by user, and of one user in event time. rating: stars; timestamp: seconds since the epoch."""
    return pa.schema(
        [
            ("user_id", pa.int64()),
            ("movie_id", pa.int64()),
            ("rating", pa.float32()),
            ("timestamp", pa.int64()),
            ("late", pa.bool_()),
        ]
    )


def interactions_table(ratings: Accepted) -> pa.Table:
    return pa.table(
        [
            ratings.user_id,
            ratings.movie_id,
            (ratings.half_stars / 2.0).astype(np.float32),
            ratings.timestamp,
            ratings.late,
        ],
        schema=interactions_schema(),
    )


def user_schema(genres: int) -> pa.Schema:
    """The columns of UserFeatures; taste and taste_mean are lists with a value for each of the manifest's genres."""
    taste = pa.list_(pa.float64(), genres) if genres else _EMPTY_LIST
    return pa.schema([("user_id", pa.int64()), *map(_field, _USER_COLUMNS), ("taste", taste), ("taste_mean", taste)])


def user_table(features: UserFeatures) -> pa.Table:
    columns = [features.user_id, *(_column(getattr(features, name)) for name in _USER_COLUMNS)]
    width = len(features.genres)
    tastes = [
        pa.FixedSizeListArray.from_arrays(_column(taste.ravel()), width) if width else _empty_lists(len(features))
        for taste in (features.taste, features.taste_mean)
    ]
    return pa.table([*columns, *tastes], schema=user_schema(width))


def user_features_of(table: pa.Table, genres: tuple[str, ...], as_of: int) -> UserFeatures:
    """The inverse of :func:`user_table`."""
    n = len(table)
    tastes = (table[name].combine_chunks().flatten() for name in ("taste", "taste_mean"))
    taste, taste_mean = (_numbers(flat).reshape(n, len(genres)) for flat in tastes)
    return UserFeatures(
        user_id=_numbers(table["user_id"]),
        known=np.ones(n, bool),
        **{name: _numbers(table[name]) for name in _USER_COLUMNS},
        taste=taste,
        taste_mean=taste_mean,
        genres=genres,
        as_of=as_of,
    )


def item_schema() -> pa.Schema:
    """The columns of ItemFeatures; each window is two columns, ``n_7d`` and ``mean_7d``."""
    windows = [field for name in WINDOWS_S for field in ((f"n_{name}", pa.int64()), (f"mean_{name}", pa.float64()))]
    return pa.schema([("movie_id", pa.int64()), *map(_field, _ITEM_COLUMNS), *windows])


def item_table(features: ItemFeatures) -> pa.Table:
    columns = [features.movie_id, *(_column(getattr(features, name)) for name in _ITEM_COLUMNS)]
    for name in WINDOWS_S:
        columns += [features.window_n[name], _column(features.window_mean[name])]
    return pa.table(columns, schema=item_schema())


def item_features_of(table: pa.Table, as_of: int) -> ItemFeatures:
    """The inverse of :func:`item_table`."""
    return ItemFeatures(
        movie_id=_numbers(table["movie_id"]),
        known=np.ones(len(table), bool),
        **{name: _numbers(table[name]) for name in _ITEM_COLUMNS},
        window_n={name: _numbers(table[f"n_{name}"]) for name in WINDOWS_S},
        window_mean={name: _numbers(table[f"mean_{name}"]) for name in WINDOWS_S},
        as_of=as_of,
    )


def movies_schema() -> pa.Schema:
    """Every movie of the catalogue, rated or not; ``year`` is null where the title names none."""
    return pa.schema(
        [("movie_id", pa.int64()), ("title", pa.string()), ("year", pa.int32()), ("genres", pa.list_(pa.string()))]
    )


def movies_table(catalogue: Catalogue) -> pa.Table:
    rows = [(m.movie_id, m.title, m.year, list(m.genres)) for m in catalogue.movies.values()]
    columns = zip(*rows, strict=True) if rows else ((),) * 4
    return pa.table([list(column) for column in columns], schema=movies_schema())


def movies_of(table: pa.Table) -> Catalogue:
    """The inverse of :func:`movies_table`."""
    rows = zip(*(table[name].to_pylist() for name in ("movie_id", "title", "year", "genres")), strict=True)
    return Catalogue(Movie(movie_id, title, year, tuple(genres)) for movie_id, title, year, genres in rows)


def _field(name: str) -> tuple[str, pa.DataType]:
    return (name, pa.float64() if name in _FLOATS else pa.int64())


def _column(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=values.dtype.kind == "f")


def _empty_lists(n: int) -> pa.Array:
    return pa.array([[]] * n, _EMPTY_LIST)


def _numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The values as a writable array; null as NaN."""
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.array(flat.to_numpy(zero_copy_only=False))

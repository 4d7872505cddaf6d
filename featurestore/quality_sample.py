"""The sample of users and movies that feature quality is measured on, and the baseline that it is compared with.

Which users and movies: those of the lowest hashes, so the sample is the same in every process and changes only as new
ones come. The baseline is read as of the end of the training part, so it does not depend on when it was taken; it is
kept with the store, for a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import msgspec
import numpy as np
import structlog

from featurestore.decay import Float64s
from featurestore.quality import Histogram, histogram, item_columns, user_columns
from featurestore.reader import FeatureReader
from streams.errors import StoreError, StoreUnavailable

__all__ = ["SAMPLED_MOVIES", "SAMPLED_USERS", "baseline_of", "sample"]

SAMPLED_USERS = 2_000
SAMPLED_MOVIES = 500

_USERS_PER_READ = 100
_MOVIES_PER_READ = 10
"""Half a millisecond each, a transaction of its own: a long one would keep the write-ahead log from being emptied."""

_FORMAT = 1
_NOTE = "baseline"

log = structlog.get_logger(__name__)


class _Baseline(msgspec.Struct, frozen=True):
    """What is kept: histograms by feature, and the store, log and event time that they are of."""

    store_id: str
    log_id: str
    training_end: int
    features: dict[str, Histogram]
    format: int = _FORMAT


def sample(
    reader: FeatureReader, as_of: int | None = None, *, after_read: Callable[[], None] | None = None
) -> dict[str, Float64s]:
    """The watched features of the sample, now or as of an event time: columns (n,), by name; none of an empty store.

    after_read: called after each of many short reads, to give way to others.
    """
    users = reader.sample_users(SAMPLED_USERS, before=as_of)
    movies = reader.sample_movies(SAMPLED_MOVIES, before=as_of)
    parts = []
    for part in chain(
        (user_columns(reader.get_user_features(ids, as_of)) for ids in _pages(users, _USERS_PER_READ)),
        (item_columns(reader.get_item_features(ids, as_of)) for ids in _pages(movies, _MOVIES_PER_READ)),
    ):
        parts.append(part)
        if after_read is not None:
            after_read()
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}


def _pages(ids: list[int], size: int) -> Iterator[list[int]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))


def baseline_of(
    reader: FeatureReader, training_end: int | None, *, after_read: Callable[[], None] | None = None
) -> dict[str, Histogram] | None:
    """Histograms of the features as of ``training_end``: those kept, else taken now and kept there.

    None while the store has not got there, or where there is no training part. A baseline of another store, log or
    training part is replaced; one that cannot be read or written costs a warning, and taking it again.
    """
    if training_end is None or reader.clock() < training_end:
        return None
    log_id = next((row.log_id for row in reader.applied()), "")
    kept = _read(reader)
    if kept is not None and (kept.store_id, kept.log_id, kept.training_end) == (reader.store_id, log_id, training_end):
        return kept.features
    features = {name: histogram(values) for name, values in sample(reader, training_end, after_read=after_read).items()}
    _write(reader, _Baseline(reader.store_id, log_id, training_end, features))
    return features


def _read(reader: FeatureReader) -> _Baseline | None:
    try:
        found = reader.database.read_note(_NOTE)
        kept = None if found is None else msgspec.json.decode(found, type=_Baseline)
    except (StoreUnavailable, msgspec.DecodeError) as error:
        log.warning("baseline of the feature quality cannot be read, taken again", error=str(error))
        return None
    return kept if kept is not None and kept.format == _FORMAT else None


def _write(reader: FeatureReader, baseline: _Baseline) -> None:
    try:
        reader.database.write_note(_NOTE, msgspec.json.encode(baseline))
    except StoreError as error:
        log.warning("baseline of the feature quality cannot be kept", error=str(error))

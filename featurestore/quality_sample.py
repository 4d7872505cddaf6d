"""The sample of users and movies that feature quality is measured on, and the baseline that it is compared with.

Which users and movies: those of the lowest hashes, so the sample is the same in every process and changes only as new
ones come. The baseline is read as of the end of the training part, so it does not depend on when it was taken; it is
kept in a file beside the store, for a restart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import structlog

from featurestore.decay import Float64s
from featurestore.quality import Histogram, histogram, item_columns, user_columns
from featurestore.reader import FeatureReader

__all__ = ["SAMPLED_MOVIES", "SAMPLED_USERS", "baseline_of", "baseline_path", "sample"]

SAMPLED_USERS = 2_000
SAMPLED_MOVIES = 500

_USERS_PER_READ = 100
_MOVIES_PER_READ = 10
"""Half a millisecond each, a transaction of its own: a long one would keep the write-ahead log from being emptied."""

_FORMAT = 1

log = structlog.get_logger(__name__)


class _Baseline(msgspec.Struct, frozen=True):
    """The file: histograms by feature, and the store, log and event time that they are of."""

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


def baseline_path(store: Path) -> Path:
    """Where the baseline of the store in the file ``store`` is kept."""
    return store.with_name(f"{store.stem}.baseline.json")


def baseline_of(
    reader: FeatureReader, training_end: int | None, *, after_read: Callable[[], None] | None = None
) -> dict[str, Histogram] | None:
    """Histograms of the features as of ``training_end``: those on disk, else taken now and kept there.

    None while the store has not got there, or where there is no training part. A baseline of another store, log or
    training part is replaced; a file that cannot be read or written costs a warning, and taking it again.
    """
    if training_end is None or reader.clock() < training_end:
        return None
    log_id = next((row.log_id for row in reader.applied()), "")
    path = baseline_path(reader.path)
    kept = _read(path)
    if kept is not None and (kept.store_id, kept.log_id, kept.training_end) == (reader.store_id, log_id, training_end):
        return kept.features
    features = {name: histogram(values) for name, values in sample(reader, training_end, after_read=after_read).items()}
    _write(path, _Baseline(reader.store_id, log_id, training_end, features))
    return features


def _read(path: Path) -> _Baseline | None:
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Baseline)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("baseline of the feature quality cannot be read, taken again", file=str(path), error=str(error))
        return None
    return kept if kept.format == _FORMAT else None


def _write(path: Path, baseline: _Baseline) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        draft.write_bytes(msgspec.json.encode(baseline))
        draft.replace(path)
    except OSError as error:
        log.warning("baseline of the feature quality cannot be kept", file=str(path), error=str(error))
        with suppress(OSError):
            draft.unlink(missing_ok=True)

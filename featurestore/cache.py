"""A cache before the feature reader: user profiles, and popular lists that are worked out once for every length.

An entry belongs to one state of one store: its key holds the store's id, the model version and how far every
partition is applied. Value and offsets are read in one snapshot. So an entry is never wrong after an update, it is
only never asked for again; and a cache that is gone, locked, full or damaged costs speed and nothing else.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from featurestore.disk_cache import SIZE_LIMIT_BYTES, DiskCache
from featurestore.features import History, PopularItem, UserFeatures
from featurestore.reader import FeatureReader
from streams.events import DAY_S

__all__ = ["LATEST_RATINGS", "CachedReader", "UserProfile"]

LATEST_RATINGS = 10
"""Ratings of a profile: the user's newest."""

PROFILE_TTL_S = 600.0
POPULAR_TTL_S = 3_600.0
"""Entries are right for as long as they can be found: a TTL only frees their place."""

_FORMAT = 1
"""Raised when an entry's shape or the meaning of a feature changes, so that old entries are not found."""

_LIST_LENGTH = 100
"""A popular list is worked out at least this long; shorter ones are its beginning."""

_Array = npt.NDArray[Any]
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class UserProfile:
    """One user: ``features`` of one row, and the ``latest`` ratings, at most LATEST_RATINGS, oldest first."""

    features: UserFeatures
    latest: History


class CachedReader:
    """Reads through a cache in ``folder``; every answer is what ``reader`` gives at the same offsets.

    folder: a folder of the cache's own, of one run; None for no cache. model_version: of the model an answer depends
    on, empty for none. Not thread-safe, as the reader; closing it leaves the reader open.
    """

    def __init__(
        self,
        reader: FeatureReader,
        folder: Path | None,
        *,
        model_version: str = "",
        size_limit_bytes: int = SIZE_LIMIT_BYTES,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.reader = reader
        self.model_version = model_version
        cached = folder is not None and reader.store_id
        self._cache = DiskCache(folder, size_limit_bytes=size_limit_bytes, wall_s=wall_s) if folder and cached else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def user_profile(self, user_id: int, as_of: int | None = None) -> UserProfile:
        """The user's features and latest ratings, now or as of an event time (of what came before it)."""
        return self._through(
            ("profile", user_id, as_of),
            lambda: self._read_profile(user_id, as_of),
            encode=lambda profile: [_encode_columns(profile.features), _encode_columns(profile.latest)],
            decode=lambda kept: UserProfile(_decode_columns(UserFeatures, kept[0]), _decode_columns(History, kept[1])),
            ttl_s=PROFILE_TTL_S,
        )

    def popular(self, window_s: int = 28 * DAY_S, as_of: int | None = None, k: int = 10) -> list[PopularItem]:
        """As :meth:`FeatureReader.popular`."""
        length = max(k, _LIST_LENGTH)
        return self._list(("popular", window_s, as_of, length), lambda: self.reader.popular(window_s, as_of, length), k)

    def popular_decayed(self, as_of: int | None = None, k: int = 10) -> list[PopularItem]:
        """As :meth:`FeatureReader.popular_decayed`."""
        length = max(k, _LIST_LENGTH)
        return self._list(("popular_decayed", as_of, length), lambda: self.reader.popular_decayed(as_of, length), k)

    def _list(self, what: tuple[object, ...], read: Callable[[], list[PopularItem]], k: int) -> list[PopularItem]:
        whole = self._through(
            what,
            read,
            encode=lambda items: [list(asdict(item).values()) for item in items],
            decode=lambda kept: [PopularItem(*row) for row in kept],
            ttl_s=POPULAR_TTL_S,
        )
        return whole[:k]

    def _read_profile(self, user_id: int, as_of: int | None) -> UserProfile:
        features = self.reader.get_user_features([user_id], as_of)
        history = self.reader.history(user_id, as_of)
        newest = slice(max(len(history) - LATEST_RATINGS, 0), None)
        return UserProfile(features, History(*(getattr(history, field.name)[newest] for field in fields(History))))

    def _through(
        self,
        what: tuple[object, ...],
        read: Callable[[], V],
        *,
        encode: Callable[[V], Any],
        decode: Callable[[Any], V],
        ttl_s: float,
    ) -> V:
        if self._cache is not None:
            found = self._cache.get(self._key(what), decode)
            if found is not None:
                return found
        with self.reader.snapshot():  # which ends before the cache is written: a slow disk shall hold up no checkpoint
            key, value = self._key(what), read()
        if self._cache is not None:
            self._cache.set(key, encode(value), ttl_s)
        return value

    def _key(self, what: tuple[object, ...]) -> str:
        """What is asked for, of which state of which store.

        Offsets alone would name the state, were it not for a power cut, after which store and log may have lost their
        end and get there again with other records: with another writer by then (``epoch``), at another time.
        """
        applied = sorted(
            (row.agent, row.topic, row.partition, row.log_id, row.epoch, row.next_offset, row.applied_ms)
            for row in self.reader.applied()
        )
        state = msgspec.json.encode([_FORMAT, self.reader.store_id, self.model_version, applied, what])
        return f"{what[0]}:{hashlib.sha256(state).hexdigest()}"


def _encode_columns(columns: object) -> dict[str, Any]:
    """A dataclass of arrays, numbers and texts as plain JSON, from which it comes back to the last bit."""
    return {field.name: _plain(getattr(columns, field.name)) for field in fields(columns)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    values = [None if v != v else v for v in value.ravel().tolist()]  # JSON knows no NaN
    return {"dtype": value.dtype.str, "shape": value.shape, "values": values}


def _decode_columns(kind: type[V], kept: dict[str, Any]) -> V:
    return kind(**{name: _from_plain(value) for name, value in kept.items()})


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        array: _Array = np.array(value["values"], np.dtype(value["dtype"])).reshape(value["shape"])
        return array
    return tuple(value) if isinstance(value, list) else value

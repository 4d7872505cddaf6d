"""Plain values on disk that nobody depends on: whatever befalls the files, a look-up finds nothing and goes on.

diskcache keeps them, in one SQLite database, as JSON. Pickle, which diskcache uses unless told otherwise, would run
whatever somebody wrote into the folder (CVE-2025-69872): a row that asks for it is damage here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import diskcache
import structlog
from diskcache.core import DBNAME, MODE_RAW

__all__ = ["SIZE_LIMIT_BYTES", "DiskCache"]

SIZE_LIMIT_BYTES = 64 << 20
"""When a cache holds more, what was stored longest ago leaves first."""

_LARGEST_VALUE_BYTES = 1 << 20
"""Values stay in the database, where the size limit counts them and a transaction guards them; none is larger."""

_PATIENCE_S = 0.05
"""How long a locked cache is waited for; computing anew takes no longer."""

_REST_S = 60.0
"""How long a cache that failed is left alone."""

_PASSES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")
_SETTINGS = {
    "eviction_policy": "least-recently-stored",  # reads write nothing then
    "size_limit": SIZE_LIMIT_BYTES,
    "disk_min_file_size": _LARGEST_VALUE_BYTES,
    "sqlite_mmap_size": 0,  # a mapped file that is cut short ends the process with SIGBUS
    "sqlite_cache_size": 2_000,
}

V = TypeVar("V")

log = structlog.get_logger(__name__)


class _Damaged(Exception):
    """What is stored is not what this program writes."""


class _OnlyJson(diskcache.JSONDisk):
    """JSONDisk writes JSON, and still unpickles a row that says it is a pickle."""

    def get(self, key: Any, raw: bool) -> Any:
        if not raw:
            raise _Damaged("a pickled key")
        return super().get(key, raw)  # type: ignore[no-untyped-call]

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode != MODE_RAW or filename is not None:
            raise _Damaged("an entry that is not JSON in the database")
        return super().fetch(mode, filename, value, read)  # type: ignore[no-untyped-call]


class DiskCache:
    """Values of JSON by key in ``folder``, which belongs to the cache alone: where it is damaged, it is thrown away.

    Not thread-safe: one per thread; any number of processes may share the folder. No method raises: what fails is
    logged, once, as information, since no answer depends on it; then the cache is left alone for a minute.
    ``wall_s``: by which entries expire.
    """

    def __init__(
        self,
        folder: Path,
        *,
        size_limit_bytes: int = SIZE_LIMIT_BYTES,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self._settings = _SETTINGS | {"size_limit": size_limit_bytes}
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s
        self._rests_until = 0.0
        self._warned = False
        self._cache: diskcache.Cache | None = None

    def get(self, key: str, decode: Callable[[Any], V]) -> V | None:
        """The value of ``key``, decoded; None where there is none that is whole and has not expired."""
        try:
            if (cache := self._opened()) is None or (entry := cache.get(key)) is None:
                return None
            kept_key, stored_s, ttl_s, value = entry
            if kept_key != key:
                raise _Damaged(f"the entry of {kept_key!r} under the key {key!r}")
            if not 0 <= self._wall_s() - stored_s < ttl_s:  # a clock that was set back makes nothing younger
                return None
            return decode(value)
        except Exception as error:  # whatever the files hold now: the answer is in the store
            self._failed(error)
            return None

    def set(self, key: str, value: Any, ttl_s: float) -> None:
        """Keep ``value``, plain JSON without NaN, for ``ttl_s`` seconds of wall time, or until room is needed."""
        try:
            if (cache := self._opened()) is not None:
                # The key is part of the value: pages of a damaged file may be another entry's.
                cache.set(key, [key, self._wall_s(), ttl_s, value], expire=ttl_s)
        except Exception as error:  # the answer was given from the store already
            self._failed(error)

    def close(self) -> None:
        with suppress(Exception):
            if self._cache is not None:
                self._cache.close()
        self._cache = None

    def _opened(self) -> diskcache.Cache | None:
        if self._cache is None and self._monotonic_s() >= self._rests_until:
            database = self.folder / DBNAME
            if database.exists():
                _look_into(database)
            self._cache = diskcache.Cache(str(self.folder), timeout=_PATIENCE_S, disk=_OnlyJson, **self._settings)
        return self._cache

    def _failed(self, error: Exception) -> None:
        damaged = not _passes(error)
        if not self._warned:
            self._warned = True
            done = "thrown away, begun anew in a minute" if damaged else "left alone for a minute"
            log.info(f"cache {done}; answers come from the store", folder=str(self.folder), error=repr(error))
        self.close()
        self._rests_until = self._monotonic_s() + _REST_S
        if damaged:
            self._throw_away()

    def _throw_away(self) -> None:
        """In one step, for other processes may be about to open it: half of it would be worse than none."""
        with suppress(OSError):
            rubbish = self.folder.with_name(f"{self.folder.name}.damaged-{os.getpid()}-{secrets.token_hex(4)}")
            self.folder.rename(rubbish)
            shutil.rmtree(rubbish, ignore_errors=True)


def _look_into(database: Path) -> None:
    """Raise what is wrong with it at once: diskcache would try a locked database again for a minute."""
    with closing(sqlite3.connect(database, timeout=_PATIENCE_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("ROLLBACK")


def _passes(error: Exception) -> bool:
    """True if the files are sound, only not to be used for now."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorname", "").startswith(_PASSES)
    return isinstance(error, OSError | diskcache.Timeout)

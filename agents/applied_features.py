"""The feature store as the loop reads it: how far it is applied, and what users had rated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from featurestore.reader import FeatureReader, LoggedHistories
from streams.errors import StoreError, StoreMissing, StoreUnavailable
from streams.events import RATINGS

__all__ = ["Features"]

_AGENT = "features"
_REOPEN_S = 1.0


class Features:
    """The feature store as the loop reads it; opened once it is there, and anew where it was replaced. Not thread-safe.

    monotonic_s: a clock that only rises.
    """

    def __init__(self, store_url: str, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._url = store_url
        self._monotonic_s = monotonic_s
        self._reader: FeatureReader | None = None
        self._applied: dict[int, int] = {}
        self._changed_at = 0.0

    def applied(self) -> Mapping[int, int]:
        """The offset up to which each partition is applied; none where there is no store."""
        try:
            self._reader = self._reader or FeatureReader(self._url)
            rows = self._reader.database.rows(
                "SELECT partition, next_offset FROM applied WHERE agent = ? AND topic = ?", _AGENT, RATINGS
            )
        except (StoreMissing, StoreUnavailable):
            self.close()
            return {}
        found, now = {partition: int(offset) for partition, offset in rows}, self._monotonic_s()
        if found != self._applied:
            self._applied, self._changed_at = found, now
        elif now - self._changed_at > _REOPEN_S:  # SQLite goes on reading a file that was deleted
            self._changed_at = now
            self.close()
        return found

    def histories(self, user_ids: Sequence[int], partition: int) -> LoggedHistories:
        """See :meth:`FeatureReader.logged_histories`. Raises StoreUnavailable where there is no store any more."""
        try:
            self._reader = self._reader or FeatureReader(self._url)
            return self._reader.logged_histories(user_ids, partition)
        except StoreError as error:
            self.close()
            raise StoreUnavailable(str(error)) from error

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

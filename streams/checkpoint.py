"""Moving the write-ahead log into the database file, beside the appends rather than in their way."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from streams.errors import BusError, BusUnavailable
from streams.log_schema import MAX_WAL_BYTES, REPAIR, connect
from streams.sqlite import sqlite_errors

__all__ = ["Checkpointer"]

_EVERY_BYTES = MAX_WAL_BYTES // 4
_COMMIT_BYTES = 4 * 4096
"""About what a commit adds to the write-ahead log beside its records: whole pages."""

_log = logging.getLogger(__name__)


class Checkpointer:
    """A thread that checkpoints the log at ``path`` after each 16 MiB appended by this process.

    While others write, a checkpoint never quite reaches the end of the write-ahead log, which then never begins anew;
    ``overgrown`` asks the appending thread to see to that, between two appends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._appended = 0
        self._wake = threading.Condition()
        self._wanted = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self.overgrown = False

    def appended(self, n_bytes: int) -> None:
        """Count what one commit appended."""
        self._appended += n_bytes + _COMMIT_BYTES
        if self._appended < _EVERY_BYTES:
            return
        self._appended = 0
        with self._wake:
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bus-checkpoint", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        """End the thread, after the checkpoint under way."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._wanted and not self._closing:
                    self._wake.wait()
                if self._closing:
                    return
                self._wanted = False
            try:
                self.overgrown = self._checkpoint() > MAX_WAL_BYTES
            except BusError as error:
                # Nothing is lost, the write-ahead log grows; the append that finds no room for it will say so.
                _log.warning("checkpoint failed: %s", error)

    def _checkpoint(self) -> int:
        """How many bytes the write-ahead log holds."""
        what = f"bus {self._path}"
        with sqlite_errors(what, unavailable=BusUnavailable, broken=BusError, repair=REPAIR):
            connection = connect(self._path, busy_timeout_s=1.0)
            try:
                (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
                _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                connection.close()
        return max(0, int(frames)) * int(page_bytes)

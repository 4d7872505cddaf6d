"""How far monitors and trainer are, as whoever steps in time with them reads it from their stores."""

from __future__ import annotations

from contextlib import closing, suppress

from sqlalchemy import MetaData, Table

from agents.alignment import Progress
from agents.jobs import FINAL
from featurestore.database import Database, open_tables, url_beside
from streams.errors import StoreError, StoreMissing, StoreUnavailable

__all__ = ["ProgressReader", "read_progress"]


def _tables(*names: str) -> MetaData:
    found = MetaData()
    for name in names:
        Table(name, found)
    return found


_MONITORS, _TRAINER = _tables("monitor", "requests"), _tables("jobs")


def read_progress(store_url: str) -> Progress:
    """Of the monitors and the trainer beside the store, as :class:`ProgressReader` has it."""
    with closing(ProgressReader(store_url)) as reader:
        return reader.read()


class ProgressReader:
    """Monitors and trainer beside the store at ``store_url``; what has no store, or one that is just being made, has
    done nothing. One that did not change costs no query. Not thread-safe.
    """

    def __init__(self, store_url: str) -> None:
        self._monitors = _Beside(store_url, "monitors", _MONITORS)
        self._trainer = _Beside(store_url, "trainer", _TRAINER)
        self._seen: tuple[int | None, int | None] = (None, None)
        self._found = Progress()

    def read(self) -> Progress:
        """Raises StoreUnavailable where one cannot be read for now."""
        try:
            seen = (self._monitors.changes(), self._trainer.changes())  # before the reads: what comes later is new
            if None in seen or seen != self._seen:
                self._found, self._seen = self._read(), seen
        except BaseException:
            self.close()
            raise
        return self._found

    def _read(self) -> Progress:
        # Requests first: an answer that is read later may be newer, a request may not.
        closed: int | None = None
        requests: list[tuple[str, int]] = []
        if (monitors := self._monitors.database) is not None:
            with monitors.snapshot():
                rows = monitors.rows("SELECT closed FROM monitor")
                closed = int(rows[0][0]) if rows else None
                requests = monitors.rows("SELECT id, due FROM requests")
        jobs: list[tuple[str, str, int, str, str]] = []
        if (trainer := self._trainer.database) is not None:
            jobs = trainer.rows("SELECT id, kind, due, state, reason FROM jobs")
        final = {job_id for job_id, _, _, state, _ in jobs if state in FINAL}
        initial, reason = next(((state, why) for _, kind, _, state, why in jobs if kind == "initial"), (None, ""))
        due = {request_id: due for request_id, due in requests if request_id not in final}
        due |= {job_id: due for job_id, kind, due, state, _ in jobs if kind != "initial" and state not in FINAL}
        asked = min(due, key=lambda request_id: (due[request_id], request_id), default="")
        return Progress(closed, initial, due.get(asked), asked, reason)

    def close(self) -> None:
        self._monitors.close()
        self._trainer.close()
        self._seen = (None, None)


class _Beside:
    """Another agent's store, opened once it is there, and anew where it was."""

    def __init__(self, store_url: str, name: str, tables: MetaData) -> None:
        self._url = url_beside(store_url, name)
        self._name = name
        self._tables = tables
        self.database: Database | None = None

    def changes(self) -> int | None:
        """None where it was opened just now, is not there, or cannot tell."""
        if self.database is not None:
            try:
                return self.database.changes()
            except StoreUnavailable:
                raise
            except StoreError:  # removed, or replaced by another
                self.close()
        with suppress(StoreMissing):
            missing = StoreMissing(f"{self._name}: not there yet")
            self.database = open_tables(
                self._url, self._tables, what=self._name, repair="start its worker", missing=missing
            )
            self.database.hold_identity()
        return None

    def close(self) -> None:
        if self.database is not None:
            self.database.close()
            self.database = None

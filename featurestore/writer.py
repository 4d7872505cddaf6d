"""Writing features with exactly-once effect: views, outgoing records and applied offsets change in one transaction.

The transaction begins with an update of the applied offset that names the writer's own epoch and the offset it
expects. A writer that was replaced, or whose memory is not what the store holds, changes no row and is refused.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Self

import msgspec

from featurestore.aggregate import Accepted, Cursor, accept
from featurestore.catalogue import Catalogue
from featurestore.sqlite import connect_writer, database_path, read_catalogue, store_errors
from featurestore.view_settings import ViewSettings
from featurestore.views import Views
from streams.batch import InvalidRecord, RatingBatch
from streams.bus import OffsetRange, TopicInfo
from streams.errors import ConfigError, LogReplaced, StoreAheadOfLog, StoreError, StoreUnavailable, WriterFenced
from streams.events import DEADLETTER
from streams.records import TopicPartition
from streams.sqlite import transaction

__all__ = ["AppliedBatch", "FeatureWriter", "OutboxRow"]

_OUTBOX_BYTES = 8 << 20
"""What one look at the outbox takes into memory, or a little more: dead letters may be large."""

_REBUILD = "`streamlens worker --rebuild` recomputes the store from the log"


class OutboxRow(NamedTuple):
    """A record to publish; ``id`` orders the rows."""

    id: int
    topic: str
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """What one transaction did: how many ratings counted, were duplicate, late (and counted), and invalid."""

    ratings: int
    duplicates: int
    late: int
    invalid: int


class FeatureWriter:
    """The one writer of an agent's features for the partitions it holds.

    Not thread-safe: one thread at a time. ``wall_ms`` gives the wall time in milliseconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        agent: str,
        topic: str,
        run_id: str = "",
        views: ViewSettings | None = None,
        catalogue: Catalogue | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.path = database_path(url)
        self.agent = agent
        self.topic = topic
        self.run_id = run_id
        self.views = views or ViewSettings()
        self._wall_ms = wall_ms
        self._cursors: dict[int, Cursor] = {}
        self._epochs: dict[int, int] = {}
        self._connection = connect_writer(self.path, self.views, catalogue or Catalogue())
        try:
            self._inode = self.path.stat().st_ino
            self._check_settings()
            self.catalogue = self._check_catalogue(catalogue)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def _check_settings(self) -> None:
        """A store is built with one lateness bound, one session gap and so on: other ones would give other views."""
        with store_errors(self.path):
            for key, value in self.views.as_meta().items():
                (kept,) = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
                if kept != value:
                    raise ConfigError(
                        f"feature store {self.path}: built with {key} = {kept}, asked for {value}; "
                        f"set {key} = {kept}, or {_REBUILD}"
                    )

    def _check_catalogue(self, given: Catalogue | None) -> Catalogue:
        """The movies the store was built with, which are those ``given``."""
        with store_errors(self.path):
            (kept,) = self._connection.execute("SELECT value FROM meta WHERE key = 'catalogue'").fetchone()
            if given is None:
                return read_catalogue(self._connection)
            if given.fingerprint == kept:
                return given
        raise ConfigError(
            f"feature store {self.path}: built with other movies (titles, years or genres) than the dataset has now; "
            f"restore the dataset, or {_REBUILD}"
        )

    # Taking partitions over

    def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from.

        Raises LogReplaced when the log is not the one the store was built from, StoreAheadOfLog when it ends before
        what the store has applied; nothing is changed then.
        """
        with store_errors(self.path), transaction(self._connection) as connection:
            taken = [self._take_over(connection, log, tp, held) for tp, held in ranges.items()]
        for epoch, cursor in taken:
            self._epochs[cursor.partition], self._cursors[cursor.partition] = epoch, cursor
        return {tp: self._cursors[tp.partition].next_offset for tp in ranges}

    def _take_over(
        self, connection: sqlite3.Connection, log: TopicInfo, tp: TopicPartition, held: OffsetRange
    ) -> tuple[int, Cursor]:
        where = (self.agent, self.topic, tp.partition)
        row = connection.execute(
            "INSERT INTO applied (agent, topic, partition, log_id, epoch) VALUES (?, ?, ?, ?, 1)"
            " ON CONFLICT DO UPDATE SET epoch = epoch + 1"
            " RETURNING log_id, epoch, next_offset, clock, closed, end_of_run,"
            " ratings, duplicates, late, invalid, emitted, published_ms",
            (*where, log.log_id),
        ).fetchone()
        log_id, epoch, next_offset, clock, closed, end_of_run, *counters = row
        if log_id != log.log_id:
            raise LogReplaced(
                f"feature store {self.path}: built from log {log_id} of topic {self.topic}, found log {log.log_id}; "
                f"if the new log is right, {_REBUILD}"
            )
        if next_offset > held.end:
            raise StoreAheadOfLog(
                f"feature store {self.path}: applied {self.topic}/{tp.partition} up to offset {next_offset}, "
                f"but the log ends at {held.end}; {_REBUILD}"
            )
        ids = connection.execute(
            "SELECT source, event_id FROM sources WHERE agent = ? AND topic = ? AND partition = ?", where
        )
        ratings, duplicates, late, invalid, emitted, published_ms = counters
        cursor = Cursor(
            partition=tp.partition,
            next_offset=next_offset,
            clock=clock,
            closed=closed,
            end_of_run=bool(end_of_run),
            ratings=ratings,
            duplicates=duplicates,
            late=late,
            invalid=invalid,
            emitted=emitted,
            published_ms=published_ms,
            last_ids=dict(ids.fetchall()),
        )
        return epoch, cursor

    def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions: they are others' now, who go on from the applied offsets."""
        gone = set(partitions)  # others read the cursors meanwhile: new ones, not these changed
        self._cursors = {p: cursor for p, cursor in self._cursors.items() if p not in gone}
        self._epochs = {p: epoch for p, epoch in self._epochs.items() if p not in gone}

    @property
    def cursors(self) -> dict[int, Cursor]:
        """How far each held partition is applied."""
        return dict(self._cursors)

    # Applying

    def apply(self, batches: Sequence[RatingBatch]) -> AppliedBatch:
        """Apply batches in one transaction; what is already applied is skipped, and so are partitions not held.

        Raises WriterFenced when another writer has taken over, StoreUnavailable when the store cannot be written for
        now; then nothing has changed and the same call may be made again.
        """
        self._check_file()
        cursors = dict(self._cursors)
        parts: list[Accepted] = []
        letters: list[tuple[bytes, bytes]] = []
        for batch in batches:
            if (before := cursors.get(batch.partition)) is None:
                continue  # released while the batch was on its way
            accepted, after, invalid = accept(batch, before, lateness_s=self.views.lateness_s)
            cursors[batch.partition] = after
            parts.append(accepted)
            letters += self._dead_letters(batch, before, invalid)
        changed = [p for p, cursor in cursors.items() if cursor is not self._cursors[p]]
        before_all = [self._cursors[p] for p in changed]
        if changed:
            ratings = Accepted.concat(parts)
            views = Views.of(ratings, self.views, self.catalogue) if len(ratings) else None
            with store_errors(self.path), transaction(self._connection) as connection:
                self._move_cursors(connection, [cursors[p] for p in changed], _sources(batches))
                if views is not None:
                    views.write(connection, self.views.session_gap_s)
                rows = [(self.agent, DEADLETTER, key, value) for key, value in letters]
                connection.executemany("INSERT INTO outbox (agent, topic, record_key, value) VALUES (?, ?, ?, ?)", rows)
            self._cursors = cursors
        return _difference(before_all, [cursors[p] for p in changed])

    def _check_file(self) -> None:
        """SQLite goes on writing to a file that was deleted or replaced, where nobody would ever read it."""
        try:
            if self.path.stat().st_ino == self._inode:
                return
        except FileNotFoundError:
            pass
        except OSError as error:  # not a record's doing: waited out, and nothing is dead-lettered for it
            raise StoreUnavailable(f"feature store {self.path}: cannot be looked at ({error})") from error
        raise StoreError(
            f"feature store {self.path}: the file was removed or replaced while in use; "
            "start the worker again: it rebuilds what is missing from the log"
        )

    def _dead_letters(
        self, batch: RatingBatch, before: Cursor, invalid: Iterable[InvalidRecord]
    ) -> list[tuple[bytes, bytes]]:
        source = f"{self.run_id}/{self.agent}/{batch.topic}/{batch.partition}"
        letters = []
        for event_id, record in enumerate(invalid, before.emitted + 1):
            letter = msgspec.structs.replace(
                record.dead_letter(batch.topic, batch.partition), source=source, event_id=event_id
            )
            key = f"{batch.topic}/{batch.partition}/{record.offset}".encode()
            letters.append((key, msgspec.json.encode(letter)))
        return letters

    def _move_cursors(
        self, connection: sqlite3.Connection, cursors: list[Cursor], sources: Mapping[int, set[str]]
    ) -> None:
        """sources: by partition, whose last ids may have moved; of others there may be one per dead letter replayed."""
        now_ms = self._wall_ms()
        for after in cursors:
            before = self._cursors[after.partition]
            epoch = self._epochs[after.partition]
            moved = connection.execute(
                "UPDATE applied SET next_offset = ?, clock = ?, closed = ?, end_of_run = ?, ratings = ?,"
                " duplicates = ?, late = ?, invalid = ?, emitted = ?, published_ms = ?, applied_ms = ?"
                " WHERE agent = ? AND topic = ? AND partition = ? AND epoch = ? AND next_offset = ?",
                (
                    *(after.next_offset, after.clock, after.closed, after.end_of_run, after.ratings),
                    *(after.duplicates, after.late, after.invalid, after.emitted, after.published_ms, now_ms),
                    *(self.agent, self.topic, after.partition, epoch, before.next_offset),
                ),
            )
            if moved.rowcount != 1:
                raise WriterFenced(
                    f"feature store {self.path}: another worker took over {self.topic}/{after.partition} "
                    f"(this one held epoch {epoch} at offset {before.next_offset}); stop this worker"
                )
            connection.executemany(
                "INSERT INTO sources VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET event_id = excluded.event_id",
                [
                    (self.agent, self.topic, after.partition, source, after.last_ids[source])
                    for source in sources[after.partition]
                    if source in after.last_ids and before.last_ids.get(source) != after.last_ids[source]
                ],
            )

    # The outbox

    def outbox(self, limit: int = 1_000) -> list[OutboxRow]:
        """The oldest records that are still to be published; fewer than ``limit`` of them if they are large."""
        rows: list[OutboxRow] = []
        n_bytes = 0
        with store_errors(self.path):
            cursor = self._connection.execute(
                "SELECT id, topic, record_key, value FROM outbox WHERE agent = ? ORDER BY id LIMIT ?",
                (self.agent, limit),
            )
            with closing(cursor):
                for row in map(OutboxRow._make, cursor):
                    rows.append(row)
                    n_bytes += len(row.value)
                    if n_bytes >= _OUTBOX_BYTES:
                        break
        return rows

    def published(self, last_id: int) -> None:
        """Forget the outbox rows up to ``last_id``: the bus has acknowledged them."""
        with store_errors(self.path), transaction(self._connection) as connection:
            connection.execute("DELETE FROM outbox WHERE agent = ? AND id <= ?", (self.agent, last_id))


def _sources(batches: Iterable[RatingBatch]) -> dict[int, set[str]]:
    """The sources of the batches by partition."""
    found: dict[int, set[str]] = {}
    for batch in batches:
        found.setdefault(batch.partition, set()).update(batch.sources)
    return found


def _difference(before: list[Cursor], after: list[Cursor]) -> AppliedBatch:
    def gained(name: str) -> int:
        value = attrgetter(name)
        return int(sum(map(value, after)) - sum(map(value, before)))

    return AppliedBatch(gained("ratings"), gained("duplicates"), gained("late"), gained("invalid"))

"""Exactly-once effect: whatever an agent writes, and the offset up to which it has read, change in one transaction.

The transaction begins with an update of the applied offset that names the writer's own epoch and the offset it
expects. A writer that was replaced, or whose memory is not what the database holds, changes no row and is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn, Self

from featurestore.aggregate import Cursor
from featurestore.database import Database
from streams.bus import OffsetRange, TopicInfo
from streams.errors import LogReplaced, StoreAheadOfLog, StoreSetBack, WriterFenced
from streams.records import TopicPartition

__all__ = ["CommittedBefore", "OutboxRecord", "OutboxRow", "PartitionWriter"]

_OUTBOX_BYTES = 8 << 20
"""What one look at the outbox takes into memory, or a little more: dead letters may be large."""

_CURSOR_COLUMNS = tuple(f.name for f in fields(Cursor) if f.name not in ("partition", "last_ids"))

_OUTBOX_PAGE = 16
"""Rows read at a time: of large ones a few are too much."""


class OutboxRow(NamedTuple):
    """A record to publish; ``id`` orders the rows. partition: of the record that caused it."""

    id: int
    partition: int
    topic: str
    key: bytes | None
    value: bytes


class OutboxRecord(NamedTuple):
    """A record that a transaction leaves to be published. partition: of the record that caused it."""

    partition: int
    topic: str
    key: bytes
    value: bytes


class PartitionWriter:
    """The one writer of an agent's rows for the partitions of ``topic`` that it holds; its cursors and its outbox.

    The database has the tables ``applied``, ``sources`` and ``outbox`` of :mod:`featurestore.schema`. Not thread-safe:
    one thread at a time. rebuild: what to do about a database that does not fit the log, for messages. ``wall_ms``
    gives the wall time in milliseconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        *,
        agent: str,
        topic: str,
        rebuild: str,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.database = database
        self.agent = agent
        self.topic = topic
        self._rebuild = rebuild
        self._wall_ms = wall_ms
        self._cursors: dict[int, Cursor] = {}
        self._epochs: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    # Taking partitions over

    def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from.

        Raises LogReplaced when the log is not the one the store was built from, StoreAheadOfLog when it ends before
        what the store has applied; nothing is changed then.
        """
        with self.database.transaction(durable=True):
            taken = [self._take_over(log, tp, ranges[tp]) for tp in sorted(ranges, key=attrgetter("partition"))]
        for epoch, cursor in taken:
            self._epochs[cursor.partition], self._cursors[cursor.partition] = epoch, cursor
        return {tp: self._cursors[tp.partition].next_offset for tp in ranges}

    def _take_over(self, log: TopicInfo, tp: TopicPartition, held: OffsetRange) -> tuple[int, Cursor]:
        ((log_id, epoch),) = self.database.rows(
            "INSERT INTO applied (agent, topic, partition, log_id, epoch) VALUES (?, ?, ?, ?, 1)"
            " ON CONFLICT (agent, topic, partition) DO UPDATE SET epoch = applied.epoch + 1 RETURNING log_id, epoch",
            *(self.agent, self.topic, tp.partition, log.log_id),
        )
        cursor = self._stored_cursor(tp.partition, epoch)
        if log_id != log.log_id:
            raise LogReplaced(
                f"{self.database.label}: built from log {log_id} of topic {self.topic}, found log {log.log_id}; "
                f"if the new log is right, {self._rebuild}"
            )
        if cursor.next_offset > held.end:
            raise StoreAheadOfLog(
                f"{self.database.label}: applied {self.topic}/{tp.partition} up to offset {cursor.next_offset}, "
                f"but the log ends at {held.end}; {self._rebuild}"
            )
        return epoch, cursor

    def _stored_cursor(self, partition: int, epoch: int) -> Cursor:
        """How far the store is, within a transaction. Raises WriterFenced where another writer has taken over."""
        where = (self.agent, self.topic, partition)
        rows = self.database.rows(
            f"SELECT {', '.join(_CURSOR_COLUMNS)} FROM applied"
            " WHERE agent = ? AND topic = ? AND partition = ? AND epoch = ?",
            *(*where, epoch),
        )
        if not rows:
            self.release(self._epochs)  # what is rolled back with this write may be others' records
            raise WriterFenced(
                f"{self.database.label}: another worker took over {self.topic}/{partition} "
                f"(this one held epoch {epoch})"
            )
        ids = self.database.rows(
            "SELECT source, event_id FROM sources WHERE agent = ? AND topic = ? AND partition = ?", *where
        )
        stored: dict[str, Any] = dict(zip(_CURSOR_COLUMNS, rows[0], strict=True))
        stored["end_of_run"] = bool(stored["end_of_run"])
        return Cursor(partition, last_ids={source.decode(): event_id for source, event_id in ids}, **stored)

    def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions: they are others' now, who go on from the applied offsets."""
        gone = set(partitions)  # others read the cursors meanwhile: new ones, not these changed
        self._cursors = {p: cursor for p, cursor in self._cursors.items() if p not in gone}
        self._epochs = {p: epoch for p, epoch in self._epochs.items() if p not in gone}

    @property
    def cursors(self) -> dict[int, Cursor]:
        """How far each held partition is applied."""
        return dict(self._cursors)

    @property
    def ended(self) -> bool:
        """Whether every held partition is applied up to the end of the run; False where none is held."""
        return bool(self._cursors) and all(cursor.end_of_run for cursor in self._cursors.values())

    # Writing

    def commit(
        self,
        after: Mapping[int, Cursor],
        sources: Mapping[int, set[str]],
        write: Callable[[Database], None],
        records: Iterable[OutboxRecord] = (),
    ) -> bool:
        """In one transaction move the cursors to ``after``, ``write``, and leave ``records`` to be published.

        after: of all held partitions. sources: by partition, those whose last ids may have moved.
        False: nothing was written, since the database is further than this writer knew, by its own doing (the answer
        to a commit was lost with the connection); the cursors are right now, the step is to be worked out again.
        Raises WriterFenced when another writer has taken over, StoreSetBack when the database has lost what it held,
        and StoreUnavailable when it cannot be written for now; then nothing has changed either.
        """
        if any(after[p] is not self._cursors[p] for p in after):
            try:
                with self.database.transaction():
                    self.move(after, sources)
                    write(self.database)
                    self.leave(records)
            except CommittedBefore:
                self.reread()
                return False
        self.moved(after)
        return True

    def move(self, after: Mapping[int, Cursor], sources: Mapping[int, set[str]]) -> None:
        """Within a transaction of the caller's, who calls :meth:`moved` once it is over: move the cursors to ``after``.

        Raises what :meth:`commit` does, and CommittedBefore where that would return False: :meth:`reread` then.
        """
        changed = [after[p] for p in sorted(after) if after[p] is not self._cursors[p]]
        self._move_cursors(changed, sources)

    def moved(self, after: Mapping[int, Cursor]) -> None:
        """The transaction of :meth:`move` is committed."""
        self._cursors = dict(after)

    def reread(self) -> None:
        """Learn how far the database is. Raises WriterFenced where another writer has taken over."""
        with self.database.snapshot():
            self._cursors = {p: self._stored_cursor(p, epoch) for p, epoch in self._epochs.items()}

    def check_held(self) -> None:
        """Within a transaction: raise WriterFenced where another writer has taken one of the partitions over."""
        for partition, epoch in sorted(self._epochs.items()):
            self._stored_cursor(partition, epoch)

    def leave(self, records: Iterable[OutboxRecord]) -> None:
        """Within a transaction: leave records to be published."""
        rows = [(self.agent, *record) for record in records]
        if rows:
            self.database.execute_many(
                "INSERT INTO outbox (agent, partition, topic, record_key, value) VALUES (?, ?, ?, ?, ?)", rows
            )

    def _move_cursors(self, cursors: list[Cursor], sources: Mapping[int, set[str]]) -> None:
        """sources: by partition, whose last ids may have moved; of others there may be one per dead letter replayed.

        cursors: by rising partition, so that two writers that both believe to hold some wait for each other in order.
        """
        now_ms = self._wall_ms()
        for after in cursors:
            before, epoch = self._cursors[after.partition], self._epochs[after.partition]
            moved = self.database.execute(
                "UPDATE applied SET next_offset = ?, clock = ?, closed = ?, end_of_run = ?, ratings = ?,"
                " duplicates = ?, late = ?, invalid = ?, emitted = ?, published_ms = ?, applied_ms = ?"
                " WHERE agent = ? AND topic = ? AND partition = ? AND epoch = ? AND next_offset = ?",
                *(after.next_offset, after.clock, after.closed, after.end_of_run, after.ratings),
                *(after.duplicates, after.late, after.invalid, after.emitted, after.published_ms, now_ms),
                *(self.agent, self.topic, after.partition, epoch, before.next_offset),
            )
            if moved != 1:
                self._refuse(self._stored_cursor(after.partition, epoch))
            moved_ids = [
                (self.agent, self.topic, after.partition, *_source_key(source), after.last_ids[source])
                for source in sorted(sources[after.partition])
                if source in after.last_ids and before.last_ids.get(source) != after.last_ids[source]
            ]
            if moved_ids:
                self.database.execute_many(
                    "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (agent, topic, partition, digest) DO UPDATE SET event_id = excluded.event_id",
                    moved_ids,
                )

    def _refuse(self, stored: Cursor) -> NoReturn:
        """The epoch is this writer's own, so nobody else has moved the offset."""
        self._check_not_set_back(stored.partition, stored.next_offset)
        raise CommittedBefore

    def check(self) -> None:
        """Raise StoreSetBack where the store holds less than this writer has applied; it may have nothing to write
        that would show it. Partitions that another writer has taken over are no matter."""
        rows = self.database.rows(
            "SELECT partition, epoch, next_offset FROM applied WHERE agent = ? AND topic = ?", self.agent, self.topic
        )
        for partition, epoch, next_offset in rows:
            if self._epochs.get(partition) == epoch:
                self._check_not_set_back(partition, next_offset)

    def _check_not_set_back(self, partition: int, stored: int) -> None:
        """Of one partition that was set back, others may have been: all are released, to be taken over anew."""
        known = self._cursors[partition].next_offset
        if stored < known:
            self.release(self._epochs)
            raise StoreSetBack(
                f"{self.database.label}: expected {self.topic}/{partition} applied up to offset {known}, found "
                f"{stored}: the last transactions were lost in a crash of the server, or the store was restored; "
                "the log is read again from there"
            )

    # The outbox

    def outbox(self, limit: int = 1_000) -> list[OutboxRow]:
        """The oldest records of the held partitions that are still to be published; fewer than ``limit`` of them if
        they are large."""
        rows: list[OutboxRow] = []
        n_bytes = 0
        pages = self.database.pages(
            "SELECT id, partition, topic, record_key, value FROM outbox WHERE agent = ? AND partition = ANY(?)"
            " ORDER BY id LIMIT ?",
            *(self.agent, sorted(self._epochs), limit),
            size=_OUTBOX_PAGE,
        )
        with closing(pages):
            for page in pages:
                rows += map(OutboxRow._make, page)
                n_bytes += sum(len(row[-1]) for row in page)
                if n_bytes >= _OUTBOX_BYTES:
                    break
        return rows

    def published(self, rows: Iterable[OutboxRow]) -> None:
        """Forget ``rows``, which :meth:`outbox` gave: the bus has acknowledged them.

        A server that lost its last transactions gives their ids again: only rows of the same records are forgotten.
        """
        with self.database.transaction():
            self.database.execute_many(
                "DELETE FROM outbox WHERE agent = ? AND id = ? AND record_key = ?",
                [(self.agent, row.id, row.key) for row in rows],
            )


class CommittedBefore(Exception):
    """The database is further than this writer knows, by its own doing."""


def _source_key(source: str) -> tuple[bytes, bytes]:
    name = source.encode()
    return hashlib.sha256(name).digest()[:16], name

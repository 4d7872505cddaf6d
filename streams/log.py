"""The embedded log: topics, partitions, offsets and groups in one SQLite database, one row per record batch.

A batch is stored as Kafka stores it, so that its cost does not depend on how many records it holds. The write-ahead
log lets any number of processes read while one writes, and a commit is on the disk before it is acknowledged: no store
can get ahead of its log by a power cut. This module is synchronous; :mod:`streams.embedded` makes the bus of it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from streams.bus import OffsetRange, TopicInfo, TopicSpec
from streams.errors import BusError, BusUnavailable, OffsetOutOfRange, PartitionMismatch, UnknownTopic
from streams.log_schema import REPAIR, connect, prepare
from streams.records import RecordBatch, TopicPartition
from streams.sqlite import sqlite_errors, transaction
from streams.stored_batch import CorruptBatch, Pending, StoredBatch, decode, encode

__all__ = ["MAX_STORED_BYTES", "MAX_STORED_RECORDS", "EmbeddedLog"]

MAX_STORED_RECORDS = 10_000
"""Small appends are merged into stored batches of up to this many records: what one fetch takes."""

MAX_STORED_BYTES = 4 << 20
"""And of up to about this many bytes, so that a reader's memory is bounded by what it asks for."""

_EXPIRE_BATCHES = 500
_RESTART_WAIT_MS = 500

_READ = (
    'SELECT end_offset, count, published_ms, checksum, timestamps, "values", lengths, keys, key_lengths'
    " FROM record_batches WHERE topic = ? AND partition = ? AND end_offset > ? ORDER BY end_offset"
)
_INSERT = (
    "INSERT INTO record_batches (topic, partition, end_offset, count, published_ms, checksum, timestamps,"
    ' "values", lengths, keys, key_lengths) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)


class EmbeddedLog:
    """The log in the file ``path``, created if it is missing; None: a log in memory, gone when closed.

    Thread-safe: one thread writes at a time, and one reads. Calls raise BusUnavailable for what may pass (locked, disk
    full, not writable) and BusError for what will not (another kind of file, corruption).
    """

    def __init__(self, path: Path | None, *, busy_timeout_s: float = 30.0) -> None:
        self.path = path
        self.name = "memory" if path is None else str(path)
        self._busy_timeout_ms = int(busy_timeout_s * 1_000)
        self.held_groups: set[str] = set()
        """Groups with a live member, of a log in memory; for a file they are OS locks."""
        self._changes = 0
        self._listeners: set[Callable[[], None]] = set()
        self._write_lock = threading.RLock()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BusUnavailable(f"bus {path}: its folder cannot be made ({error})") from error
        with self._errors(), ExitStack() as opened:
            self._writer = opened.enter_context(closing(connect(path, busy_timeout_s)))
            prepare(self._writer, path, busy_timeout_s)
            if path is None:
                self._reader, self._read_lock = self._writer, self._write_lock
            else:
                self._reader = opened.enter_context(closing(connect(path, busy_timeout_s)))
                self._read_lock = threading.RLock()
            opened.pop_all()
        self._file_id = self._find_file()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with sqlite_errors(f"bus {self.name}", unavailable=BusUnavailable, broken=BusError, repair=REPAIR):
            yield

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, self._errors():
            self.check_in_place()
            with transaction(self._writer) as connection:
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._errors():
            yield self._reader

    def close(self) -> None:
        """Close the log, after the calls under way; the last one of a file empties its write-ahead log into it."""
        with self._write_lock, self._read_lock, self._errors():
            self._reader.close()
            self._writer.close()

    def _find_file(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def check_in_place(self) -> None:
        """Raise BusError if the file was removed or replaced: what is written now would never be found again."""
        if self._find_file() != self._file_id:
            raise BusError(f"bus {self.name}: the file was removed or replaced while in use; start again")

    # Changes

    def version(self) -> int:
        """A number that changes when another connection, in whatever process, has committed something."""
        if self.path is None:
            return self._changes
        with self._reading() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each append made through this object, in the thread that made it."""
        with self._write_lock:
            self._listeners.add(callback)

    def unlisten(self, callback: Callable[[], None]) -> None:
        """End :meth:`listen`."""
        with self._write_lock:
            self._listeners.discard(callback)

    # Topics

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """Create what is missing, all or nothing. Raises PartitionMismatch."""
        specs = list(specs)
        with self._reading() as connection:
            missing = self._missing(connection, specs)
        if not missing:
            return
        with self._writing() as connection:
            for spec in self._missing(connection, specs):
                row = (spec.name, spec.partitions, spec.retention_ms, uuid.uuid4().hex)
                connection.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?, ?)", row)
                rows = [(spec.name, partition) for partition in range(spec.partitions)]
                connection.executemany("INSERT OR IGNORE INTO partitions VALUES (?, ?, 0, 0)", rows)

    def _missing(self, connection: sqlite3.Connection, specs: Iterable[TopicSpec]) -> list[TopicSpec]:
        counts: dict[str, int] = dict(connection.execute("SELECT name, partitions FROM topics").fetchall())
        missing = []
        for spec in specs:
            if spec.name not in counts:
                missing.append(spec)
            found = counts.setdefault(spec.name, spec.partitions)
            if found != spec.partitions:
                raise PartitionMismatch(
                    f"topic {spec.name!r} on bus {self.name}: expected {spec.partitions} partitions, found {found}; "
                    f"the count is fixed for life, so ask for {found} or start a new run"
                )
        return missing

    def topics(self) -> dict[str, TopicInfo]:
        """All topics by name."""
        with self._reading() as connection:
            rows = connection.execute("SELECT name, partitions, retention_ms, log_id FROM topics ORDER BY name")
            return {row[0]: TopicInfo(*row) for row in rows}

    def topic(self, name: str) -> TopicInfo:
        """One topic. Raises UnknownTopic."""
        known = self.topics()
        if name not in known:
            has = ", ".join(known) or "none"
            raise UnknownTopic(f"bus {self.name}: expected an existing topic, found {name!r}; the log has {has}")
        return known[name]

    def offsets(self, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
        """Log start and high-water mark of every partition of ``topics``."""
        with self._reading() as connection:
            return _ranges(connection, topics)

    # Records

    def append(self, pending: Mapping[TopicPartition, Sequence[Pending]]) -> dict[TopicPartition, int]:
        """Append to each partition in order, all or nothing; returns the offset of the first record of each.

        Small parts are merged into stored batches. Durable on return.
        """
        first: dict[TopicPartition, int] = {}
        with self._writing() as connection:
            for tp, parts in pending.items():
                count = sum(part.count for part in parts)
                row = connection.execute(
                    "UPDATE partitions SET next_offset = next_offset + ? WHERE topic = ? AND partition = ?"
                    " RETURNING next_offset",
                    (count, *tp),
                ).fetchone()
                if row is None:
                    raise UnknownTopic(f"bus {self.name}: there is no partition {tp.topic}/{tp.partition}")
                offset = first[tp] = int(row[0]) - count
                for together in _merged(parts):
                    batch = encode(together, offset)
                    connection.execute(_INSERT, (*tp, *batch))
                    offset = batch.end_offset
        with self._write_lock:
            self._changes += 1
            listeners = tuple(self._listeners)
        for callback in listeners:
            callback()
        return first

    def read(self, tp: TopicPartition, offset: int, *, max_records: int, max_bytes: int) -> RecordBatch | None:
        """Whole stored batches from the one that holds ``offset``: at least one, and more within the limits.

        The first record may lie before ``offset``. None if there is nothing at or after it. Raises BusError for a
        corrupt batch.
        """
        rows: list[StoredBatch] = []
        n_bytes = 0
        with self._reading() as connection:
            # A cursor, not fetchall: how many rows are taken depends on what they hold.
            for row in map(StoredBatch._make, connection.execute(_READ, (*tp, offset))):
                n_bytes += len(row.values) + len(row.keys or b"")
                if rows and (row.end_offset - offset > max_records or n_bytes > max_bytes):
                    break
                rows.append(row)
                if row.end_offset - offset >= max_records:
                    break
        if not rows:
            return None
        try:
            return decode(tp, rows)
        except CorruptBatch as error:
            where = f"bus {self.name}: topic {tp.topic}, partition {tp.partition}"
            raise BusError(f"{where}: {error} is corrupt; {REPAIR}") from error

    def expire(self, now_ms: int) -> int:
        """Drop some of the oldest batches past their topic's retention; returns how many records went, 0 at the end.

        A bounded number at a time, so that no append waits long.
        """
        with self._writing() as connection:
            limited = connection.execute("SELECT name, retention_ms FROM topics WHERE retention_ms IS NOT NULL")
            return sum(
                _expire(connection, tp, held, now_ms - retention_ms)
                for topic, retention_ms in limited.fetchall()
                for tp, held in _ranges(connection, [topic]).items()
            )

    # Groups

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the next offset to read of each partition. Raises OffsetOutOfRange outside [0, high-water mark]."""
        with self._writing() as connection:
            held = _ranges(connection, sorted({tp.topic for tp in offsets}))
            for tp, offset in offsets.items():
                end = held[tp].end if tp in held else 0
                if not 0 <= offset <= end:
                    raise OffsetOutOfRange(
                        f"bus {self.name}: group {group!r} commits {tp.topic}/{tp.partition}: expected an offset from "
                        f"0 to {end}, the high-water mark, found {offset}"
                    )
            connection.executemany(
                "INSERT INTO group_offsets VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                [(group, *tp, offset) for tp, offset in offsets.items()],
            )

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """The committed offsets of a group; empty for one that has none."""
        sql = "SELECT topic, partition, next_offset FROM group_offsets WHERE group_name = ?"
        with self._reading() as connection:
            rows = connection.execute(sql, (group,))
            return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}

    def groups(self) -> list[str]:
        """The groups that have committed something."""
        with self._reading() as connection:
            rows = connection.execute("SELECT DISTINCT group_name FROM group_offsets ORDER BY 1")
            return [name for (name,) in rows]

    # Write-ahead log

    def restart_wal(self) -> None:
        """Hold writers off, so that the next append begins the write-ahead log anew; give up soon if a reader goes on.

        A process that was stopped in the middle of a read may stay there for ever.
        """
        with self._write_lock, self._errors():
            self._writer.execute(f"PRAGMA busy_timeout = {_RESTART_WAIT_MS}")
            try:
                self._writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")


def _ranges(connection: sqlite3.Connection, topics: Sequence[str]) -> dict[TopicPartition, OffsetRange]:
    marks = ",".join("?" * len(topics))
    sql = f"SELECT topic, partition, log_start, next_offset FROM partitions WHERE topic IN ({marks})"
    return {TopicPartition(row[0], row[1]): OffsetRange(row[2], row[3]) for row in connection.execute(sql, topics)}


def _expire(connection: sqlite3.Connection, tp: TopicPartition, held: OffsetRange, oldest_ms: int) -> int:
    """Drop from the front, up to the first batch young enough, so that what is left has no holes."""
    start = held.start
    where = "WHERE topic = ? AND partition = ?"
    rows = connection.execute(
        f"SELECT end_offset, published_ms FROM record_batches {where} ORDER BY end_offset LIMIT ?",
        (*tp, _EXPIRE_BATCHES),
    )
    for end_offset, published_ms in rows.fetchall():
        if published_ms >= oldest_ms:
            break
        start = end_offset
    if start > held.start:
        connection.execute(f"DELETE FROM record_batches {where} AND end_offset <= ?", (*tp, start))
        connection.execute(f"UPDATE partitions SET log_start = ? {where}", (start, *tp))
    return start - held.start


def _merged(parts: Sequence[Pending]) -> Iterator[list[Pending]]:
    """Runs of consecutive parts that make one stored batch each."""
    together: list[Pending] = []
    count = size = 0
    for part in parts:
        if together and (count + part.count > MAX_STORED_RECORDS or size + part.size > MAX_STORED_BYTES):
            yield together
            together, count, size = [], 0, 0
        together.append(part)
        count += part.count
        size += part.size
    if together:
        yield together

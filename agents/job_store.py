"""The trainer's own database: its jobs, how far it has read ``retrain``, and what it still has to publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, MetaData, String, Table, Text

from agents.jobs import Job, initial_job, retrain_job
from featurestore import schema
from featurestore.aggregate import Cursor
from featurestore.database import Database, open_tables, store_label, url_beside
from featurestore.partition_writer import OutboxRecord, PartitionWriter
from streams.batch import InvalidRecord
from streams.errors import StoreMissing
from streams.events import DEADLETTER, MODELS, RETRAIN, ModelEvent
from streams.records import RecordBatch
from streams.retrain import RetrainRequested

__all__ = ["PARTITION", "TRAINER", "JobStore", "NotHeld", "read_jobs"]

TRAINER = "trainer"
"""The agent's name: its Faust app id and consumer group, and its rows in the store."""
PARTITION = 0
"""The only one that ``retrain`` has."""

_REPAIR = "remove it: every event of the log is answered again, by what the registry has decided already"
_WHAT = "training jobs"

metadata = MetaData()
for _table in (schema.applied, schema.sources, schema.outbox):
    _table.to_metadata(metadata)

jobs = Table(
    "jobs",
    metadata,
    # The fields of agents.jobs.Job, in their order.
    Column("id", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("kind", String, nullable=False),
    Column("model", String, nullable=False),
    Column("event_time", BigInteger, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("version_id", String),
    Column("reason", Text, nullable=False),
    Column("metrics", Text, nullable=False),  # JSON
    Column("attempts", BigInteger, nullable=False),
    Column("progress", Text, nullable=False),
    Column("against", String),
    Column("since", BigInteger),
    Column("ready", Boolean, nullable=False),
    Column("asked", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),  # wall time of the last change
    sqlite_with_rowid=False,
)

_FIELDS = Job.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)

_decoder = msgspec.json.Decoder(RetrainRequested)


def read_jobs(store_url: str) -> list[Job]:
    """The jobs beside a feature store, in the order in which they run; none where no trainer was there."""
    url = url_beside(store_url, TRAINER)
    missing = StoreMissing(f"{_WHAT} {store_label(url)}: none yet; `streamlens worker --role trainer` makes them")
    try:
        database = open_tables(url, metadata, what=_WHAT, repair=_REPAIR, missing=missing)
    except StoreMissing:
        return []
    try:
        return _jobs(database) if jobs.name in database.table_names() else []
    finally:
        database.close()


class NotHeld(Exception):
    """The partition is not this writer's now, and nothing was changed."""


class JobStore(PartitionWriter):
    """Jobs, each change of which is one transaction with what it publishes, and refused to whoever was replaced.

    Not thread-safe: one thread at a time. ``wall_ms`` gives the wall time in milliseconds since the epoch.
    """

    def __init__(
        self,
        store_url: str,
        *,
        run_id: str,
        train_delay_s: int,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        url = url_beside(store_url, TRAINER)
        database = open_tables(
            url, metadata, what=_WHAT, repair=_REPAIR, missing=StoreMissing(f"{_WHAT} {url}"), create=True
        )
        super().__init__(database, agent=TRAINER, topic=RETRAIN, rebuild=_REPAIR, wall_ms=wall_ms)
        self.run_id = run_id
        self.train_delay_s = train_delay_s

    def jobs(self) -> list[Job]:
        """All of them, in the order in which they run."""
        return _jobs(self.database)

    @property
    def held(self) -> bool:
        """Whether this writer may change anything."""
        return PARTITION in self.cursors

    def apply(self, batches: Sequence[RecordBatch]) -> int:
        """Make each retrain event a job, once, and a dead letter of what is none; returns how many jobs came.

        Raises what :meth:`commit` does; then nothing has changed and the same call may be made again.
        """
        while self.held:
            cursor = self.cursors[PARTITION]
            found, letters, after = self._read(batches, cursor)
            if after.next_offset == cursor.next_offset:
                return 0
            insert = partial(self._insert, added=found)
            if self.commit({PARTITION: after}, {PARTITION: set()}, insert, letters):
                return len(found)
        return 0

    def _read(self, batches: Sequence[RecordBatch], cursor: Cursor) -> tuple[list[Job], list[OutboxRecord], Cursor]:
        found: list[Job] = []
        letters: list[OutboxRecord] = []
        next_offset, published_ms, emitted = cursor.next_offset, cursor.published_ms, cursor.emitted
        for batch in batches:
            rows = zip(batch.offsets.tolist(), batch.values, batch.timestamps_ms.tolist(), strict=True)
            for offset, value, published in rows:
                if offset < cursor.next_offset:
                    continue
                published_ms = published
                try:
                    found.append(retrain_job(_decoder.decode(value), offset, self.train_delay_s))
                except (ValueError, RecursionError, OverflowError) as error:  # msgspec's own are ValueErrors
                    emitted += 1
                    letters.append(
                        self._dead_letter(InvalidRecord(offset, f"no retrain event: {error}", value), emitted)
                    )
            next_offset = max(next_offset, batch.next_offset)
        return found, letters, replace(cursor, next_offset=next_offset, published_ms=published_ms, emitted=emitted)

    def _dead_letter(self, record: InvalidRecord, event_id: int) -> OutboxRecord:
        letter = msgspec.structs.replace(record.dead_letter(RETRAIN, PARTITION), source=self._source, event_id=event_id)
        key = f"{RETRAIN}/{PARTITION}/{record.offset}".encode()
        return OutboxRecord(PARTITION, DEADLETTER, key, msgspec.json.encode(letter))

    @property
    def _source(self) -> str:
        return f"{self.run_id}/{TRAINER}/{RETRAIN}/{PARTITION}"

    def add_initial(self, champion: str, training_end: int) -> None:
        """Unless it is there."""
        self.change(added=[initial_job(self.run_id, champion, training_end)])

    def change(self, job: Job | None = None, events: Iterable[ModelEvent] = (), added: Sequence[Job] = ()) -> None:
        """Store a job as it is now, tell ``events`` of it, and add others, unless they are there.

        Raises NotHeld, and WriterFenced where another trainer has taken over; then nothing has changed.
        """
        done = False
        while not done:
            if not self.held:
                raise NotHeld
            cursor = self.cursors[PARTITION]
            records = [
                OutboxRecord(
                    PARTITION,
                    MODELS,
                    event.model.encode(),
                    msgspec.json.encode(msgspec.structs.replace(event, source=self._source, event_id=event_id)),
                )
                for event_id, event in enumerate(events, cursor.emitted + 1)
            ]
            after = replace(cursor, emitted=cursor.emitted + len(records))
            done = self.commit({PARTITION: after}, {PARTITION: set()}, lambda db: self._write(db, job, added), records)

    def _write(self, database: Database, job: Job | None, added: Sequence[Job]) -> None:
        if job is not None:
            columns = ", ".join(f"{name} = ?" for name in (*_FIELDS, "changed_ms"))
            database.execute(f"UPDATE jobs SET {columns} WHERE id = ?", *_row(job), self._wall_ms(), job.id)
        self._insert(database, added)

    def _insert(self, database: Database, added: Sequence[Job]) -> None:
        if added:
            database.execute_many(
                f"INSERT INTO jobs ({_COLUMNS}, changed_ms) VALUES ({', '.join('?' * (len(_FIELDS) + 1))})"
                " ON CONFLICT (id) DO NOTHING",
                [(*_row(job), self._wall_ms()) for job in added],
            )


def _jobs(database: Database) -> list[Job]:
    rows = database.rows(f"SELECT {_COLUMNS} FROM jobs ORDER BY event_time, number, id")
    return [_job(dict(zip(_FIELDS, row, strict=True))) for row in rows]


def _job(row: dict[str, Any]) -> Job:
    row["metrics"] = msgspec.json.decode(row["metrics"])
    row["ready"] = bool(row["ready"])
    return Job(**row)


def _row(job: Job) -> tuple[Any, ...]:
    row = {name: getattr(job, name) for name in _FIELDS}
    row["metrics"] = msgspec.json.encode(job.metrics).decode()
    return tuple(row.values())

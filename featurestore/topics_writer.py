"""Exactly-once effect over several topics: what an agent makes of them, and how far each is read, change at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

from featurestore.aggregate import Cursor
from featurestore.database import Database
from featurestore.partition_writer import CommittedBefore, OutboxRecord, OutboxRow, PartitionWriter
from streams.bus import OffsetRange, TopicInfo
from streams.records import TopicPartition

__all__ = ["TopicsWriter"]


class TopicsWriter:
    """A :class:`PartitionWriter` for each topic, which share a database, an agent and an outbox.

    What it leaves to be published belongs to partition 0 of the first topic. Not thread-safe. Raises what that does.
    """

    def __init__(
        self,
        database: Database,
        *,
        agent: str,
        topics: Sequence[str],
        rebuild: str,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.database = database
        self.agent = agent
        self._writers = {
            topic: PartitionWriter(database, agent=agent, topic=topic, rebuild=rebuild, wall_ms=wall_ms)
            for topic in topics
        }
        self._first = self._writers[topics[0]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    def assign(
        self, logs: Mapping[str, TopicInfo], ranges: Mapping[TopicPartition, OffsetRange]
    ) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        start: dict[TopicPartition, int] = {}
        for topic, writer in self._writers.items():
            start |= writer.assign(logs[topic], {tp: held for tp, held in ranges.items() if tp.topic == topic})
        return start

    def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Write nothing more of these partitions."""
        gone = list(partitions)
        for topic, writer in self._writers.items():
            writer.release([tp.partition for tp in gone if tp.topic == topic])

    @property
    def cursors(self) -> dict[TopicPartition, Cursor]:
        """How far each held partition is applied."""
        return {
            TopicPartition(topic, partition): cursor
            for topic, writer in self._writers.items()
            for partition, cursor in writer.cursors.items()
        }

    def commit(
        self,
        after: Mapping[TopicPartition, Cursor],
        sources: Mapping[TopicPartition, set[str]],
        write: Callable[[Database], None],
        records: Iterable[OutboxRecord] = (),
    ) -> bool:
        """In one transaction move the cursors, ``write``, and leave ``records``: see :meth:`PartitionWriter.commit`.

        after: of all held partitions.
        """
        of_topic = {
            topic: {tp.partition: cursor for tp, cursor in after.items() if tp.topic == topic}
            for topic in self._writers
        }
        try:
            with self.database.transaction():
                for topic, writer in self._writers.items():
                    named = {tp.partition: names for tp, names in sources.items() if tp.topic == topic}
                    writer.move(of_topic[topic], {p: named.get(p, set()) for p in of_topic[topic]})
                write(self.database)
                self._first.leave(records)
        except CommittedBefore:
            for writer in self._writers.values():
                writer.reread()
            return False
        for topic, writer in self._writers.items():
            writer.moved(of_topic[topic])
        return True

    def write(self, write: Callable[[Database], None]) -> None:
        """In one transaction write what moves no cursor. Raises WriterFenced where another writer has taken over."""
        with self.database.transaction():
            for writer in self._writers.values():
                writer.check_held()
            write(self.database)

    def check(self) -> None:
        """Raise StoreSetBack where the store holds less than this writer has applied."""
        for writer in self._writers.values():
            writer.check()

    def begin_anew(self) -> None:
        """Forget how far was read: what is assigned next begins with the logs' first records."""
        with self.database.transaction(durable=True):
            self.database.execute(
                "UPDATE applied SET next_offset = 0, clock = 0, closed = 0, end_of_run = ?, ratings = 0,"
                " duplicates = 0, late = 0, invalid = 0, emitted = 0, published_ms = 0 WHERE agent = ?",
                *(False, self.agent),
            )
            self.database.execute("DELETE FROM sources WHERE agent = ?", self.agent)

    def outbox(self, limit: int = 1_000) -> list[OutboxRow]:
        """The oldest records that are still to be published."""
        return self._first.outbox(limit)

    def published(self, rows: Iterable[OutboxRow]) -> None:
        """Forget ``rows``, which the bus has acknowledged."""
        self._first.published(rows)

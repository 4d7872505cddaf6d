"""A store of records to publish in batches, and of counts by variant, beside the applied offsets.

What the loop and the agent of reactive users share: each has these tables in a store of its own. Records lie there as
they are published, so that a step of many costs a few rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

from agents.lines import Lines
from agents.tally import Tally, add_tallies
from featurestore.database import Database
from featurestore.partition_writer import PartitionWriter
from featurestore.schema import applied, outbox, sources

__all__ = ["LinesWriter", "OutgoingRow", "add_lines_tables", "read_tallies", "write_lines"]


def add_lines_tables(metadata: MetaData) -> None:
    """Those of a PartitionWriter, ``tallies`` and ``outgoing``."""
    for table in (applied, sources, outbox):
        table.to_metadata(metadata)
    Table(
        "tallies",
        metadata,
        Column("partition", BigInteger, primary_key=True, autoincrement=False),
        Column("variant", String, primary_key=True),
        Column("slates", BigInteger, nullable=False),
        Column("shown", BigInteger, nullable=False),  # of slates of which it was told what came of them, as clicks
        Column("clicks", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    # Batches of records to publish to a partition; a row leaves only after the bus has acknowledged it.
    Table(
        "outgoing",
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("partition", BigInteger, nullable=False),
        Column("topic", String, nullable=False),
        Column("records", BigInteger, nullable=False),
        Column("record_keys", LargeBinary, nullable=False),
        Column("lines", LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )


class OutgoingRow(NamedTuple):
    """Records to publish; ``id`` orders the rows."""

    id: int
    partition: int
    topic: str
    records: int
    keys: bytes
    lines: bytes


class LinesWriter(PartitionWriter):
    """A writer of a store with the tables of :func:`add_lines_tables`. Not thread-safe."""

    def tallies(self, partition: int) -> dict[str, Tally]:
        """Of each variant, as the last step of the partition left them."""
        rows = self.database.rows("SELECT variant, slates, shown, clicks FROM tallies WHERE partition = ?", partition)
        return {variant: Tally(*counts) for variant, *counts in rows}

    def outgoing(self, most_bytes: int = 8 << 20) -> list[OutgoingRow]:
        """The oldest batches of the held partitions that are still to be published: so many bytes, or a little more."""
        rows: list[OutgoingRow] = []
        n_bytes = 0
        sizes = self.database.rows(
            "SELECT id, length(lines) FROM outgoing WHERE partition = ANY(?) ORDER BY id LIMIT 500",
            sorted(self.cursors),
        )
        wanted = []
        for row_id, size in sizes:
            wanted.append(row_id)
            n_bytes += size
            if n_bytes >= most_bytes:
                break
        if wanted:
            rows = [
                OutgoingRow._make(row)
                for row in self.database.rows(
                    "SELECT id, partition, topic, records, record_keys, lines FROM outgoing WHERE id = ANY(?)", wanted
                )
            ]
        return sorted(rows, key=itemgetter(0))

    def sent(self, rows: Iterable[OutgoingRow]) -> None:
        """Forget batches that :meth:`outgoing` gave: the bus has acknowledged them."""
        with self.database.transaction():
            # Of a server that lost its last transactions, an id may be another batch's by now.
            self.database.execute_many(
                "DELETE FROM outgoing WHERE id = ? AND partition = ? AND topic = ? AND records = ?",
                [(row.id, row.partition, row.topic, row.records) for row in rows],
            )


def write_lines(database: Database, partition: int, tallies: Mapping[str, Tally], records: Sequence[Lines]) -> None:
    """Within a transaction: the tallies as they are now, and what is to be published."""
    database.execute_many(
        "INSERT INTO tallies (partition, variant, slates, shown, clicks) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (partition, variant) DO UPDATE SET slates = excluded.slates, shown = excluded.shown,"
        " clicks = excluded.clicks",
        [(partition, name, t.slates, t.shown, t.clicks) for name, t in sorted(tallies.items())],
    )
    database.execute_many(
        "INSERT INTO outgoing (partition, topic, records, record_keys, lines) VALUES (?, ?, ?, ?, ?)",
        [(partition, *lines) for lines in records],
    )


def read_tallies(database: Database) -> dict[str, Tally]:
    """Of each variant, over all partitions."""
    rows = database.rows("SELECT variant, slates, shown, clicks FROM tallies")
    return add_tallies({variant: Tally(*map(int, counts))} for variant, *counts in rows)

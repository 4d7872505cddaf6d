"""A stream that was recorded, to be published again: what a consumer meets, without a replayer and a worker.

``mini_stream.jsonl`` beside this module is one run over a small synthetic world (no MovieLens data): its ratings and
ticks, and the metrics of the features agent that followed them. ``docs/record_stream.py`` recorded it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from streams.bus import Bus
from streams.topics import run_topics

__all__ = ["MINI_WORLD", "RecordedRecord", "RecordedStream", "mini_stream"]

MINI_WORLD = "synthetic:ratings=300,users=12"
"""The dataset that ``mini_stream.jsonl`` is a run over, as run ``mini``, on four partitions."""

_PARTITIONS = 4


class RecordedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record as it stood on the bus. timestamp_ms: wall time of its publishing; value: its JSON, byte for byte."""

    topic: str
    partition: int
    timestamp_ms: int
    value: msgspec.Raw
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """Records in the order in which they were published.

    >>> stream = mini_stream()
    >>> stream.values("ratings")[0]
    b'{"type":"tick","event_time":836179200,"source":"mini","event_id":0}'
    """

    records: tuple[RecordedRecord, ...]

    def values(self, topic: str) -> list[bytes]:
        """The values on ``topic``."""
        return [bytes(record.value) for record in self.records if record.topic == topic]

    async def publish(self, bus: Bus) -> None:
        """Put all of it on ``bus``, each record on its partition, as published now; make the run's topics first.

        Twice is a redelivery: the records have their identity. Raises PartitionMismatch where the topics are there
        with other partition counts.
        """
        await bus.create_topics(*run_topics(_PARTITIONS))
        async with bus.producer() as producer:
            for record in self.records:
                key = None if record.key is None else record.key.encode()
                await producer.send(record.topic, bytes(record.value), key=key, partition=record.partition)
            await producer.flush()


def mini_stream() -> RecordedStream:
    """The recorded stream that comes with StreamLens."""
    lines = Path(__file__).with_name("mini_stream.jsonl").read_bytes()
    return RecordedStream(tuple(msgspec.json.Decoder(RecordedRecord).decode_lines(lines)))

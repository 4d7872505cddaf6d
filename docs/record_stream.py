"""Record streams/mini_stream.jsonl from a run over a small synthetic world: ``make recording``.

The replayer and a features worker run as ever; what is on the bus afterwards is the recording.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from agents.worker import FeatureWorker, WorkerOptions
from streams.bus import Bus, open_bus
from streams.dataset import open_dataset
from streams.events import METRICS, RATINGS
from streams.recording import MINI_WORLD, RecordedRecord
from streams.replayer import Replayer, ReplayOptions, plan_replay
from streams.testing import eventually

RECORDING = Path(__file__).parent.parent / "streams" / "mini_stream.jsonl"
RATE = 30.0


async def record(folder: Path) -> None:
    dataset, options = open_dataset(MINI_WORLD), ReplayOptions(start="2010-01-01", week=1, rate=RATE, arrival="steady")
    bus_url, stopping = f"sqlite:///{folder}/bus.db", asyncio.Event()
    worker = FeatureWorker(
        WorkerOptions(
            bus_url,
            f"sqlite:///{folder}/features.db",
            run_id="mini",
            training_end=plan_replay(dataset, options).split.cutoff,
            quality_every_s=2.0,
        )
    )
    async with open_bus(bus_url) as bus, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stopping))
        await Replayer(dataset, bus, options, run_id="mini").replay()
        await eventually(lambda: worker.metrics.latest.get("features.ratings") == dataset.n_ratings)
        stopping.set()
    async with open_bus(bus_url) as bus:
        records = [record for topic in (RATINGS, METRICS) for record in await read(bus, topic)]
    records.sort(key=lambda record: record.timestamp_ms)  # stable: each partition keeps its order
    RECORDING.write_bytes(msgspec.json.Encoder().encode_lines(records))


async def read(bus: Bus, topic: str) -> list[RecordedRecord]:
    """All records of a topic."""
    count = sum(held.end - held.start for held in (await bus.offsets(topic)).values())
    records: list[RecordedRecord] = []
    async with await bus.consumer(topic) as consumer:
        while len(records) < count:
            for batch in await consumer.fetch():
                for key, value, timestamp_ms in zip(
                    batch.keys, batch.values, batch.timestamps_ms.tolist(), strict=True
                ):
                    text = None if key is None else key.decode()
                    records.append(RecordedRecord(topic, batch.partition, timestamp_ms, msgspec.Raw(value), text))
    return records


if __name__ == "__main__":
    with TemporaryDirectory(prefix="streamlens-recording-") as folder:
        asyncio.run(record(Path(folder)))

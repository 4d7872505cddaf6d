"""The control: a worker as it is often written, which commits what was delivered, not what was applied.

It acks each batch before applying it and starts from the group's committed offsets. Under ``kill -9`` it loses events
although committed == high water; the chaos test must find that.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from agents.features import FEATURES
from agents.ingest import FeatureIngest
from featurestore.writer import FeatureWriter
from streams.app import BatchedApp
from streams.bus import open_bus
from streams.delivery import batched_topic
from streams.events import RATINGS


async def main(bus_url: str, store_url: str, run_id: str, instance_id: str | None = None) -> None:
    ingest = FeatureIngest(FeatureWriter(store_url, agent=FEATURES, topic=RATINGS, run_id=run_id))
    async with open_bus(bus_url) as bus:
        await ingest.assign((await bus.topics())[RATINGS], await bus.offsets(RATINGS))
        app = BatchedApp(FEATURES, broker=bus_url, broker_commit_interval=0.05, consumer_group_instance_id=instance_id)

        @app.agent(batched_topic(app, RATINGS))
        async def features(stream: Any) -> None:
            async for event in stream.noack().events():
                await stream.ack(event)
                await asyncio.sleep(0.1)  # what an application does between delivery and its write
                await ingest.apply([event.value])

        await app.serve(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""The features agent: ratings in, features out, written as soon as nothing more waits.

Flushing is adaptive: a batch that comes alone is written at once; under backlog up to ``flush_records`` records go
into one transaction, because most of a transaction's cost does not grow with its size.
"""

from __future__ import annotations

from typing import Any

from agents.ingest import FeatureIngest
from agents.store_app import beginning_anew, create_store_app
from streams.app import BatchedApp
from streams.bus import Bus
from streams.delivery import batched_topic
from streams.events import RATINGS
from streams.gather import gather_batches

__all__ = ["FEATURES", "create_features_app"]

FEATURES = "features"
"""The agent's name: its Faust app id and consumer group, and its rows in the store."""


def create_features_app(
    bus: Bus,
    ingest: FeatureIngest,
    *,
    flush_records: int = 100_000,
    linger_s: float = 0.01,
    instance_id: str | None = None,
) -> BatchedApp:
    """A Faust app with the one agent ``features``, writing through ``ingest``, see :func:`create_store_app`."""

    app = create_store_app(FEATURES, bus, ingest, linger_s=linger_s, instance_id=instance_id)

    @app.agent(batched_topic(app, RATINGS), name=FEATURES)
    async def features(stream: Any) -> None:
        async for batches in gather_batches(stream, max_records=flush_records):
            async with beginning_anew(app):
                await ingest.apply(batches)

    return app

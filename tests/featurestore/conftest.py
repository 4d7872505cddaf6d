"""A feature store of given ratings, for tests that read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from featurestore.catalogue import Catalogue
from featurestore.view_settings import ViewSettings
from featurestore.writer import FeatureWriter
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.events import Rating, Tick
from streams.records import RecordBatch, TopicPartition

PARTITIONS = 2
PUBLISHED_MS = 2_000_000_000_000

BuildStore = Callable[..., str]


@pytest.fixture(scope="session")
def build_store(tmp_path_factory: pytest.TempPathFactory) -> BuildStore:
    """``build_store(records, ...)``: the URL of a store of the records, each on the partition of its place."""

    def build(
        records: Sequence[Rating | Tick],
        *,
        catalogue: Catalogue | None = None,
        views: ViewSettings | None = None,
        path: Path | None = None,
    ) -> str:
        url = f"sqlite:///{path or tmp_path_factory.mktemp('store') / 'features.db'}"
        parts = [[msgspec.json.encode(r) for r in records[p::PARTITIONS]] for p in range(PARTITIONS)]
        with FeatureWriter(
            url, agent="features", topic="ratings", run_id="run", catalogue=catalogue, views=views
        ) as writer:
            ends = {TopicPartition("ratings", p): OffsetRange(0, len(part)) for p, part in enumerate(parts)}
            start = writer.assign(TopicInfo("ratings", PARTITIONS, None, "log-1"), ends)
            for p, part in enumerate(parts):
                first = start[TopicPartition("ratings", p)]
                if new := part[first:]:
                    offsets = np.arange(first, len(part))
                    published = np.full(len(new), PUBLISHED_MS)
                    batch = RecordBatch("ratings", p, offsets, published, len(part), b"\n".join(new))
                    writer.apply([decode_ratings(batch)])
        return url

    return build

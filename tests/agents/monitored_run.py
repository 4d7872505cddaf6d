"""Monitors without a bus: a run of them in a folder, started and killed as a test likes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from agents.monitor_ingest import MonitorIngest
from agents.monitor_settings import MonitorSettings
from agents.monitor_store import open_monitors, read_decided, read_figures, read_requests, read_state
from agents.thresholds import Thresholds
from featurestore.partition_writer import OutboxRow
from models.interactions import Float32s
from streams.errors import StoreUnavailable
from streams.events import DAY_S
from streams.records import Int64s, TopicPartition
from tests.agents.monitored import LIVE, Logs, tuned

__all__ = ["CTR", "Facts", "Predictor", "Run", "closed_of"]

CTR = tuned(ctr={"for_days": 3})


def closed_of(store_url: str) -> int:
    """Event time up to which all is decided."""
    decided = read_decided(store_url)
    assert decided is not None
    return decided.closed


class Facts:
    """Nothing but what names tell; ``baselines``: of each version."""

    def __init__(self, **baselines: float) -> None:
        self.of_all = baselines

    def kind(self, version_id: str) -> str | None:
        return version_id.partition("-")[0]

    def baselines(self, version_id: str) -> Mapping[str, float]:
        return self.of_all


class Run:
    """Monitors in a folder, started as often as a test likes; what they published, each record as often as it was."""

    def __init__(self, folder: Path, logs: Logs, thresholds: Thresholds = CTR, **settings: Any) -> None:
        self.url = f"sqlite:///{folder}/features.db"
        self.logs = logs
        self.settings = MonitorSettings("run", thresholds, LIVE * DAY_S, **{"save_every_s": 0.0} | settings)
        self.facts = Facts()
        self.predictor: Any = None
        self.published: list[OutboxRow] = []
        self.ingest: MonitorIngest | None = None

    async def start(self) -> dict[TopicPartition, int]:
        self.ingest = MonitorIngest(self.url, self.settings, self.facts, self.predictor, store_patience_s=0.2)
        ranges = {tp: held for tp, held in self.logs.ranges().items() if tp.topic in self.settings.topics}
        return await self.ingest.assign(self.logs.infos(), ranges)

    def kill(self) -> None:
        """Nothing is written any more; the connection goes as it would with the process."""
        assert self.ingest is not None
        self.ingest.close()
        self.ingest = None

    async def publish(self, limit: int = 1_000) -> None:
        assert self.ingest is not None
        rows = (await self.ingest.outbox())[:limit]
        self.published += rows
        await self.ingest.published(rows)

    async def read(self, size: int = 50, seed: int = 0) -> None:
        """Start, read all, publish, end."""
        since = await self.start()
        assert self.ingest is not None
        for batch in self.logs.batches(size, seed, since):
            if batch.topic in self.settings.topics:
                await self.ingest.apply([batch])
        await self.ingest.release([])
        await self.publish()
        self.kill()

    def outcome(self) -> dict[str, Any]:
        """All that a run comes to. What was published twice is there once."""
        with closing(open_monitors(self.url)) as database:
            state = read_state(database)
            offsets = database.rows(
                "SELECT topic, partition, next_offset, duplicates, invalid FROM applied ORDER BY 1, 2"
            )
        records = dict.fromkeys((row.topic, row.key, row.value) for row in self.published)
        return {
            "records": sorted(records),
            "state": state.state,
            "closed": state.closed,
            "offsets": offsets,
            "requests": read_requests(self.url),
            "figures": read_figures(self.url, 100),
        }

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(row.value) for row in self.published if row.topic == topic]


class Predictor:
    """Foresees every rating half a star too high, from the second look on; ``away``: fails at first."""

    def __init__(self, *, away: bool = False) -> None:
        self.looks = 0
        self.asked: list[int] = []
        self.away = away

    def waits_for(self, event_time: int) -> str:
        self.looks += 1
        return "" if self.looks % 2 == 0 else "the feature store"

    def stars(self, day: int, user_ids: Int64s, movie_ids: Int64s) -> Float32s:
        if self.away:
            self.away = False
            raise StoreUnavailable("away")
        self.asked.append(day)
        return np.full(len(user_ids), 4.5, np.float32)

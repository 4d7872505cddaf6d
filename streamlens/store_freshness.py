"""How fresh the answers of a run's store are: what ``features`` and ``status`` say of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.embeddings import EmbeddingVersion
from featurestore.freshness import LogAhead, StoreProgress, StoreView, embedding_freshness, view_freshness
from featurestore.log_ahead import log_ahead
from featurestore.reader import AppliedOffset
from streamlens.settings import FreshnessSettings
from streamlens.target import Target
from streams.bus import Bus
from streams.errors import BusError, ConfigError
from streams.events import RATINGS

__all__ = ["StoreFreshness", "look_at_log", "observe"]


@dataclass(frozen=True, slots=True)
class StoreFreshness:
    """A store and its log at one moment. ``ahead``: None where the log is not there, or another one."""

    progress: StoreProgress
    ahead: LogAhead | None
    settings: FreshnessSettings
    now_s: float

    def of_view(self, view: StoreView, as_of: int | None = None) -> dict[str, Any]:
        limits = self.settings.limits
        return view_freshness(view, self.progress, limits, now_s=self.now_s, ahead=self.ahead, as_of=as_of).as_json()

    def of_embeddings(self, version: EmbeddingVersion, as_of: int | None = None) -> dict[str, Any]:
        return embedding_freshness(
            version, self.progress, self.settings.limits, now_s=self.now_s, as_of=as_of
        ).as_json()


async def observe(
    bus: Bus, applied: Sequence[AppliedOffset], settings: FreshnessSettings, now_s: float
) -> StoreFreshness:
    """How the log on ``bus`` stands to what a store has ``applied``."""
    ratings = [row for row in applied if row.topic == RATINGS]
    ahead = await log_ahead(bus, ratings)
    return StoreFreshness(StoreProgress.of(ratings, ahead), ahead, settings, now_s)


def look_at_log(
    target: Target, applied: Sequence[AppliedOffset], *, wall: Callable[[], float] = time.time
) -> StoreFreshness:
    """As :func:`observe`, for a command without an event loop; a log that cannot be read is no error here."""
    settings = target.settings.freshness

    async def look() -> StoreFreshness:
        async with target.open_bus() as bus:
            return await observe(bus, applied, settings, wall())

    try:
        return asyncio.run(look())
    except (BusError, ConfigError):
        ratings = [row for row in applied if row.topic == RATINGS]
        return StoreFreshness(StoreProgress.of(ratings), None, settings, wall())

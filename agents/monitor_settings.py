"""What is monitored, and how; and what a close asks others for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agents.monitor_records import TOPICS
from agents.thresholds import Thresholds
from featurestore.catalogue import EMPTY_CATALOGUE, Catalogue
from models.interactions import Float32s
from streams.events import DAY_S, RATINGS
from streams.records import Int64s

__all__ = ["Facts", "MonitorSettings", "Predictor"]


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What is monitored, and how.

    live_from: event time at which the training part ends. champions: the variants that show the champion. model: what
    retrain events ask for where no slate has told which champion serves. train_delay_s: event time from a decision to
    its answer. slates: whether a loop makes slates; without, only ``ratings`` is read. catalogue: the movies' genres,
    of which tastes are made. held_records: so many may wait for their day before partitions that are ahead are read no
    further.
    """

    run_id: str
    thresholds: Thresholds
    live_from: int
    champions: frozenset[str] = frozenset({"champion"})
    model: str = "mf"
    train_delay_s: int = DAY_S
    slates: bool = True
    catalogue: Catalogue = EMPTY_CATALOGUE
    save_every_s: float = 1.0
    held_records: int = 500_000

    @property
    def topics(self) -> tuple[str, ...]:
        return TOPICS if self.slates else (RATINGS,)


class Predictor(Protocol):
    """See :class:`agents.foresight.Foresight`."""

    def waits_for(self, event_time: int) -> str: ...
    def stars(self, day: int, user_ids: Int64s, movie_ids: Int64s) -> Float32s: ...


class Facts(Protocol):
    """See :class:`agents.version_facts.VersionFacts`."""

    def kind(self, version_id: str) -> str | None: ...
    def baselines(self, version_id: str) -> Mapping[str, float]: ...

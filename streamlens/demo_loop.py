"""The closed loop in the demo: what its processes are told, how it stands, and its story at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from agents.alignment import Gate
from agents.drift_twin import clean_alerts
from agents.job_store import read_jobs
from agents.thresholds import Thresholds, load_thresholds
from agents.variants import CHAMPION
from models.registry import Registry
from streamlens.bus_views import records_so_far
from streamlens.loop_status import loop_status
from streamlens.loop_story import ANSWERS, LoopRecords, LoopStory, tell_story
from streamlens.replay_run import PreparedReplay
from streamlens.settings import ExperimentSettings, LoopSettings, Settings, VariantSettings
from streams.bus import Bus, OffsetRange
from streams.dataset import open_dataset
from streams.drift import InjectedDrift
from streams.errors import StoreUnavailable
from streams.events import (
    ALERTS,
    DAY_S,
    FEEDBACK,
    IMPRESSIONS,
    MODELS,
    RETRAIN,
    Alert,
    Feedback,
    ModelEvent,
    Slate,
    Tick,
)
from streams.records import TopicPartition
from streams.retrain import RetrainRequested

__all__ = ["DRIFT", "CleanTwin", "LoopProgress", "loop_environment", "loop_progress", "loop_records", "loop_settings"]

DRIFT = "popularity-flip@120:high"
"""What is injected into real ratings: enough that a thin stream can show it, and that the champion suffers."""

_LOOP = LoopSettings(rating_model=None, train_delay_days=28)
_EXPERIMENT = ExperimentSettings(
    name="demo",
    champion="ease",
    variants=(
        VariantSettings(name="champion", weight=50, model=CHAMPION),
        VariantSettings(name="decayed-popularity", weight=25, model="decayed-popularity"),
        VariantSettings(name="popularity", weight=25, model="popularity"),
    ),
)
"""Models that need no torch, and train in seconds."""


def loop_settings(settings: Settings) -> Settings:
    """The demo's own for what nobody has set: models that train in seconds, thresholds that a thin stream can reach."""
    changed: dict[str, Any] = {}
    if settings.loop == LoopSettings():
        changed["loop"] = _LOOP
    if settings.experiment == ExperimentSettings():
        changed["experiment"] = _EXPERIMENT
    if settings.monitors.thresholds is None:
        own = Path(str(files("streamlens") / "demo_thresholds.toml"))
        changed["monitors"] = settings.monitors.model_copy(update={"thresholds": own})
    return settings.model_copy(update=changed)


def loop_environment(settings: Settings) -> dict[str, str]:
    """``settings`` of the loop as variables, for the demo's processes."""
    loop, experiment = settings.loop, settings.experiment
    return {
        "STREAMLENS_LOOP_ALIGNED": str(loop.aligned).lower(),
        "STREAMLENS_LOOP_RATING_MODEL": loop.rating_model or "none",
        "STREAMLENS_LOOP_TRAIN_DELAY_DAYS": str(loop.train_delay_days),
        "STREAMLENS_EXPERIMENT_NAME": experiment.name,
        "STREAMLENS_EXPERIMENT_CHAMPION": experiment.champion,
        "STREAMLENS_EXPERIMENT_VARIANTS": msgspec.json.encode([v.model_dump() for v in experiment.variants]).decode(),
        "STREAMLENS_MONITORS_THRESHOLDS": str(settings.monitors.thresholds),
    }


@dataclass(frozen=True, slots=True)
class LoopProgress:
    """clock: event time up to which slates are made. shown, clicks: of the variants that show the champion.

    waits: what the loop waits for, empty for nothing. retrains: asked for so far; promoted, rejected, failed: of these.
    champion: who serves now.
    """

    clock: int
    slates: int
    shown: int
    clicks: int
    waits: str
    retrains: int
    promoted: int
    rejected: int
    failed: int
    champion: str | None


def loop_progress(
    settings: Settings, store_url: str, models: Path, held: Mapping[TopicPartition, OffsetRange], live_from: int
) -> LoopProgress | None:
    """How the loop stands; None before there is any, or while its store cannot be read."""
    gate = Gate(live_from, settings.loop.aligned, settings.loop.train_delay_days * DAY_S)
    with suppress(StoreUnavailable):
        found = loop_status(store_url, models, held, gate)
        if found is None:
            return None
        shows_champion = _champions(settings)
        ours = [figures for name, figures in found["variants"].items() if name in shows_champion]
        states = [job.state for job in read_jobs(store_url) if job.kind == "retrain"]
        champion = Registry(models).champion_at(found["clock"])
        return LoopProgress(
            clock=found["clock"],
            slates=sum(figures["slates"] for figures in found["variants"].values()),
            shown=sum(figures["shown"] for figures in ours),
            clicks=sum(figures["clicks"] for figures in ours),
            waits=found["waits"][0] if found["waits"] else "",
            retrains=len(states),
            promoted=states.count("promoted"),
            rejected=states.count("rejected"),
            failed=states.count("failed"),
            champion=champion.version_id if champion else None,
        )
    return None


def _champions(settings: Settings) -> frozenset[str]:
    return frozenset(variant.name for variant in settings.experiment.variants if variant.model == CHAMPION)


@dataclass(slots=True)
class CleanTwin:
    """The same detectors over the same data without its drift, on a thread while the run goes on."""

    prepared: PreparedReplay
    thresholds: Thresholds
    _given_up: Event = field(default_factory=Event)
    _found: asyncio.Task[list[Alert]] | None = None

    @classmethod
    def of(cls, prepared: PreparedReplay, settings: Settings) -> CleanTwin:
        assert settings.monitors.thresholds is not None
        return cls(prepared, load_thresholds(settings.monitors.thresholds))

    @property
    def drift(self) -> InjectedDrift | None:
        """The first that was injected."""
        truth = self.prepared.ground_truth
        return truth.drifts[0] if truth is not None and truth.drifts else None

    def start(self) -> None:
        if self.drift is not None:
            self._found = asyncio.create_task(asyncio.to_thread(self._run))

    def _run(self) -> list[Alert]:
        data = open_dataset(self.prepared.run.info.data)
        until = (data.last_timestamp // DAY_S + 1) * DAY_S
        return clean_alerts(data, self.thresholds, self.prepared.plan.split.cutoff, until, self._given_up.is_set)

    async def story(self, bus: Bus, settings: Settings) -> LoopStory:
        """What happened, by the topics and by what the twin found."""
        clean = await self._found if self._found is not None else []
        return tell_story(await loop_records(bus), self.drift, clean, self.thresholds, _champions(settings))

    def give_up(self) -> None:
        """Look no further: nobody waits for it."""
        self._given_up.set()


async def loop_records(bus: Bus) -> LoopRecords:
    """All that the topics of the loop hold."""
    told = {topic: await records_so_far(bus, topic) for topic in (ALERTS, RETRAIN, MODELS, FEEDBACK, IMPRESSIONS)}
    decode = msgspec.json.decode
    retrains = [(decode(record.value, type=RetrainRequested), record.timestamp_ms) for record in told[RETRAIN]]
    models = [(decode(record.value, type=ModelEvent), record.timestamp_ms) for record in told[MODELS]]
    shown_ms: dict[tuple[str, str], int] = {}
    for record in told[IMPRESSIONS]:
        slate = decode(record.value, type=Slate | Tick)
        if isinstance(slate, Slate):
            shown = (slate.variant, slate.model_version)
            shown_ms[shown] = min(record.timestamp_ms, shown_ms.get(shown, record.timestamp_ms))
    return LoopRecords(
        alerts=[decode(record.value, type=Alert) for record in told[ALERTS]],
        retrains=[event for event, _ in retrains],
        models=[event for event, _ in models],
        feedback=[decode(record.value, type=Feedback | Slate | Tick) for record in told[FEEDBACK]],
        asked_ms={event.id: at for event, at in retrains},
        answered_ms={event.request: at for event, at in models if event.request and event.kind in ANSWERS},
        shown_ms=shown_ms,
    )

"""What the monitor's detectors find of drift whose place and strength are known, and how often they fire without any.

Each run is a stationary world of its own (:mod:`streamlens.bench.drift_world`) that goes through the real monitor with
the default thresholds: a training part, a clean live part, then drift (:mod:`streams.drift`), put into the same stream
once per kind and strength; and, for the false alarms, the same stream without it. Seeds are not those that the
detectors were tuned on (1,000 to 1,019, 2,000 to 2,059, 50,000 to 50,199 and 60,000 to 60,149). A detection counts at
the close of its day.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.monitor import Monitor
from agents.thresholds import Thresholds, default_thresholds
from featurestore.catalogue import Catalogue
from streamlens.bench.drift_world import EVENTS_PER_DAY, START, Champion, World, columns_of, make_ratings
from streams.dataset import Ratings
from streams.drift import DriftedDataset, DriftSpec
from streams.drift.spec import STRENGTHS
from streams.events import DAY_S

__all__ = ["KINDS", "run"]

KINDS = ("rating-bias", "popularity-flip", "taste-shift", "volume-drop", "new-user-flood")
"""Those that detectors are to find; malformed and late records are counted one by one."""

_RUNS = 50
_WITHIN = 5_000
_TRAINING_DAYS, _CLEAN_DAYS, _DRIFT_DAYS = 40, 40, 24


class _Found(NamedTuple):
    """The first alarm after a drift began, None for none: events and days until its day closed, and its detector."""

    events: int
    days: int
    detector: str


def run(events: int = 1_100_000) -> dict[str, Any]:
    """Figures over 50 runs of each kind and strength, the clean parts adding up to about ``events`` ratings."""
    thresholds = msgspec.structs.replace(default_thresholds(), rules={})  # detectors alone
    found: dict[tuple[str, str], list[_Found | None]] = {(k, s): [] for k in KINDS for s in STRENGTHS}
    n_clean, alarms = 0, 0
    for seed in range(_RUNS):
        n_live_days = max(_CLEAN_DAYS + 1, round(events / _RUNS / EVENTS_PER_DAY))
        days = _TRAINING_DAYS + max(n_live_days, _CLEAN_DAYS + _DRIFT_DAYS)
        world = make_ratings(days * EVENTS_PER_DAY, seed)
        one = _Run(world, seed, thresholds)
        fired, n = one.clean(n_live_days)
        alarms, n_clean = alarms + fired, n_clean + n
        for kind, strength in found:
            found[kind, strength].append(one.drifted(kind, strength))
    figures: dict[str, Any] = {
        "runs": _RUNS,
        "events_per_day": EVENTS_PER_DAY,
        "clean_events": n_clean,
        "false_alarms": alarms,
        "false_alarms_per_100k": round(alarms / n_clean * 100_000, 3),
        "dummy_detected_share": round(1 - math.exp(-_WITHIN * alarms / n_clean), 3),
    }
    middle = [_share(runs) for (_, strength), runs in found.items() if strength == "middle"]
    figures["detected_share"] = round(min(middle), 3)
    for (kind, strength), runs in found.items():
        name = f"{kind.replace('-', '_')}_{strength}"
        figures[f"{name}_detected"] = round(_share(runs), 3)
        in_time = [one for one in runs if one is not None and one.events <= _WITHIN]
        for unit, delays in (("events", [f.events for f in in_time]), ("days", [f.days for f in in_time])):
            for title, q in (("median", 0.5), ("p90", 0.9)):
                figures[f"{name}_{title}_{unit}"] = round(float(np.quantile(delays, q))) if delays else None
    return figures


def _share(runs: list[_Found | None]) -> float:
    return sum(one is not None and one.events <= _WITHIN for one in runs) / len(runs)


class _Run:
    """One world with its champion; the monitor's state when drift begins is kept, so that each kind goes on from it."""

    def __init__(self, world: World, seed: int, thresholds: Thresholds) -> None:
        self._world, self._seed, self._thresholds = world, seed, thresholds
        self._live = START + _TRAINING_DAYS * DAY_S
        self._begins = self._live + _CLEAN_DAYS * DAY_S
        self._champion = Champion.fit(world.ratings.slice(0, world.position_of(self._live)), world.genre)
        self._catalogue = Catalogue(world.movies().values())
        self._state = b""

    def clean(self, n_days: int) -> tuple[int, int]:
        """Alarms and ratings of ``n_days`` live days without drift."""
        monitor, end = Monitor(self._thresholds, self._live, self._catalogue), self._live + n_days * DAY_S
        alarms = 0
        for since, until in ((START, self._begins), (self._begins, end)):
            self._feed(monitor, self._world.ratings, since, until)
            for day in range(since // DAY_S, until // DAY_S):
                alarms += sum(len(closed.alerts) for closed in monitor.close(day))
            self._state = self._state or monitor.to_json()
        return alarms, self._world.position_of(end) - self._world.position_of(self._live)

    def drifted(self, kind: str, strength: str) -> _Found | None:
        """The first alarm after the drift began."""
        short = self._world.until(self._begins + _DRIFT_DAYS * DAY_S)
        drift = DriftedDataset(short, [DriftSpec(kind, 1, strength)], start=self._begins, seed=self._seed)
        ratings = _all(drift.chunks())
        monitor = Monitor.from_json(self._state, self._thresholds, self._catalogue)
        self._feed(monitor, ratings, self._begins, self._begins + _DRIFT_DAYS * DAY_S)
        first = int(np.searchsorted(ratings.timestamp, self._begins))
        for number in range(_DRIFT_DAYS):
            day = self._begins // DAY_S + number
            for closed in monitor.close(day):
                if closed.alerts:
                    met = int(np.searchsorted(ratings.timestamp, (day + 1) * DAY_S)) - first
                    return _Found(met, number + 1, closed.alerts[0].name)
        return None

    def _feed(self, monitor: Monitor, ratings: Ratings, since: int, until: int) -> None:
        told, slates, feedback = columns_of(ratings, self._champion)
        told.predicted[told.timestamp < self._live] = np.nan  # it was fitted on those
        shown_from = max(since, self._live)
        monitor.add(
            ratings=told.take((told.timestamp >= since) & (told.timestamp < until)),
            slates=slates.take((slates.timestamp >= shown_from) & (slates.timestamp < until)),
            feedback=feedback.take((feedback.timestamp >= shown_from) & (feedback.timestamp < until)),
        )


def _all(chunks: Iterator[Ratings]) -> Ratings:
    parts = list(chunks)
    names = ("user_id", "movie_id", "rating", "timestamp")
    return Ratings(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

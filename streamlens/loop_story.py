"""What happened in a closed loop: was the drift found, what was asked for, what came of it, and how many clicks.

Pure: records in, a story out. Every figure is from the topics and the ground truth; none is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agents.drift_twin import Detection, first_detection
from agents.thresholds import Thresholds
from models.bootstrap import Interval, ratio_interval
from streams.drift import InjectedDrift
from streams.events import Alert, Feedback, ModelEvent, Slate, Tick
from streams.retrain import RetrainRequested

__all__ = ["ANSWERS", "ClickPeriod", "LoopRecords", "LoopStory", "tell_story"]

ANSWERS = ("promoted", "rejected", "failed")


class LoopRecords(NamedTuple):
    """All there is on the topics of a run's loop; ticks may be among the feedback.

    asked_ms, answered_ms: by id of the retrain event, when it and its answer were published, wall time in milliseconds.
    shown_ms: when the first slate of a version was published, by variant and version.
    """

    alerts: Sequence[Alert]
    retrains: Sequence[RetrainRequested]
    models: Sequence[ModelEvent]
    feedback: Sequence[Feedback | Slate | Tick]
    asked_ms: Mapping[str, int] = {}
    answered_ms: Mapping[str, int] = {}
    shown_ms: Mapping[tuple[str, str], int] = {}


class ClickPeriod(NamedTuple):
    """Clicks of the champion's variants on slates whose sessions were over from ``since`` to before ``until``.

    ctr: with its 95 % interval over users; NaN where nothing was shown.
    """

    name: str
    since: int
    until: int
    n_slates: int
    n_users: int
    ctr: Interval


@dataclass(frozen=True, slots=True)
class LoopStory:
    """drift: what was injected, None for nothing; detection: None where it was not found.

    retrains: by event time, each with its answer, None where none came. models: by event time. periods: before the
    drift, under it, and after the first promotion that followed it, as far as there are such. answer_s: from publishing
    an event to publishing its answer, which serves from its event time on, in seconds of wall time. serving_s: of those
    that led to a promotion, to publishing the first slate of the promoted version that was shown as the champion's.
    """

    drift: InjectedDrift | None
    detection: Detection | None
    retrains: Sequence[tuple[RetrainRequested, ModelEvent | None]]
    models: Sequence[ModelEvent]
    periods: Sequence[ClickPeriod]
    answer_s: Sequence[float]
    serving_s: Sequence[float]


def tell_story(
    records: LoopRecords,
    drift: InjectedDrift | None,
    clean: Iterable[Alert],
    thresholds: Thresholds,
    champions: frozenset[str],
) -> LoopStory:
    """clean: alerts of the clean twin (:func:`agents.drift_twin.clean_alerts`). champions: variants that show one."""
    detection = None if drift is None else first_detection(drift, records.alerts, clean, thresholds)
    told = [f for f in records.feedback if isinstance(f, Feedback) and f.variant in champions]
    models = sorted(records.models, key=lambda event: event.event_time)
    answers = {event.request: event for event in models if event.kind in ANSWERS}
    return LoopStory(
        drift=drift,
        detection=detection,
        retrains=[(event, answers.get(event.id)) for event in sorted(records.retrains, key=lambda event: event.time)],
        models=models,
        periods=[_period(name, since, until, told) for name, since, until in _cuts(drift, models, told)],
        answer_s=[(at - records.asked_ms[i]) / 1_000 for i, at in records.answered_ms.items() if i in records.asked_ms],
        serving_s=_serving_s(records, champions),
    )


def _serving_s(records: LoopRecords, champions: frozenset[str]) -> list[float]:
    """A promotion whose version nobody was shown before the end has none."""
    shown: dict[str, int] = {}
    for (variant, version), at in records.shown_ms.items():
        if variant in champions:
            shown[version] = min(at, shown.get(version, at))
    promoted = {m.request: m.version for m in records.models if m.kind == "promoted"}
    asked = [(at, promoted.get(request)) for request, at in records.asked_ms.items()]
    return [(shown[version] - at) / 1_000 for at, version in asked if version in shown]


def _cuts(
    drift: InjectedDrift | None, models: Iterable[ModelEvent], told: Sequence[Feedback]
) -> list[tuple[str, int, int]]:
    if not told:
        return []
    first, last = min(f.timestamp for f in told), max(f.timestamp for f in told) + 1
    if drift is None or not first < drift.begins < last:
        return [("all of it", first, last)]
    promoted = [m.event_time for m in models if m.kind == "promoted" and drift.begins < m.event_time < last]
    cuts = [("before the drift", first, drift.begins)]
    if not promoted:
        return [*cuts, ("since the drift", drift.begins, last)]
    return [*cuts, ("until a promotion", drift.begins, promoted[0]), ("after it", promoted[0], last)]


def _period(name: str, since: int, until: int, told: Iterable[Feedback]) -> ClickPeriod:
    inside = [f for f in told if since <= f.timestamp < until]
    users, owner = np.unique(np.array([f.user_id for f in inside], np.int64), return_inverse=True)
    clicks = np.bincount(owner, np.array([len(f.clicked) for f in inside], np.float64), len(users)).astype(np.float64)
    shown = np.bincount(owner, np.array([f.n_shown for f in inside], np.float64), len(users)).astype(np.float64)
    return ClickPeriod(name, since, until, len(inside), len(users), ratio_interval(clicks, shown))

"""Event days for tests of the monitor: what was rated and clicked on each, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from agents.monitor import ClosedDay, Monitor
from agents.monitor_columns import FeedbackColumns, RatingColumns
from agents.thresholds import Thresholds, default_thresholds
from streams.events import DAY_S

DAY_0, LIVE = 14_000, 14_010


def tuned(**rules: dict[str, object]) -> Thresholds:
    """The default ones with small samples, and only the rules named, without detectors."""
    default = default_thresholds()
    held = {
        name: msgspec.structs.replace(default.rules[name], **({"min_sample": 50, "window_days": 1} | changed))
        for name, changed in rules.items()
    }
    return msgspec.structs.replace(default, rules=held, detectors={}, baseline_days=5, longest_days=60)


def ratings(
    day: int, n: int = 100, stars: float = 4.0, off: float = 0.5, users: Sequence[int] = (), movies: Sequence[int] = ()
) -> RatingColumns:
    """``n`` of a day, ten seconds apart, each predicted ``off`` stars too high."""
    number = np.arange(n)
    return RatingColumns(
        timestamp=day * DAY_S + number * 10,
        user_id=np.array(users or range(n), np.int64),
        movie_id=np.array(movies or [1 + i % 10 for i in range(n)], np.int64),
        half_stars=np.full(n, round(stars * 2)),
        predicted=np.full(n, stars + off, np.float32),
        source=np.zeros(n, np.int64),
        event_id=day * 1_000 + number,
        sources=("run",),
    )


def feedback(day: int, clicks: int, n: int = 100, length: int = 10) -> FeedbackColumns:
    """``n`` sessions of one slate of 10 each, ``clicks`` on all of them together."""
    number = np.arange(n)
    return FeedbackColumns(
        timestamp=day * DAY_S + 5_000 + number,
        user_id=number,
        n_shown=np.full(n, 10),
        n_clicked=(number < clicks).astype(np.int64),
        n_ratings=np.full(n, length),
        simulated=np.zeros(n, bool),
        source=np.zeros(n, np.int64),
        event_id=day * 1_000 + number,
        sources=("run",),
    )


def watch(thresholds: Thresholds, days: dict[int, tuple[RatingColumns, FeedbackColumns | None]]) -> list[ClosedDay]:
    monitor, closed = Monitor(thresholds, LIVE * DAY_S), []
    for day, (rated, told) in days.items():
        monitor.add(ratings=rated, feedback=told)
        closed += monitor.close(day)
    return closed


def alerted(closed: list[ClosedDay]) -> list[tuple[int, str]]:
    return [(day.metrics.day - LIVE, alert.name) for day in closed for alert in day.alerts]

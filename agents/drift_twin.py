"""Was it the drift? The same detectors over the same stream without it: where this clean twin fires too, nothing was
found.

Real ratings change by themselves, so a detector that fires after a drift began may have fired anyway. The twin is fed
with ratings alone: it speaks for the detectors whose signals need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from agents.monitor import Monitor
from agents.monitor_columns import RatingColumns
from agents.thresholds import Thresholds
from featurestore.catalogue import Catalogue
from streams.dataset import Dataset, Ratings
from streams.drift import InjectedDrift
from streams.events import DAY_S, Alert

__all__ = ["OF_RATINGS", "Detection", "clean_alerts", "first_detection"]

OF_RATINGS = ("rating", "taste", "popularity", "new_user", "volume")
"""The signals that ratings are enough for."""
_SILENT_DELAYS = 2
"""For how many delays from the beginning of the drift on the twin has to be silent: once more than the drift took."""
_DAYS_AT_ONCE = 100


class Detection(NamedTuple):
    """A drift that was found. at: event time at which the day that told was over; after_s: since the drift began."""

    detector: str
    at: int
    after_s: int


def clean_alerts(
    dataset: Dataset,
    thresholds: Thresholds,
    cutoff: int,
    until: int,
    given_up: Callable[[], bool] = lambda: False,
) -> list[Alert]:
    """What the detectors on ratings say of ``dataset``, whose live part begins at ``cutoff``, before ``until``.

    given_up: asked now and then; once it is true, what was found so far is returned.
    """
    detectors = {name: rule for name, rule in thresholds.detectors.items() if rule.signal in OF_RATINGS}
    alone = msgspec.structs.replace(thresholds, rules={}, detectors=detectors)
    monitor = Monitor(alone, cutoff, Catalogue(dataset.movies().values()))
    for first, ratings in _numbered(dataset.chunks()):
        monitor.add(ratings=_columns(ratings, first))
    alerts: list[Alert] = []
    last_day = until // DAY_S - 1
    for day in (*range(dataset.first_timestamp // DAY_S, last_day, _DAYS_AT_ONCE), last_day):
        if given_up():
            break
        alerts += [alert for closed in monitor.close(day) for alert in closed.alerts]
    return alerts


def first_detection(
    drift: InjectedDrift, alerts: Iterable[Alert], clean: Iterable[Alert], thresholds: Thresholds
) -> Detection | None:
    """The first of ``alerts`` after ``drift`` began of a detector that is silent in ``clean``; None for none.

    Silent: from the beginning of the drift for twice as long as it took to find it, or to the end of the twin's data.
    What fires in the twin soon after would have fired anyway. Detectors that the twin cannot speak for do not count.
    """
    fired: dict[str, int] = {}
    for alert in clean:
        if alert.kind == "drift" and alert.event_time > drift.begins:
            fired[alert.name] = min(alert.event_time, fired.get(alert.name, alert.event_time))
    for alert in sorted(alerts, key=lambda alert: (alert.event_time, alert.name)):
        rule = thresholds.detectors.get(alert.name)
        after_s = alert.event_time - drift.begins
        if alert.kind != "drift" or after_s <= 0 or rule is None or rule.signal not in OF_RATINGS:
            continue
        if alert.name not in fired or fired[alert.name] > drift.begins + _SILENT_DELAYS * after_s:
            return Detection(alert.name, alert.event_time, after_s)
    return None


def _numbered(chunks: Iterable[Ratings]) -> Iterable[tuple[int, Ratings]]:
    """Each chunk with the ordinal of its first rating."""
    first = 1
    for chunk in chunks:
        yield first, chunk
        first += len(chunk)


def _columns(ratings: Ratings, first: int) -> RatingColumns:
    n = len(ratings)
    return RatingColumns(
        timestamp=ratings.timestamp,
        user_id=ratings.user_id,
        source=np.zeros(n, np.int64),
        event_id=np.arange(first, first + n),
        movie_id=ratings.movie_id,
        half_stars=np.rint(ratings.rating * 2).astype(np.int64),
        predicted=np.full(n, np.nan, np.float32),
        sources=("twin",),
    )

"""How far the others are, as far as it matters to a trainer: read from their stores, short reads each."""

from __future__ import annotations

from agents.features import FEATURES
from agents.jobs import Progress
from agents.monitor_store import read_decided
from agents.trainer_options import TrainerOptions
from featurestore.aggregate import Accepted
from featurestore.reader import FeatureReader
from models.interactions import Interactions
from models.trials import slate_times
from streams.errors import StoreMissing
from streams.events import RATINGS
from streams.records import Int64s

__all__ = ["progress_of", "ratings_since", "slates_since"]


def progress_of(options: TrainerOptions) -> Progress | None:
    """How far features and monitors are; None before the features have begun with every partition."""
    # Monitors first: what they have closed, the features had applied.
    monitors = read_decided(options.store_url)
    try:
        with FeatureReader(options.store_url) as reader:
            rows = [row for row in reader.applied() if row.topic == RATINGS and row.agent == FEATURES]
    except StoreMissing:
        return None
    if len(rows) < options.partitions:
        return None
    return Progress(
        closed=min(row.closed for row in rows),
        ended=all(row.end_of_run for row in rows),
        monitored=monitors.closed if monitors and options.aligned else None,
        monitors_ended=monitors is not None and monitors.ended,
        asked=frozenset() if monitors is None else monitors.asked,
    )


def ratings_since(store_url: str, first_day: int, end_day: int) -> int:
    """How many came on the days from ``first_day`` to before ``end_day``, counted since the epoch."""
    with FeatureReader(store_url) as reader:
        return reader.ratings_on_days(first_day, end_day)


def slates_since(store_url: str, since: int, until: int) -> Int64s:
    """When slates were made from ``since`` to before ``until``; late ratings make none."""
    with FeatureReader(store_url) as reader:
        parts = [_on_time(page) for page in reader.history_pages(before=until)]
    return slate_times(Interactions.concat(parts), since)


def _on_time(page: Accepted) -> Interactions:
    kept = page.where(~page.late)
    return Interactions(kept.user_id, kept.movie_id, kept.half_stars / 2, kept.timestamp)

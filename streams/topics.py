"""The topics of a run, as whoever comes first creates them."""

from __future__ import annotations

from streams.bus import TopicSpec
from streams.events import (
    ALERTS,
    CONTROL,
    DAY_S,
    DEADLETTER,
    FEEDBACK,
    IMPRESSIONS,
    METRICS,
    MODELS,
    RATINGS,
    RETRAIN,
)

__all__ = ["MAX_PARTITIONS", "run_topics"]

MAX_PARTITIONS = 1_024
"""Each tick goes to every partition: with thousands of them there would be more ticks than ratings."""

_METRICS_KEPT_MS = DAY_S * 1_000


def run_topics(partitions: int) -> tuple[TopicSpec, ...]:
    """Ratings over ``partitions`` partitions, kept for ever: they are what everything is recomputed from.

    Slates and feedback have as many, so that a user's stand where the user's ratings do. The other topics are small
    and read as a whole, so one partition keeps their order.
    """
    return (
        TopicSpec(RATINGS, partitions),
        TopicSpec(IMPRESSIONS, partitions),
        TopicSpec(FEEDBACK, partitions),
        TopicSpec(DEADLETTER, 1),
        TopicSpec(RETRAIN, 1),
        TopicSpec(MODELS, 1),
        TopicSpec(ALERTS, 1),
        TopicSpec(METRICS, 1, retention_ms=_METRICS_KEPT_MS),
        TopicSpec(CONTROL, 1, retention_ms=_METRICS_KEPT_MS),
    )

"""Metrics of one process: numbered, with the process as their source."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from itertools import count

from streams.events import Metric

__all__ = ["ASSUMED_LABEL", "SIMULATED", "MetricSource"]

SIMULATED = {"simulated": "true"}
"""The label of what made-up users did."""

ASSUMED_LABEL = {"assumed": "true"}
"""The label of what rests on assumptions."""


class MetricSource:
    """name: of the agent."""

    def __init__(self, name: str) -> None:
        self._source = f"{name}/{uuid.uuid4().hex[:12]}"
        self._ids = count(1)

    def metric(self, name: str, value: float, labels: Mapping[str, str], clock: int, now: float) -> Metric:
        """clock: event time, 0 for none. now: wall time, both in seconds since the epoch."""
        return Metric(
            name=name,
            value=float(value),
            emitted_at=now,
            labels=dict(labels),
            event_time=clock or None,
            source=self._source,
            event_id=next(self._ids),
        )

"""What the loop tells about itself, twice a second."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from agents.loop_steps import LoopSteps
from agents.metric_source import MetricSource
from agents.tally import tally_figures
from streams.events import Metric

__all__ = ["LoopMetrics"]

_QUANTILES = (50, 95, 99)


class LoopMetrics:
    """Turns what the loop has done into metrics; each call of :meth:`take` covers the time since the last.

    ``loop.throughput`` records/s; ``loop.lag`` records not done yet; ``loop.slates`` made, ``loop.clicks`` and
    ``loop.ctr`` of those whose session is over, by variant, over the store's life; ``loop.latency_ms`` from publishing
    a rating that triggers a slate to the slate's being stored, by quantile, absent while none was made; ``loop.late``
    ratings before their session; ``loop.waiting`` partitions that wait for another agent. ``published``: how often the
    bus took them, or answered while there were none.
    """

    def __init__(self, steps: LoopSteps, *, wall_s: Callable[[], float] = time.time) -> None:
        self._steps = steps
        self._wall_s = wall_s
        self._source = MetricSource("loop")
        self._records = 0
        self._since = wall_s()
        self.latest: dict[str, float] = {}
        self.published = 0

    def take(self, log_end: dict[int, int]) -> list[Metric]:
        """The metrics now; ``log_end``: the high-water mark of each partition. None while no partition is held."""
        now = self._wall_s()
        stats, cursors = self._steps.stats, self._steps.writer.cursors
        if not cursors:
            return []
        values: list[tuple[str, float, dict[str, str]]] = [
            ("loop.throughput", (stats.records - self._records) / max(now - self._since, 1e-3), {}),
            ("loop.lag", sum(max(end - cursors[p].next_offset, 0) for p, end in log_end.items() if p in cursors), {}),
            ("loop.late", sum(cursor.late for cursor in cursors.values()), {}),
            ("loop.transactions", stats.transactions, {}),
            ("loop.store_errors", stats.store_errors, {}),
            ("loop.waiting", sum(bool(why) for why in self._steps.waits.values()), {}),
        ]
        self._records, self._since = stats.records, now
        values += tally_figures("loop", self._steps.tallies, {})
        latencies = stats.latencies.take()
        if len(latencies):
            found = np.percentile(latencies, _QUANTILES).tolist()
            values += [("loop.latency_ms", v, {"quantile": f"p{q}"}) for q, v in zip(_QUANTILES, found, strict=True)]
        clock = min(cursor.clock for cursor in cursors.values())
        self.latest = {".".join((name, *labels.values())): value for name, value, labels in values}
        return [self._source.metric(name, value, labels, clock, now) for name, value, labels in values]

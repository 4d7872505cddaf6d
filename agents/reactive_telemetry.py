"""What the agent of reactive users tells about itself, twice a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from agents.metric_source import SIMULATED, MetricSource
from agents.reactive_steps import ReactiveSteps
from agents.reactive_store import REACTIVE
from agents.tally import tally_figures
from streams.events import Metric

__all__ = ["ReactiveMetrics"]


class ReactiveMetrics:
    """Turns what was answered into metrics; each call of :meth:`take` covers the time since the last.

    ``reactive.throughput`` records/s; ``reactive.lag`` records not answered yet; ``reactive.invalid`` records that are
    no slates; ``reactive.strangers`` slates that nobody of the world saw; by variant, over the store's life,
    ``reactive.slates`` answered, and with the label ``simulated`` ``reactive.clicks`` and ``reactive.ctr``.
    ``published``: how often the bus took them, or answered while there were none.
    """

    def __init__(self, steps: ReactiveSteps, *, wall_s: Callable[[], float] = time.time) -> None:
        self._steps = steps
        self._wall_s = wall_s
        self._source = MetricSource(REACTIVE)
        self._records = 0
        self._since = wall_s()
        self.latest: dict[str, float] = {}
        self.published = 0

    def take(self, log_end: dict[int, int]) -> list[Metric]:
        """The metrics now; ``log_end``: the high-water mark of each partition. None while no partition is held."""
        now, stats, cursors = self._wall_s(), self._steps.stats, self._steps.writer.cursors
        if not cursors:
            return []
        lag = sum(max(end - cursors[p].next_offset, 0) for p, end in log_end.items() if p in cursors)
        values: list[tuple[str, float, dict[str, str]]] = [
            ("reactive.throughput", (stats.records - self._records) / max(now - self._since, 1e-3), {}),
            ("reactive.lag", lag, {}),
            ("reactive.invalid", sum(cursor.invalid for cursor in cursors.values()), {}),
            ("reactive.strangers", self._steps.strangers, {}),
            ("reactive.store_errors", stats.store_errors, {}),
            *tally_figures(REACTIVE, self._steps.tallies, SIMULATED),
        ]
        self._records, self._since = stats.records, now
        clock = min(cursor.clock for cursor in cursors.values())
        self.latest = {".".join((name, labels.get("variant", ""))).rstrip("."): v for name, v, labels in values}
        return [self._source.metric(name, value, labels, clock, now) for name, value, labels in values]

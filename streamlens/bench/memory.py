"""Resident memory of a features worker while it drains a long log: it must be flat."""

from __future__ import annotations

import tempfile
from typing import Any

from streamlens.bench.processes import in_fresh_process, rss_mb
from streamlens.bench.workload import drain, fill_log, world

__all__ = ["run"]


def run(events: int = 10_000_000) -> dict[str, Any]:
    """RSS of the worker after a fifth of the ``events`` ratings and after all of them, and its highest, in MiB."""
    early = events // 5
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder:
        bus_url = f"sqlite:///{folder}/bus.db"
        in_fresh_process(fill_log, bus_url, events)
        return in_fresh_process(_measure, bus_url, f"sqlite:///{folder}/features.db", world(events), early)


def _measure(bus_url: str, store_url: str, dataset: str, early: int) -> dict[str, Any]:
    at_early: list[float] = []

    def watch(applied: int) -> None:
        if applied >= early and not at_early:
            at_early.append(rss_mb())

    drained = drain(bus_url, store_url, dataset, watch)
    after = rss_mb()
    return {
        "events": drained.ratings,
        "rss_mb": round(after),
        "rss_mb_early": round(at_early[0]) if at_early else None,
        "early_events": early,
        "growth": round(after / at_early[0] - 1, 3) if at_early else None,
        "max_rss_mb": round(drained.max_rss_mb),
        "events_per_s": round(drained.ratings / drained.seconds),
    }

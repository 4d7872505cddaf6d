"""How fast one worker drains a log of ratings into its SQLite store, beside a plain Python loop over the same log."""

from __future__ import annotations

import statistics
import tempfile
from typing import Any

from streamlens.bench.plain_loop import plain_events_per_s
from streamlens.bench.processes import in_fresh_process
from streamlens.bench.workload import drain, fill_log, world

__all__ = ["run"]


def run(events: int = 1_000_000, rounds: int = 3) -> dict[str, Any]:
    """Median over ``rounds``; in each the loop and the worker take turns, every time in a fresh process."""
    plain, drained = [], []
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder:
        bus_url = f"sqlite:///{folder}/bus.db"
        in_fresh_process(fill_log, bus_url, events)
        for turn in range(rounds):
            plain.append(in_fresh_process(plain_events_per_s, bus_url, world(events)))
            # A group of its own per round is not needed: the store's applied offset decides, and the store is new.
            drained.append(in_fresh_process(drain, bus_url, f"sqlite:///{folder}/features-{turn}.db", world(events)))
    rates = [d.ratings / d.seconds for d in drained]
    ratios = [rate / loop for rate, loop in zip(rates, plain, strict=True)]
    return {
        "events": drained[0].ratings,
        "events_per_s": round(statistics.median(rates)),
        "plain_python_events_per_s": round(statistics.median(plain)),
        "ratio": round(statistics.median(ratios), 2),
        "max_rss_mb": round(max(d.max_rss_mb for d in drained)),
        "rounds": [
            {"events_per_s": round(r), "plain_python_events_per_s": round(p), "ratio": round(q, 2)}
            for r, p, q in zip(rates, plain, ratios, strict=True)
        ],
    }

"""How fast one worker drains a log of ratings into its store, beside a plain Python loop over the same log.

On Kafka stock Faust stands beside it, too: on a tenth of the events, which takes it about as long.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from streamlens.bench.buses import on_kafka, own_bus
from streamlens.bench.plain_loop import plain_events_per_s
from streamlens.bench.processes import in_fresh_process
from streamlens.bench.stores import own_store
from streamlens.bench.workload import drain, fill_log, world

__all__ = ["run"]

_STOCK_SHARE = 10


def run(events: int = 1_000_000, rounds: int = 3, bus: str | None = None, store: str | None = None) -> dict[str, Any]:
    """store: a PostgreSQL to write to, None for SQLite.

    Median over ``rounds``; in each the yardsticks and the worker take turns, every time in a fresh process."""
    plain, drained, stock = [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder,
        own_bus(bus, Path(folder)) as bus_url,
        own_bus(bus, Path(folder)) as short_url,
    ):
        in_fresh_process(fill_log, bus_url, events)
        if on_kafka(bus):
            in_fresh_process(fill_log, short_url, events // _STOCK_SHARE)
        for _ in range(rounds):
            plain.append(in_fresh_process(plain_events_per_s, bus_url, world(events)))
            # A group of its own per round is not needed: the store's applied offset decides, and the store is new.
            with own_store(store, Path(folder)) as store_url:
                drained.append(in_fresh_process(drain, bus_url, store_url, world(events)))
        if on_kafka(bus):
            stock_store, stock_world = f"sqlite:///{folder}/stock.db", world(events // _STOCK_SHARE)
            stock.append(_stock(short_url, stock_store, stock_world))
    rates = [d.ratings / d.seconds for d in drained]
    ratios = [rate / loop for rate, loop in zip(rates, plain, strict=True)]
    figures: dict[str, Any] = {
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
    if stock:
        figures["stock_faust_events_per_s"] = round(stock[0])
        figures["ratio_to_stock_faust"] = round(statistics.median(rates) / stock[0], 1)
    return figures


def _stock(bus_url: str, store_url: str, dataset: str) -> float:
    from streamlens.bench.stock_faust import stock_events_per_s

    return in_fresh_process(stock_events_per_s, bus_url, store_url, dataset)

"""Proving a long run: how fast, and in how much memory, `verify` recomputes everything that a worker has applied."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

from featurestore.verify import VerifyReport, verify
from streamlens.bench.processes import in_fresh_process, max_rss_mb
from streamlens.bench.workload import Drained, drain, fill_log, world
from streams.bus import open_bus
from streams.errors import StreamLensError

__all__ = ["run"]


def run(events: int = 25_000_000) -> dict[str, Any]:
    """Verify a store of a fifth of the ``events`` ratings, then one of all: memory must not follow their number.

    Raises StreamLensError where a store differs from its log.
    """
    _, _, early_mb = _verified(events // 5)
    drained, report, full_mb = _verified(events)
    return {
        "events": report.events,
        "rows": report.rows,
        "mismatches": report.mismatches,
        "verify_s": round(report.seconds, 1),
        "verify_events_per_s": round(report.events / report.seconds),
        "verify_max_rss_mb": round(full_mb),
        "verify_max_rss_mb_early": round(early_mb),
        "early_events": events // 5,
        "worker_events_per_s": round(drained.ratings / drained.seconds),
        "worker_max_rss_mb": round(drained.max_rss_mb),
    }


def _verified(events: int) -> tuple[Drained, VerifyReport, float]:
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder:
        bus_url, store_url = f"sqlite:///{folder}/bus.db", f"sqlite:///{folder}/features.db"
        in_fresh_process(fill_log, bus_url, events)
        drained = in_fresh_process(drain, bus_url, store_url, world(events))
        report, max_mb = in_fresh_process(_verify, bus_url, store_url)
    if not report.ok:
        raise StreamLensError(f"verify: expected the store of {events:,} ratings to equal its log: {report.as_dict()}")
    return drained, report, max_mb


def _verify(bus_url: str, store_url: str) -> tuple[VerifyReport, float]:
    async def check() -> VerifyReport:
        async with open_bus(bus_url) as bus:
            return await verify(bus, store_url)

    return asyncio.run(check()), max_rss_mb()

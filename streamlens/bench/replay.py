"""How fast the replayer publishes at ``--speed max``, into the SQLite bus or Kafka."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from streamlens.bench.buses import own_bus
from streamlens.bench.processes import in_fresh_process
from streamlens.bench.workload import fill_log

__all__ = ["run"]


def run(events: int = 1_000_000, rounds: int = 3, bus: str | None = None) -> dict[str, Any]:
    """Median over ``rounds``, each into a new log; the synthetic world is made while it is published."""
    rates = []
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder,
            own_bus(bus, Path(folder)) as bus_url,
        ):
            rates.append(in_fresh_process(fill_log, bus_url, events).events_per_s)
    return {"events": events, "events_per_s": round(statistics.median(rates)), "rounds": [round(r) for r in rates]}

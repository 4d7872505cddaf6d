"""How fast the replayer publishes at ``--speed max``, into the SQLite bus or Kafka."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from streamlens.bench.buses import on_kafka, own_bus
from streamlens.bench.processes import in_fresh_process
from streamlens.bench.workload import fill_log

__all__ = ["run"]


def run(events: int = 1_000_000, rounds: int = 3, bus: str | None = None) -> dict[str, Any]:
    """Median over ``rounds``, each into a new log; the synthetic world is made while it is published.

    cpu_s_per_million: of the replayer's process, making the world included. On Kafka aiokafka's own ``send_batch`` has
    its turn in each round.
    """
    rates, cpu_s, raw = [], [], []
    for _ in range(rounds):
        with (
            tempfile.TemporaryDirectory(prefix="streamlens-bench-") as folder,
            own_bus(bus, Path(folder)) as bus_url,
        ):
            events_per_s, used_s = in_fresh_process(_replay, bus_url, events)
            rates.append(events_per_s)
            cpu_s.append(used_s)
            if on_kafka(bus):
                raw.append(_send_batch(bus_url))
    figures: dict[str, Any] = {
        "events": events,
        "events_per_s": round(statistics.median(rates)),
        "cpu_s_per_million": round(statistics.median(cpu_s) / events * 1e6, 2),
        "rounds": [round(rate) for rate in rates],
    }
    if raw:
        ratios = [rate / yardstick for rate, yardstick in zip(rates, raw, strict=True)]
        figures["send_batch_events_per_s"] = round(statistics.median(raw))
        figures["ratio_to_send_batch"] = round(statistics.median(ratios), 2)
        figures["ratios"] = [round(ratio, 2) for ratio in ratios]
    return figures


def _replay(bus_url: str, events: int) -> tuple[float, float]:
    """Events per second, and the CPU seconds they took."""
    began_s = time.process_time()
    events_per_s = fill_log(bus_url, events).events_per_s
    return events_per_s, time.process_time() - began_s


def _send_batch(bus_url: str) -> float:
    from streamlens.bench.raw_producer import send_batch_events_per_s

    return in_fresh_process(send_batch_events_per_s, bus_url)

"""What the loop, or an agent after it, has done since it started."""

from __future__ import annotations

from dataclasses import dataclass, field

from agents.latency_log import LatencyLog
from streams.records import Int64s

__all__ = ["LoopStats"]


@dataclass(slots=True)
class LoopStats:
    """latencies: of slates. Added to by the store's thread, read by another."""

    records: int = 0
    slates: int = 0
    transactions: int = 0
    store_errors: int = 0
    waiting_for_store: str = ""
    latencies: LatencyLog = field(default_factory=LatencyLog)

    def add(self, n_records: int, latencies_ms: Int64s) -> None:
        """A step: its records, and for each slate the time from publishing its cause to storing what was made."""
        self.transactions += 1
        self.records += n_records
        self.slates += len(latencies_ms)
        self.latencies.add(latencies_ms)

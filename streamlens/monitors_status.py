"""How the monitors of a run stand, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import msgspec

from agents.measures import ASSUMED
from agents.monitor_events import MONITORS
from agents.monitor_store import ClosedFigures, open_monitors, read_figures, read_requests
from streams.bus import OffsetRange
from streams.errors import StoreMissing
from streams.records import TopicPartition

__all__ = ["monitors_status"]


def monitors_status(store_url: str, held: Mapping[str, Mapping[TopicPartition, OffsetRange]]) -> dict[str, Any] | None:
    """Progress, what was asked for, and the figures of the last live day; None where no monitors have run yet.

    behind: partitions whose tick the next close waits for, as of the last state that was written; lag: records that are
    not in it yet.
    """
    try:
        with closing(open_monitors(store_url)) as database:
            applied = database.rows(
                "SELECT topic, partition, next_offset, closed FROM applied WHERE agent = ?", MONITORS
            )
            ((closed,),) = database.rows("SELECT coalesce(max(closed), 0) FROM monitor")
            ((outbox,),) = database.rows("SELECT count(*) FROM outbox")
        requests = read_requests(store_url)
        figures = read_figures(store_url)
    except StoreMissing:
        return None
    ends = {tp: range_.end for ranges in held.values() for tp, range_ in ranges.items()}
    return {
        "closed": int(closed),
        "lag": sum(max(ends.get(TopicPartition(topic, p), 0) - offset, 0) for topic, p, offset, _ in applied),
        "outbox": int(outbox),
        "requests": [request._asdict() for request in requests],
        "day": _plain(figures[-1]) if figures else None,
    }


def _plain(day: ClosedFigures) -> dict[str, Any]:
    measures = {
        name: {
            "value": measured.value,
            "baseline": None if measured.baseline is None else measured.baseline.value,
            "n": measured.n,
            "breached_closes": measured.breached_closes,
            "simulated": measured.simulated,
            "assumed": name in ASSUMED,
        }
        for name, measured in day.metrics.measures.items()
    }
    return {
        "event_time": day.metrics.event_time,
        "version": day.version,
        "severity": day.severity,
        "measures": measures,
        "detectors": msgspec.to_builtins(day.metrics.detectors),
        "variants": msgspec.to_builtins(day.variants),
    }

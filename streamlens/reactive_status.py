"""How the reactive users of a run stand, read from their store alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from agents.lines_store import read_tallies
from agents.reactive_store import REACTIVE, open_reactive_store
from streamlens.loop_status import tallies_status
from streams.bus import OffsetRange
from streams.errors import StoreMissing
from streams.events import IMPRESSIONS
from streams.records import TopicPartition

__all__ = ["reactive_status"]


def reactive_status(store_url: str, impressions: Mapping[TopicPartition, OffsetRange]) -> dict[str, Any] | None:
    """Progress on the ``impressions`` topic, and the simulated counts of each variant; None without a store.

    strangers: slates that nobody of the world saw.
    """
    try:
        with closing(open_reactive_store(store_url)) as database, database.snapshot():
            applied = database.rows(
                "SELECT partition, next_offset, clock, ratings, invalid FROM applied WHERE agent = ? AND topic = ?",
                *(REACTIVE, IMPRESSIONS),
            )
            tallies = read_tallies(database)
    except StoreMissing:
        return None
    offsets = {int(partition): int(offset) for partition, offset, *_ in applied}
    slates = sum(int(n) for _, _, _, n, _ in applied)
    return {
        "clock": min((int(clock) for _, _, clock, _, _ in applied), default=0),
        "lag": sum(max(0, held.end - offsets.get(tp.partition, 0)) for tp, held in impressions.items()),
        "strangers": slates - sum(tally.slates for tally in tallies.values()),
        "invalid": sum(int(invalid) for *_, invalid in applied),
        "simulated": True,
        "variants": tallies_status(tallies),
    }

"""How the loop of a run stands, read from the stores alone: so it can be told of one that is not running, too."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agents.alignment import NO_CHAMPION, Gate, Progress, no_champion, waits_for
from agents.applied_features import Features
from agents.lines_store import read_tallies
from agents.loop_store import LOOP, loop_url, open_loop_store
from agents.progress_reader import read_progress
from agents.tally import Tally
from models.registry import Registry
from streams.bus import OffsetRange
from streams.errors import StoreMissing
from streams.events import DAY_S, RATINGS
from streams.records import TopicPartition

__all__ = ["loop_status", "tallies_status"]


def loop_status(
    store_url: str, models: Path, ratings: Mapping[TopicPartition, OffsetRange], gate: Gate
) -> dict[str, Any] | None:
    """Progress on the ``ratings`` topic, what is waited for, and the counts of each variant; None without a store.

    models: the registry's folder.
    """
    try:
        with closing(open_loop_store(loop_url(store_url))) as database, database.snapshot():
            applied = database.rows(
                "SELECT partition, next_offset, clock, closed, late FROM applied WHERE agent = ? AND topic = ?",
                *(LOOP, RATINGS),
            )
            tallies = read_tallies(database)
            passed = database.rows("SELECT partition, event_time FROM boundaries ORDER BY event_time")
    except StoreMissing:
        return None
    ends = {tp.partition: held.end for tp, held in ratings.items()}
    progress = read_progress(store_url)
    features = _features(store_url)
    waits = set()
    for partition, offset, _, closed, _ in applied:
        if offset >= ends.get(partition, 0):
            continue
        if features.get(partition, 0) <= offset:
            waits.add("features to apply what comes next")
        else:
            waits.add(_waits(int(closed), [at for p, at in passed if p == partition], progress, Registry(models), gate))
    return {
        "clock": min((int(clock) for _, _, clock, _, _ in applied), default=0),
        "lag": sum(max(0, end - _offset(applied, partition)) for partition, end in ends.items()),
        "late": sum(int(late) for *_, late in applied),
        "aligned": gate.aligned,
        "waits": sorted(waits - {""}),
        "variants": tallies_status(tallies),
    }


def tallies_status(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """The counts of each variant, and its CTR; that is None while nothing was told of its slates."""
    return {
        variant: {
            "slates": tally.slates,
            "shown": tally.shown,
            "clicks": tally.clicks,
            "ctr": tally.clicks / tally.shown if tally.shown else None,
        }
        for variant, tally in tallies.items()
    }


def _offset(applied: list[tuple[Any, ...]], partition: int) -> int:
    return next((int(row[1]) for row in applied if row[0] == partition), 0)


def _features(store_url: str) -> Mapping[int, int]:
    with closing(Features(store_url)) as features:
        return features.applied()


def _waits(closed: int, passed: list[int], progress: Progress, registry: Registry, gate: Gate) -> str:
    """Of a partition whose next day is live; in the training part nothing is waited for."""
    if closed < gate.live_from // DAY_S * DAY_S:
        return ""
    moment = max(closed, gate.live_from)
    if gate.aligned and (why := waits_for(moment, passed, progress, train_delay_s=gate.train_delay_s)):
        return why
    if registry.champion_at(moment) if gate.aligned else registry.champion():
        return ""
    return "; ".join(filter(None, (NO_CHAMPION, no_champion(progress))))

"""How a run stands, as plain values: what ``status`` prints and the demo draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from agents.alignment import Gate
from featurestore.embeddings import EmbeddingStore, EmbeddingVersion, embeddings_url
from featurestore.freshness import VIEWS
from featurestore.reader import AppliedOffset, FeatureReader
from streamlens.loop_status import loop_status
from streamlens.monitors_status import monitors_status
from streamlens.presence import holder
from streamlens.reactive_status import reactive_status
from streamlens.store_freshness import observe
from streamlens.target import Target
from streamlens.training_status import jobs_status, no_champion
from streams.bus import Bus, OffsetRange
from streams.errors import DataError, StoreMissing
from streams.events import DAY_S, IMPRESSIONS, METRICS, RATINGS, Metric
from streams.postgres_url import without_password
from streams.records import TopicPartition

__all__ = ["latest_metrics", "progress", "run_status"]

_METRICS_TAIL = 1_000
"""Records of each partition of ``metrics`` that are looked at for the latest value of every name."""

_metric_decoder = msgspec.json.Decoder(Metric)


async def run_status(target: Target, bus: Bus, *, wall: Callable[[], float] = time.time) -> dict[str, Any]:
    """Run, topics, progress of the features, latest metrics, and who is at work."""
    topics = await bus.topics()
    held = {name: await bus.offsets(name) for name in sorted(topics)}
    folder = target.folder
    return {
        "run": target.run_id,
        "data": target.data,
        "drift": target.drift,
        "bus": target.bus_url,
        "store": without_password(target.store_url),
        "replayer": None if folder is None else holder(folder, "replayer"),
        "worker": None if folder is None else holder(folder, "worker"),
        "loop_worker": None if folder is None else holder(folder, "loop"),
        "monitors_worker": None if folder is None else holder(folder, "monitors"),
        "topics": {name: sum(end for _, end in ranges.values()) for name, ranges in held.items()},
        "features": features_status(target.store_url, held.get(RATINGS, {}), wall()),
        "reactive_worker": None if folder is None else holder(folder, "reactive"),
        "loop": _loop(target, held.get(RATINGS, {})),
        "freshness": await freshness_status(target, bus, wall()),
        "trainer": None if folder is None else holder(folder, "trainer"),
        "jobs": jobs_status(target.store_url),
        "no_champion": no_champion(target.store_url, target.models),
        "reactive": reactive_status(target.store_url, held.get(IMPRESSIONS, {})),
        "monitors": monitors_status(target.store_url, held),
        "metrics": await latest_metrics(bus) if METRICS in topics else {},
    }


def _loop(target: Target, ratings: dict[TopicPartition, OffsetRange]) -> dict[str, Any] | None:
    wanted = target.settings.loop
    try:
        live_from = target.training_end() or 0
    except DataError:  # the data is gone, and with it only what the loop waits for
        live_from = 0
    return loop_status(
        target.store_url, target.models, ratings, Gate(live_from, wanted.aligned, wanted.train_delay_days * DAY_S)
    )


async def freshness_status(target: Target, bus: Bus, now: float) -> dict[str, Any] | None:
    """Freshness of each view of the store, and of the newest embeddings of each kind and model; None without a store.

    ``embeddings`` is a list, since there may be several models, or none.
    """
    try:
        with FeatureReader(target.store_url) as reader:
            applied = reader.applied()
    except StoreMissing:
        return None
    freshness = await observe(bus, applied, target.settings.freshness, now)
    return {view: freshness.of_view(view) for view in VIEWS} | {
        "embeddings": [
            {"kind": version.kind, "model": version.model, "version": version.version}
            | freshness.of_embeddings(version)
            for version in newest_embeddings(target.store_url)
        ]
    }


def newest_embeddings(store_url: str) -> list[EmbeddingVersion]:
    """The newest version of each kind and model."""
    try:
        with EmbeddingStore(embeddings_url(store_url)) as store:
            newest = {(version.kind, version.model): version for version in store.versions()}  # oldest come first
    except StoreMissing:
        return []
    return [newest[key] for key in sorted(newest)]


def features_status(store_url: str, ratings: dict[TopicPartition, OffsetRange], now: float) -> dict[str, Any] | None:
    """Progress of the feature store on the ``ratings`` topic; None while no worker has made the store."""
    try:
        with FeatureReader(store_url) as reader, reader.snapshot():
            applied = [row for row in reader.applied() if row.topic == RATINGS]
            outbox = reader.outbox_size()
    except StoreMissing:
        return None
    return progress(applied, ratings, now) | {"outbox": outbox}


def progress(applied: list[AppliedOffset], ratings: dict[TopicPartition, OffsetRange], now: float) -> dict[str, Any]:
    """Offsets, lag, clock and counts; ``clock`` is the event time that every partition has reached, 0 for none.

    ratings: how far the log was when it was looked at, before the store: what is applied beyond it waited for nothing.
    """
    by_partition = {row.partition: row for row in applied}
    partitions = []
    for tp, (_, end) in sorted(ratings.items(), key=lambda row: row[0].partition):
        row = by_partition.get(tp.partition)
        offset = row.next_offset if row else 0
        clock = row.clock if row else 0
        partitions.append(
            {"partition": tp.partition, "end": end, "applied": offset, "lag": max(end - offset, 0), "clock": clock}
        )
    newest = max((row.applied_ms for row in applied), default=0)
    return {
        "partitions": partitions,
        "lag": sum(row["lag"] for row in partitions),
        "clock": min((row["clock"] for row in partitions), default=0),
        "end_of_run": bool(applied) and len(applied) == len(partitions) and all(row.end_of_run for row in applied),
        "applied_ago_s": round(now - newest / 1_000, 3) if newest else None,
        "ratings": sum(row.ratings for row in applied),
        "late": sum(row.late for row in applied),
        "duplicates": sum(row.duplicates for row in applied),
        "dead_lettered": sum(row.invalid for row in applied),
    }


async def latest_metrics(bus: Bus) -> dict[str, dict[str, Any]]:
    """The newest value of every metric, by name and labels, with the wall time at which it was emitted."""
    ends = {tp: held for tp, held in (await bus.offsets(METRICS)).items() if held.end > held.start}
    newest: dict[str, dict[str, Any]] = {}
    async with await bus.consumer(METRICS) as consumer:
        for tp, held in ends.items():
            consumer.seek(tp, max(held.start, held.end - _METRICS_TAIL))
        while unread := [tp for tp, held in ends.items() if consumer.position(tp) < held.end]:
            for batch in await consumer.fetch(partitions=unread):
                for value in batch.values:
                    _keep_newest(newest, value)
    return dict(sorted(newest.items()))


def _keep_newest(newest: dict[str, dict[str, Any]], value: bytes) -> None:
    try:
        metric = _metric_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # a foreign producer's record: not a measurement of this run
    labels = ",".join(f"{name}={metric.labels[name]}" for name in sorted(metric.labels))
    name = f"{metric.name}{{{labels}}}" if labels else metric.name
    if name not in newest or newest[name]["emitted_at"] <= metric.emitted_at:
        newest[name] = {"value": metric.value, "emitted_at": metric.emitted_at}

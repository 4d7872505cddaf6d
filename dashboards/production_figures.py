"""Progress, lag and trends of the production page, as plain values of what was read: no Streamlit, and no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dashboards.live_records import LiveRecords
from dashboards.panels import Tile, number
from dashboards.rings import Series
from dashboards.store_probe import StoreView

__all__ = ["LagRow", "Trend", "lag_rows", "of_all_workers", "overview", "passed_over", "titled", "trending"]

_AT_WORK_S = 2.0
"""Workers tell twice a second; one that has not told for so long before the last of them did has ended."""
_SUMMED = ("features.throughput",)
"""Of each worker its share; of what else there is, the worst counts."""


@dataclass(frozen=True, slots=True)
class LagRow:
    """How far the features are on one partition of ``ratings``; None where the store does not say."""

    partition: int
    end: int
    applied: int | None
    clock: int

    @property
    def lag(self) -> int | None:
        return None if self.applied is None else max(self.end - self.applied, 0)


def lag_rows(ends: Mapping[int, int], store: StoreView) -> list[LagRow]:
    """Of each partition."""
    applied = {row.partition: row for row in store.applied}
    rows = []
    for partition in sorted(ends):
        row = applied.get(partition)
        rows.append(LagRow(partition, ends[partition], row.next_offset if row else None, row.clock if row else 0))
    return rows


def of_all_workers(name: str, told: Sequence[Series]) -> Series | None:
    """What the workers told of ``name``, as one: their sum or the worst of them, whenever one of them told.

    >>> one = Series("features.throughput", {}, *np.array([[1.0, 2.0, 9.0], [10.0, 20.0, 30.0], [0.0, 0.0, 0.0]]))
    >>> other = Series("features.throughput", {}, *np.array([[1.5], [5.0], [0.0]]))
    >>> of_all_workers("features.throughput", [one, other]).value.tolist()
    [10.0, 15.0, 25.0, 30.0]
    """
    if len(told) < 2:
        return told[0] if told else None
    at = np.unique(np.concatenate([one.at for one in told]))
    values, event_times = [], []
    for one in told:
        newest = np.searchsorted(one.at, at, side="right") - 1
        at_work = (newest >= 0) & (at - one.at[newest] <= _AT_WORK_S)
        values.append(np.where(at_work, one.value[newest], np.nan))
        event_times.append(np.where(at_work, one.event_time[newest], 0.0))
    of_each = np.array(values)
    value = np.nansum(of_each, axis=0) if name in _SUMMED else np.nanmax(of_each, axis=0)
    return Series(name, told[0].labels, at, value, np.max(event_times, axis=0))


def overview(records: LiveRecords, store: StoreView, ends: Mapping[int, int]) -> list[Tile]:
    """The figures on top, each the newest measured value. ends: high-water marks of ``ratings``.

    Where several workers apply ratings, the store tells how many and what waits: it counts a partition once, also while
    it moves from a worker to another.
    """
    n_workers = len(_at_work(records, "features.ratings"))

    def latest(name: str, **labels: str) -> float | None:
        told = _at_work(records, name, **labels)
        if not told:
            return None
        return sum(told) if name in _SUMMED else max(told)

    def counted(name: str) -> float | None:
        if n_workers < 2 or not store.applied:
            return latest(f"features.{name}")
        if name == "lag":
            return sum(row.lag or 0 for row in lag_rows(ends, store))
        return sum(float(getattr(row, name)) for row in store.applied)

    p50, p99 = (latest("features.latency_ms", quantile=quantile) for quantile in ("p50", "p99"))
    published, total = latest("replay.published"), latest("replay.total")
    share = f"{published / total:.0%} of {number(total)} published" if published is not None and total else ""
    others = f"{number(counted('late'))} late, {number(counted('duplicates'))} duplicates"
    into = f"into the features, by {n_workers} workers" if n_workers > 1 else "into the features"
    return [
        Tile("applied", "Ratings applied", number(counted("ratings")), note=share),
        Tile("throughput", "Throughput", number(latest("features.throughput")), "events/s", into),
        Tile("lag", "Lag", number(counted("lag")), "records", "published, not applied"),
        Tile("latency", "Latency p50", number(p50, 1), "ms", f"p99 {number(p99, 1)} ms"),
        Tile("freshness", "Freshness", number(latest("features.freshness_s"), 2), "s", "age of the oldest waiting"),
        Tile("dead_letters", "Dead letters", number(counted("invalid")), "records", others),
    ]


def passed_over(records: LiveRecords) -> str:
    """What was found on the bus that is none of its topic's records; empty where all was."""
    found = {topic: n for topic, n in sorted(records.garbage.items()) if n}
    if not found:
        return ""
    return "not readable, and passed over: " + ", ".join(f"{number(n)} on {topic}" for topic, n in found.items())


def _at_work(records: LiveRecords, name: str, **labels: str) -> list[float]:
    """The newest value of each worker that still tells."""
    points = records.latest_of_workers(name, **labels)
    return [point.value for point in points if points[0].at - point.at <= _AT_WORK_S]


@dataclass(frozen=True, slots=True)
class Trend:
    """A movie's ratings in the last window and in the one before; was: its place then, None where it had none."""

    movie_id: int
    title: str
    n: int
    before: int
    place: int
    was: int | None

    @property
    def moved(self) -> str:
        if self.was is None:
            return "new"
        step = self.was - self.place
        return f"▲ {step}" if step > 0 else f"▼ {-step}" if step < 0 else "-"


def trending(store: StoreView, k: int = 8) -> list[Trend]:
    """The most rated movies, beside where they were one window earlier."""
    before = {item.movie_id: (place, item.n_ratings) for place, item in enumerate(store.popular_before, 1)}
    rows = []
    for place, item in enumerate(store.popular[:k], 1):
        was, n = before.get(item.movie_id, (None, 0))
        rows.append(Trend(item.movie_id, titled(store, item.movie_id), item.n_ratings, n, place, was))
    return rows


def titled(store: StoreView, movie_id: int) -> str:
    """The movie's title, or its id."""
    movie = store.movies.get(movie_id)
    return movie.title if movie else f"movie {movie_id}"

"""Progress, lag and trends of the production page, as plain values of what was read: no Streamlit, and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dashboards.live_records import LiveRecords
from dashboards.panels import Tile, number
from dashboards.store_probe import StoreView

__all__ = ["LagRow", "Trend", "lag_rows", "overview", "titled", "trending"]


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


def overview(records: LiveRecords, store: StoreView) -> list[Tile]:
    """The figures on top, each the newest measured value."""

    def latest(name: str, **labels: str) -> float | None:
        point = records.latest(name, **labels)
        return None if point is None else point.value

    p50, p99 = (latest("features.latency_ms", quantile=quantile) for quantile in ("p50", "p99"))
    published, total = latest("replay.published"), latest("replay.total")
    share = f"{published / total:.0%} of {number(total)} published" if published is not None and total else ""
    others = f"{number(latest('features.late'))} late, {number(latest('features.duplicates'))} duplicates"
    return [
        Tile("applied", "Ratings applied", number(latest("features.ratings")), note=share),
        Tile("throughput", "Throughput", number(latest("features.throughput")), "events/s", "into the features"),
        Tile("lag", "Lag", number(latest("features.lag")), "records", "published, not applied"),
        Tile("latency", "Latency p50", number(p50, 1), "ms", f"p99 {number(p99, 1)} ms"),
        Tile("freshness", "Freshness", number(latest("features.freshness_s"), 2), "s", "age of the oldest waiting"),
        Tile("dead_letters", "Dead letters", number(latest("features.invalid")), "records", others),
    ]


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

"""A dataset with drift in it: for whoever replays it, a dataset like any other.

The data from the first drift on is cut into blocks. Each goes through the drifts in the order given, as columns; what
arrives later than its block ends waits for the block in which it does. Random decisions are hashes of what a rating
is, so a block is the same whenever and in whatever portions it is read, and any position is found by reading the one
block that holds it (with late records, also those before from which records may still be on their way).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from streams.dataset import Dataset, Movie, Ratings
from streams.drift.blocks import cut_blocks, read_blocks
from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Effect, Upstream
from streams.drift.ground_truth import InjectedDrift
from streams.drift.late import Late
from streams.drift.malformed import Malformed
from streams.drift.new_user_flood import NewUserFlood
from streams.drift.popularity_flip import PopularityFlip
from streams.drift.rating_bias import RatingBias
from streams.drift.spec import DriftSpec
from streams.drift.taste_shift import TasteShift
from streams.drift.volume_drop import VolumeDrop
from streams.errors import ConfigError
from streams.events import DAY_S
from streams.records import Int64s
from streams.split import WEEK_S
from streams.synthetic.draws import Draws

__all__ = ["DriftedDataset"]

_VERSION = 1  # raise it when the same data, drifts and seed give another stream
_LEARN: dict[str, Callable[[Upstream], Effect]] = {
    "rating-bias": RatingBias.learn,
    "popularity-flip": PopularityFlip.learn,
    "taste-shift": TasteShift.learn,
    "volume-drop": VolumeDrop.learn,
    "new-user-flood": NewUserFlood.learn,
    "malformed": Malformed.learn,
    "late": Late.learn,
}


class DriftedDataset:
    """``base`` with ``drifts`` in it, each named one applied to what those before it left.

    Positions count what is published; timestamps are times of arrival, which for a late record lie after its event
    time. start: event time at which week 1 begins. lateness_s: the bound that late records exceed.

    Opening reads the data from the first drift on once to count, and once more for each drift that depends on what
    it meets. What is held: four numbers per block of 50,000 ratings and drift, and what a drift has to know of movies
    and users.
    Raises ConfigError for a drift that begins after the data ends, or that has nothing to work on.
    """

    def __init__(
        self, base: Dataset, drifts: Sequence[DriftSpec], *, start: int, seed: int = 0, lateness_s: int = DAY_S
    ) -> None:
        self.base = base
        self.drifts = tuple(drifts)
        self.start = start
        self._seed = seed
        self._lateness_s = lateness_s
        self.name = base.name
        self.begins = [start + WEEK_S * (drift.week - 1) for drift in self.drifts]
        for drift, begins in zip(self.drifts, self.begins, strict=True):
            if begins > base.last_timestamp:
                last_week = (base.last_timestamp - start) // WEEK_S + 1
                raise ConfigError(
                    f"drift {drift}: expected a week up to {last_week}, in which {base.name} ends, found {drift.week}"
                )
        self._first = base.position_of(min(self.begins))
        self._block_position, self._block_time = cut_blocks(base, self._first)
        self._effects: list[Effect] = []
        for number in range(len(self.drifts)):
            self._effects.append(self._learn(number))
        self._longest_delay_s = max((e.longest_s for e in self._effects if isinstance(e, Late)), default=0)
        self._count()
        self._block = lru_cache(maxsize=1)(self._read_block)

    @property
    def fingerprint(self) -> str:
        what = [_VERSION, self.base.fingerprint, *map(str, self.drifts), self.start, self._seed, self._lateness_s]
        return hashlib.sha256("/".join(map(str, what)).encode()).hexdigest()

    @property
    def n_ratings(self) -> int:
        return int(self._block_ordinal[-1])

    @property
    def first_timestamp(self) -> int:
        return self.timestamp_at(0)

    @property
    def last_timestamp(self) -> int:
        return self.timestamp_at(self.n_ratings - 1)

    def timestamp_at(self, position: int) -> int:
        """Event time at which the record at ``position`` arrives."""
        if not 0 <= position < self.n_ratings:
            raise IndexError(f"position: expected 0 to {self.n_ratings - 1}, found {position}")
        if position < self._first:
            return self.base.timestamp_at(position)
        block = self._block_of(position)
        return int(self._block(block).arrival[position - self._block_ordinal[block]])

    def position_of(self, timestamp: int) -> int:
        """How many records arrive before ``timestamp``."""
        block = int(np.searchsorted(self._block_time[:-1], timestamp, "right")) - 1
        if block < 0:
            return min(self.base.position_of(timestamp), self._first)
        return int(self._block_ordinal[block] + np.searchsorted(self._block(block).arrival, timestamp))

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        position = start
        if start < self._first:
            for ratings in self.base.chunks(start=start, size=size):
                untouched = ratings.slice(0, self._first - position)
                yield untouched
                position += len(untouched)
                if position == self._first:
                    break
        if position >= self.n_ratings:
            return
        first = self._block_of(position)
        skip = position - int(self._block_ordinal[first])
        for rows in self._published(first):
            ratings = _as_ratings(rows.take(~rows.dropped))
            for begin in range(skip, len(ratings), size):
                yield ratings.slice(begin, begin + size)
            skip = 0

    def movies(self) -> dict[int, Movie]:
        return self.base.movies()

    def injected(self, n_published: int | None = None) -> list[InjectedDrift]:
        """What was injected into the first ``n_published`` records; all of them by default."""
        end = self.n_ratings if n_published is None else n_published
        touched = self._touched_before(end)
        return [
            InjectedDrift(
                kind=drift.kind,
                week=drift.week,
                strength=drift.strength,
                begins=begins,
                first_ordinal=int(first) if n else None,
                n_records=int(n),
                parameters=effect.parameters(),
            )
            for drift, begins, effect, first, n in zip(
                self.drifts, self.begins, self._effects, self._first_ordinal, touched, strict=True
            )
        ]

    def _learn(self, number: int) -> Effect:
        drift, begins = self.drifts[number], self.begins[number]
        earlier_alike = sum(other.kind == drift.kind for other in self.drifts[:number])
        block = max(0, int(np.searchsorted(self._block_time[:-1], begins, "right")) - 1)
        upstream = Upstream(
            spec=drift,
            begins=begins,
            lateness_s=self._lateness_s,
            draws=_draws_of(self._seed, drift.kind, earlier_alike),
            movies=self.base.movies,
            _rows=lambda: self._drifted(block, number),
            _rows_from_start=lambda: self._from_start(number),
        )
        return _LEARN[drift.kind](upstream)

    def _from_start(self, n_effects: int) -> Iterator[DriftColumns]:
        """All rows of the data after the first ``n_effects`` drifts."""
        position = 0
        for ratings in self.base.chunks() if self._first else ():
            untouched = ratings.slice(0, self._first - position)
            yield DriftColumns.of(untouched, position)
            position += len(untouched)
            if position == self._first:
                break
        yield from self._drifted(0, n_effects)

    def _drifted(self, first: int, n_effects: int) -> Iterator[DriftColumns]:
        """Blocks of the data from block ``first`` on, after the first ``n_effects`` drifts."""
        for block in read_blocks(self.base, self._block_position, first):
            rows = block
            for number in range(n_effects):
                begun = (rows.timestamp >= self.begins[number]) & ~rows.dropped
                if begun.any():
                    rows, touched = self._effects[number].apply(rows, begun)
                    rows.affected[touched] |= 1 << number
            yield rows

    def _published(self, first: int) -> Iterator[DriftColumns]:
        """Blocks from ``first`` on as they are published: by arrival, in order; what was dropped still among them."""
        # What arrives in a block was rated at most the longest delay before it.
        earliest = self._block_time[first] - self._longest_delay_s
        begin = max(0, int(np.searchsorted(self._block_time[:-1], earliest, "right")) - 1)
        on_their_way: DriftColumns | None = None
        for block, drifted in enumerate(self._drifted(begin, len(self._effects)), begin):
            rows = drifted
            if self._longest_delay_s:
                if on_their_way is not None:
                    rows = DriftColumns.concat([on_their_way, rows])
                here = rows.arrival < self._block_time[block + 1]
                rows, on_their_way = rows.take(here), rows.take(~here)
            if block >= first:
                yield rows.in_order()

    def _read_block(self, block: int) -> DriftColumns:
        rows = next(self._published(block))
        return rows.take(~rows.dropped)

    def _block_of(self, position: int) -> int:
        return int(np.searchsorted(self._block_ordinal, position, "right")) - 1

    def _count(self) -> None:
        """One pass: how many records are published before each block, and how many each drift has touched by then."""
        published, touched = [self._first], [np.zeros(len(self._effects), np.int64)]
        self._first_ordinal = np.full(len(self._effects), -1)
        for rows in self._published(0):
            masks = self._touched(rows)
            place = published[-1] + np.cumsum(~rows.dropped) + rows.dropped
            for number, mask in enumerate(masks):
                if self._first_ordinal[number] < 0 and mask.any():
                    self._first_ordinal[number] = place[np.argmax(mask)]
            published.append(published[-1] + int((~rows.dropped).sum()))
            touched.append(touched[-1] + np.array([int(mask.sum()) for mask in masks], np.int64))
        self._block_ordinal: Int64s = np.array(published, np.int64)
        self._n_touched: list[Int64s] = touched

    def _touched(self, rows: DriftColumns) -> list[Bools]:
        """Per drift the rows in which it shows; in a malformed record no other drift does."""
        masks = []
        for number, effect in enumerate(self._effects):
            shows = ~rows.dropped
            if isinstance(effect, VolumeDrop):
                shows = rows.dropped
            elif not isinstance(effect, Malformed):
                shows &= rows.well_formed
            masks.append(shows & (rows.affected >> number & 1 == 1))
        return masks

    def _touched_before(self, n_published: int) -> Int64s:
        """Per drift how many of the first ``n_published`` records it touched, or left out before the last of them."""
        if n_published >= self.n_ratings:
            return self._n_touched[-1]
        if n_published <= self._first:
            return self._n_touched[0]
        block = self._block_of(n_published - 1)
        rows = next(self._published(block))
        before = self._block_ordinal[block] + np.cumsum(~rows.dropped) - ~rows.dropped < n_published
        within = [int((mask & before).sum()) for mask in self._touched(rows)]
        return self._n_touched[block] + np.array(within, np.int64)


def _draws_of(seed: int, kind: str, earlier_alike: int) -> Draws:
    """Random numbers of one drift, which do not depend on drifts of other kinds beside it."""
    digest = hashlib.blake2b(f"{seed}/{kind}/{earlier_alike}".encode(), digest_size=8).digest()
    return Draws(int.from_bytes(digest, "little"))


def _as_ratings(rows: DriftColumns) -> Ratings:
    return Ratings(
        rows.user_id,
        rows.movie_id,
        rows.rating,
        rows.timestamp,
        arrival=rows.arrival if (rows.arrival != rows.timestamp).any() else None,
        malformed=rows.malformed if rows.malformed.any() else None,
    )

"""The pure core of the features agent: which ratings count, and what they add to each view.

Functions over arrays, without a store, a bus or a clock. Every result is independent of how the log was cut into
batches: what depends on order (duplicates, lateness) carries its state from one call to the next, what is summed is an
integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from featurestore.catalogue import Catalogue
from featurestore.decay import Float64s, day_weights, forward_weights
from featurestore.schema import HISTORY_BLOCK_SIZE, HISTORY_DTYPE
from streams.batch import NO_IDENTITY, InvalidRecord, RatingBatch
from streams.events import DAY_S, HOUR_S
from streams.records import Int64s

__all__ = [
    "Accepted",
    "Admitted",
    "BucketSums",
    "Cursor",
    "HistoryBlocks",
    "Identified",
    "ItemTotals",
    "UserTotals",
    "accept",
    "admit",
    "bucket_sums",
    "find_duplicates",
    "group_by_user",
    "history_blocks",
    "item_totals",
    "last_session",
    "merge_users",
    "taste_sums",
]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one partition is applied, and what the next record of it is judged by."""

    partition: int
    next_offset: int = 0
    clock: int = 0
    closed: int = 0
    end_of_run: bool = False
    ratings: int = 0
    duplicates: int = 0
    late: int = 0
    invalid: int = 0
    emitted: int = 0
    published_ms: int = 0
    last_ids: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """Ratings that count, as columns of shape (n,), in log order per partition."""

    partition: Int64s
    user_id: Int64s
    movie_id: Int64s
    half_stars: Int64s
    timestamp: Int64s
    late: Bools

    def __len__(self) -> int:
        return len(self.timestamp)

    @classmethod
    def none(cls) -> Accepted:
        """No ratings."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing, nothing, nothing, np.zeros(0, bool))

    @classmethod
    def of_history(cls, user_id: Int64s, ratings: npt.NDArray[np.void]) -> Accepted:
        """Ratings as the history holds them, HISTORY_DTYPE (n,), and whose each is, as if on one partition."""
        return cls(
            partition=np.zeros(len(user_id), np.int64),
            user_id=user_id,
            movie_id=ratings["movie_id"].astype(np.int64),
            half_stars=ratings["half_stars"].astype(np.int64),
            timestamp=ratings["timestamp"].astype(np.int64),
            late=ratings["late"].astype(bool),
        )

    def where(self, keep: Bools) -> Accepted:
        """The ratings where ``keep``, bool (n,), is True."""
        return Accepted(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def on_one_partition(self) -> Accepted:
        """The same ratings as if all had come on partition 0."""
        return replace(self, partition=np.zeros(len(self), np.int64))

    @staticmethod
    def concat(parts: list[Accepted]) -> Accepted:
        if len(parts) == 1:
            return parts[0]
        return Accepted(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in Accepted.__dataclass_fields__)
        )


def _max_before(values: Int64s, initial: int) -> Int64s:
    """For each position the maximum of ``initial`` and all values before it."""
    return np.maximum.accumulate(np.concatenate(([initial], values)))[:-1]


class Identified(Protocol):
    """Records in log order. source: int64 (n,), codes into ``sources``. event_id: int64 (n,)."""

    @property
    def source(self) -> Int64s: ...
    @property
    def event_id(self) -> Int64s: ...
    @property
    def sources(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...


def find_duplicates(batch: Identified, last_ids: dict[str, int]) -> tuple[Bools, dict[str, int]]:
    """Records whose id is not above the last one of their source, and the last ids after this batch."""
    duplicate = np.zeros(len(batch), bool)
    after = dict(last_ids)
    for code, name in enumerate(batch.sources):
        of_source = batch.source == code
        whole = bool(of_source.all())
        ids = batch.event_id if whole else batch.event_id[of_source]
        if not len(ids):
            continue
        before = _max_before(ids, last_ids.get(name, NO_IDENTITY))
        duplicate[slice(None) if whole else of_source] = ids <= before
        after[name] = max(int(before[-1]), int(ids[-1]))
    return duplicate, after


def _closed_before(batch: RatingBatch, closed: int) -> Int64s:
    """For each rating the event time of the last boundary tick that stands before it, ``closed`` where none does."""
    position, time = batch.tick_position[batch.tick_boundary], batch.tick_time[batch.tick_boundary]
    reached = np.maximum.accumulate(np.concatenate(([closed], time)))
    return reached[np.searchsorted(position, np.arange(len(batch)), side="right")]


@dataclass(frozen=True, slots=True, eq=False)
class Admitted:
    """Which ratings of a batch count, and which of all lie too far back: bool (n,). after: the cursor after the batch.

    invalid: the records of the batch that are, and were not counted before.
    """

    counts: Bools
    late: Bools
    after: Cursor
    invalid: list[InvalidRecord]


def admit(batch: RatingBatch, cursor: Cursor, *, lateness_s: int) -> Admitted:
    """What of ``batch`` counts for whoever has applied what ``cursor`` says: neither duplicate nor applied before.

    Of a batch that ends at or before the cursor nothing does; of one that straddles it, only what lies beyond.
    Offsets may have gaps. A rating is late if it lies more than ``lateness_s`` before the last boundary tick in front
    of it; it counts all the same.
    """
    if batch.next_offset <= cursor.next_offset:
        return Admitted(np.zeros(len(batch), bool), np.zeros(len(batch), bool), cursor, [])
    new = batch.offset >= cursor.next_offset
    duplicate, last_ids = find_duplicates(batch, cursor.last_ids)
    duplicate &= new
    counts = new & ~duplicate
    late = batch.timestamp < _closed_before(batch, cursor.closed) - lateness_s
    invalid = [record for record in batch.invalid if record.offset >= cursor.next_offset]
    boundary = batch.tick_time[batch.tick_boundary]
    after = replace(
        cursor,
        next_offset=batch.next_offset,
        clock=int(batch.tick_time.max(initial=cursor.clock)),
        closed=int(boundary.max(initial=cursor.closed)),
        end_of_run=cursor.end_of_run or batch.end_of_run,
        ratings=cursor.ratings + int(counts.sum()),
        duplicates=cursor.duplicates + int(duplicate.sum()),
        late=cursor.late + int((late & counts).sum()),
        invalid=cursor.invalid + len(invalid),
        published_ms=batch.published_ms,
        last_ids=last_ids,
    )
    return Admitted(counts, late, after, invalid)


def accept(batch: RatingBatch, cursor: Cursor, *, lateness_s: int) -> tuple[Accepted, Cursor, list[InvalidRecord]]:
    """The ratings of ``batch`` that count, see :func:`admit`, the cursor after it, and its invalid records, each of
    which is emitted. Late ratings are flagged.
    """
    admitted = admit(batch, cursor, lateness_s=lateness_s)
    after = admitted.after
    if admitted.invalid:
        after = replace(after, emitted=cursor.emitted + len(admitted.invalid))
    return _take(batch, admitted.counts, admitted.late), after, admitted.invalid


def _take(batch: RatingBatch, keep: Bools, late: Bools) -> Accepted:
    chosen = slice(None) if keep.all() else keep
    user_id = batch.user_id[chosen]
    return Accepted(
        partition=np.full(len(user_id), batch.partition, np.int64),
        user_id=user_id,
        movie_id=batch.movie_id[chosen],
        half_stars=batch.half_stars[chosen],
        timestamp=batch.timestamp[chosen],
        late=late[chosen],
    )


def _starts(sorted_keys: Int64s) -> Int64s:
    """Where each run of equal keys begins."""
    return np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))


@dataclass(frozen=True, slots=True, eq=False)
class BucketSums:
    """Counts and half-star sums per (bucket, movie, partition), sorted by them; columns of shape (n,)."""

    bucket: Int64s
    movie_id: Int64s
    partition: Int64s
    n: Int64s
    half_stars: Int64s


@dataclass(frozen=True, slots=True, eq=False)
class ItemTotals:
    """All-time sums per (movie, partition), sorted by them; columns of shape (n,). decayed: of day weights."""

    movie_id: Int64s
    partition: Int64s
    n: Int64s
    half_stars: Int64s
    first_rated: Int64s
    last_rated: Int64s
    decayed: Float64s


def bucket_sums(ratings: Accepted) -> tuple[BucketSums, BucketSums]:
    """Sums per hour and per day.

    Hour, movie and partition are packed into one int64 to sort by: hours since the first one of the batch and movie
    codes are small, so they fit whatever the ids are.
    """
    movies, movie_code = np.unique(ratings.movie_id, return_inverse=True)
    partitions, partition_code = np.unique(ratings.partition, return_inverse=True)
    place = movie_code * len(partitions) + partition_code
    places = len(movies) * len(partitions)

    def sums(bucket: Int64s) -> BucketSums:
        first = int(bucket.min())
        key = (bucket - first) * places + place
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        start = _starts(ordered)
        distinct = ordered[start]
        at = distinct % places
        return BucketSums(
            bucket=distinct // places + first,
            movie_id=movies[at // len(partitions)],
            partition=partitions[at % len(partitions)],
            n=np.diff(start, append=len(key)),
            half_stars=np.add.reduceat(ratings.half_stars[order], start),
        )

    return sums(ratings.timestamp // HOUR_S), sums(ratings.timestamp // DAY_S)


def item_totals(ratings: Accepted, half_life_days: float) -> ItemTotals:
    """All-time sums that ``ratings`` add to each movie."""
    order = np.lexsort((ratings.partition, ratings.movie_id))
    movie, partition = ratings.movie_id[order], ratings.partition[order]
    changed = np.concatenate(([True], (movie[1:] != movie[:-1]) | (partition[1:] != partition[:-1])))
    start = np.flatnonzero(changed)
    timestamp = ratings.timestamp[order]
    return ItemTotals(
        movie_id=movie[start],
        partition=partition[start],
        n=np.diff(start, append=len(order)),
        half_stars=np.add.reduceat(ratings.half_stars[order], start),
        first_rated=np.minimum.reduceat(timestamp, start),
        last_rated=np.maximum.reduceat(timestamp, start),
        decayed=np.add.reduceat(day_weights(timestamp // DAY_S, half_life_days), start),
    )


@dataclass(frozen=True, slots=True, eq=False)
class UserTotals:
    """One row per (user, partition), as in the ``users`` table; columns of shape (n,)."""

    user_id: Int64s
    partition: Int64s
    n: Int64s
    half_stars: Int64s
    first_rated: Int64s
    last_rated: Int64s
    session_start: Int64s
    session_n: Int64s


def last_session(timestamps: Int64s, session_gap_s: int) -> tuple[int, int]:
    """Start and number of ratings of the session that ends last: ratings with gaps under ``session_gap_s``.

    >>> last_session(np.array([10, 5000, 5100]), session_gap_s=1800)
    (5000, 2)
    """
    ordered = np.sort(timestamps)
    breaks = np.flatnonzero(np.diff(ordered) >= session_gap_s)
    start = int(breaks[-1]) + 1 if len(breaks) else 0
    return int(ordered[start]), len(ordered) - start


def group_by_user(ratings: Accepted, session_gap_s: int) -> tuple[UserTotals, Int64s, Int64s]:
    """What ``ratings`` hold of each (user, partition), the ratings' order by it, and where each group starts in it.

    Within a group the order is log order. The session is the last one within these ratings alone.
    """
    order = np.lexsort((ratings.partition, ratings.user_id))
    user, partition = ratings.user_id[order], ratings.partition[order]
    changed = np.concatenate(([True], (user[1:] != user[:-1]) | (partition[1:] != partition[:-1])))
    start = np.flatnonzero(changed)
    n = np.diff(start, append=len(order))
    timestamp = ratings.timestamp[order]
    group = np.repeat(np.arange(len(start)), n)
    if bool(((timestamp[1:] < timestamp[:-1]) & ~changed[1:]).any()):
        timestamp = timestamp[np.lexsort((timestamp, group))]
    opens = changed.copy()
    opens[1:] |= np.diff(timestamp) >= session_gap_s
    opening = np.flatnonzero(opens)
    end = start + n
    session_at = opening[np.searchsorted(opening, end, side="left") - 1]
    totals = UserTotals(
        user_id=user[start],
        partition=partition[start],
        n=n,
        half_stars=np.add.reduceat(ratings.half_stars[order], start),
        first_rated=timestamp[start],
        last_rated=timestamp[end - 1],
        session_start=timestamp[session_at],
        session_n=end - session_at,
    )
    return totals, order, start


def taste_sums(ratings: Accepted, order: Int64s, n: Int64s, half_life_days: float, catalogue: Catalogue) -> Float64s:
    """Forward-weighted count and half-star sum per genre, (groups, genres, 2), of :func:`group_by_user`'s groups."""
    weights = forward_weights(ratings.timestamp[order], half_life_days)
    group = np.repeat(np.arange(len(n)), n)
    return catalogue.genre_sums(group, len(n), ratings.movie_id[order], ratings.half_stars[order], weights)


def merge_users(stored: UserTotals, known: Bools, added: UserTotals, session_gap_s: int) -> tuple[UserTotals, Int64s]:
    """Stored rows plus what was added, and the positions whose session must be worked out from their history.

    ``stored`` is aligned with ``added``; where ``known`` is False there is no stored row. Sessions are defined in event
    time, so ratings that reach back into the stored session (or close to it) need the history to be placed.
    """
    in_order = added.first_rated >= stored.last_rated
    apart = stored.session_start - added.last_rated >= session_gap_s
    joins = in_order & (added.first_rated - stored.last_rated < session_gap_s) & (added.session_n == added.n)
    keeps = ~in_order & apart
    start = np.where(joins | keeps, stored.session_start, added.session_start)
    session_n = np.where(joins, stored.session_n + added.session_n, np.where(keeps, stored.session_n, added.session_n))

    def where_known(merged: Int64s, alone: Int64s) -> Int64s:
        return np.where(known, merged, alone)

    merged = UserTotals(
        user_id=added.user_id,
        partition=added.partition,
        n=where_known(stored.n + added.n, added.n),
        half_stars=where_known(stored.half_stars + added.half_stars, added.half_stars),
        first_rated=where_known(np.minimum(stored.first_rated, added.first_rated), added.first_rated),
        last_rated=where_known(np.maximum(stored.last_rated, added.last_rated), added.last_rated),
        session_start=where_known(start, added.session_start),
        session_n=where_known(session_n, added.session_n),
    )
    return merged, np.flatnonzero(known & ~in_order & ~apart)


@dataclass(frozen=True, slots=True, eq=False)
class HistoryBlocks:
    """Bytes to append to history blocks: ``data[start[i]:start[i + 1]]`` to block ``block[i]`` of group ``group[i]``.

    ``start`` has one entry more than there are appends, in bytes.
    """

    group: Int64s
    block: Int64s
    start: Int64s
    data: bytes


def history_blocks(ratings: Accepted, order: Int64s, start: Int64s, n_before: Int64s) -> HistoryBlocks:
    """What to append for each group of :func:`group_by_user`, whose history already holds ``n_before`` ratings."""
    packed = np.empty(len(order), HISTORY_DTYPE)
    packed["timestamp"] = ratings.timestamp[order]
    packed["movie_id"] = ratings.movie_id[order]
    packed["half_stars"] = ratings.half_stars[order]
    packed["late"] = ratings.late[order]
    n = np.diff(start, append=len(order))
    group = np.repeat(np.arange(len(start)), n)
    rank = np.arange(len(order)) - np.repeat(start, n)
    block = (np.repeat(n_before, n) + rank) // HISTORY_BLOCK_SIZE
    cut = np.flatnonzero(np.concatenate(([True], (group[1:] != group[:-1]) | (block[1:] != block[:-1]))))
    return HistoryBlocks(
        group=group[cut],
        block=block[cut],
        start=np.append(cut, len(order)) * HISTORY_DTYPE.itemsize,
        data=packed.tobytes(),
    )

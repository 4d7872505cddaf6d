"""What one event day adds up to, and sums over several days: the only thing that windows are made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np

from agents.monitor_columns import FeedbackColumns, PackedArray, RatingColumns, pack, unpack
from agents.slate_outcomes import JudgedSlates
from streams.records import Int64s

__all__ = ["BINS", "DayBook", "DayBookState", "PopularityProfile", "Seen", "Sums", "add_up"]

BINS = 10
"""Of popularity and of stars."""

Sums = dict[str, float]

_NAMES = (
    *("ratings", "squared_error", "predicted", "users", "audience", "new_users", "movies", "new_movies"),
    *("shown", "clicks", "slates", "sessions", "session_ratings", "judged", "precision", "ndcg"),
    *(f"popularity_{decile}" for decile in range(BINS)),
    *(f"stars_{half_stars}" for half_stars in range(1, BINS + 1)),
)
_COLUMN = {name: number for number, name in enumerate(_NAMES)}


class Seen:
    """Who has ever rated, and who was shown a slate; what was ever rated, and how often each movie was."""

    def __init__(self) -> None:
        self.users: set[int] = set()
        self.audience: set[int] = set()
        self.movies: Counter[int] = Counter()


@dataclass(frozen=True, slots=True, eq=False)
class PopularityProfile:
    """Movies by popularity in training: decile 0 are the most rated, which hold a tenth of the ratings; and so on.

    movie_id: int64 (m,), rising. decile: int64 (m,). counts: ratings by decile, int64 (10,): about a tenth each, since
    movies are whole. A movie that training did not know is in the last one.
    """

    movie_id: Int64s
    decile: Int64s
    counts: Int64s

    @staticmethod
    def of(movies: Counter[int]) -> PopularityProfile:
        """Of how often each movie was rated."""
        ids = np.fromiter(movies, np.int64, len(movies))
        counts = np.fromiter(movies.values(), np.int64, len(movies))
        order = np.lexsort((ids, -counts))
        ids, counts = ids[order], counts[order]
        decile = np.minimum((np.cumsum(counts) - counts) * BINS // max(1, int(counts.sum())), BINS - 1)
        by_decile = np.bincount(decile, counts, minlength=BINS).astype(np.int64)
        rising = np.argsort(ids)
        return PopularityProfile(ids[rising], decile[rising], by_decile)

    def deciles_of(self, movie_id: Int64s) -> Int64s:
        at = np.searchsorted(self.movie_id, movie_id)
        known = np.append(self.movie_id, -1)[at] == movie_id
        return np.where(known, np.append(self.decile, BINS - 1)[at], BINS - 1)


def add_up(
    ratings: RatingColumns,
    feedback: FeedbackColumns,
    judged: JudgedSlates,
    seen: Seen,
    decile: Int64s | None,
) -> tuple[Sums, frozenset[int]]:
    """The sums of a day, and its new users. ``seen`` learns of them. decile: of each rating's movie, once it is known.

    A session counts on the day on which it closes, a slate's outcome on the day on which it is over.
    """
    users = set(ratings.user_id.tolist())
    new_users = frozenset(users - seen.users)
    movies, counts = np.unique(ratings.movie_id, return_counts=True)
    ids = movies.tolist()
    n_new_movies = sum(movie not in seen.movies for movie in ids)
    seen.users |= new_users
    seen.movies.update(dict(zip(ids, counts.tolist(), strict=True)))
    error = ratings.predicted.astype(np.float64) - ratings.half_stars / 2
    told = np.isfinite(error)
    _, of_session = np.unique(np.stack([feedback.user_id, feedback.timestamp]), axis=1, return_index=True)
    sums: Sums = {
        "ratings": len(ratings),
        "squared_error": float((error[told] ** 2).sum()),
        "predicted": int(told.sum()),
        "users": len(users),
        "audience": len(users & seen.audience),
        "new_users": len(new_users),
        "movies": len(ids),
        "new_movies": n_new_movies,
        "shown": int(feedback.n_shown.sum()),
        "clicks": int(feedback.n_clicked.sum()),
        "slates": len(feedback),
        "sessions": len(of_session),
        "session_ratings": int(feedback.n_ratings[of_session].sum()),
        "judged": judged.n,
        "precision": judged.precision,
        "ndcg": judged.ndcg,
    }
    stars = np.bincount(ratings.half_stars, minlength=BINS + 1)
    sums |= {f"stars_{half_stars}": int(stars[half_stars]) for half_stars in range(1, BINS + 1)}
    if decile is not None:
        by_decile = np.bincount(decile, minlength=BINS)
        sums |= {f"popularity_{number}": int(by_decile[number]) for number in range(BINS)}
    return sums, new_users


class DayBookState(msgspec.Struct, frozen=True):
    """``DayBook`` as JSON holds it."""

    days: PackedArray
    sums: PackedArray


class DayBook:
    """The sums of the latest days that had any record, oldest first; days are counted since the epoch.

    >>> book = DayBook()
    >>> book.add(7, {"ratings": 3}, keep_from=0); book.add(9, {"ratings": 4}, keep_from=0)
    >>> book.total(8, 9)["ratings"], book.reaching("ratings", 5, 9)
    (4.0, 7)
    """

    def __init__(self) -> None:
        self._days = np.zeros(0, np.int64)
        self._sums = np.zeros((0, len(_NAMES)))

    def add(self, day: int, sums: Sums, *, keep_from: int) -> None:
        """Close ``day``, later than all before; days before ``keep_from`` are forgotten."""
        row = np.zeros((1, len(_NAMES)))
        for name, value in sums.items():
            row[0, _COLUMN[name]] = value
        first = int(np.searchsorted(self._days, keep_from))
        self._days = np.append(self._days[first:], day)
        self._sums = np.concatenate([self._sums[first:], row])

    def total(self, first_day: int, last_day: int) -> Sums:
        """Sums over the days from the first to the last, both included."""
        begin, end = np.searchsorted(self._days, [first_day, last_day + 1])
        return dict(zip(_NAMES, self._sums[begin:end].sum(axis=0).tolist(), strict=True))

    def reaching(self, name: str, least: int, last_day: int, first_day: int = 0) -> int | None:
        """The latest day from which on to ``last_day`` the sum of ``name`` is ``least`` or more; None for no such."""
        begin, end = np.searchsorted(self._days, [first_day, last_day + 1])
        held = np.cumsum(self._sums[begin:end, _COLUMN[name]][::-1])
        if not len(held) or held[-1] < least:
            return None
        return int(self._days[end - 1 - int(np.searchsorted(held, least))])

    @property
    def first_day(self) -> int | None:
        return int(self._days[0]) if len(self._days) else None

    @property
    def last_day(self) -> int | None:
        return int(self._days[-1]) if len(self._days) else None

    def state(self) -> DayBookState:
        return DayBookState(pack(self._days), pack(self._sums))

    @classmethod
    def of(cls, state: DayBookState) -> DayBook:
        book = cls()
        book._days, book._sums = unpack(state.days), unpack(state.sums)
        return book

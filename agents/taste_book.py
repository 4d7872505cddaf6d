"""What genres each user rated so far, and whether what a user rates today is still of that taste.

A taste that turns moves neither stars nor popularity, but what is rated comes from other genres than before. Of each
user's day two explanations are weighed: it comes from the taste of the user's days before, or from that of somebody
unknown. Both are Dirichlet-multinomial (Pólya's urn), so that neither a short past nor a short day tells much, and a
new taste, which shows only by the day itself, is as likely as any.
"""

from __future__ import annotations

import msgspec
import numpy as np

from agents.monitor_columns import PackedArray, RatingColumns, pack, unpack
from featurestore.catalogue import Catalogue
from models.metrics import Floats
from streams.records import Int64s

__all__ = ["TasteBook", "TasteBookState", "turned"]

_PRIOR = 10.0
"""Movies that a user is taken to have rated as everybody does: how much tastes differ."""
_MOST = 40.0
"""Movies that a past or a day counts at most: what is rated at one time hangs together, so more tell hardly more."""
_TURNING = 0.5
"""Of the users, once tastes turn."""


def turned(rated: Floats, before: Floats, usual: Floats) -> Floats:
    """Log of how much likelier a user's day is where part of all tastes has turned than where none has: float64 (u,).

    rated, before: float64 (u, genres), movies of each genre that the user rated on the day, and before it. usual:
    float64 (genres,), above 0: everybody's shares. It is log(1 - p + p * B) with p the part of the users who turn and B
    the Bayes factor of somebody unknown: at least log(1 - p), so one faithful user is no proof, and 0 of users without
    a past.

    >>> turned(np.array([[8.0, 0], [0, 8]]), np.array([[20.0, 0], [20, 0]]), np.array([0.5, 0.5])).round(2).tolist()
    [-0.62, 6.68]
    """
    somebody = np.broadcast_to(_PRIOR * usual, rated.shape)
    day = _at_most(rated)
    factor = _log_likelihood(day, somebody) - _log_likelihood(day, somebody + _at_most(before))
    found: Floats = np.logaddexp(np.log1p(-_TURNING), np.log(_TURNING) + factor)
    return found


def _at_most(movies: Floats) -> Floats:
    total = movies.sum(axis=1, keepdims=True)
    scaled: Floats = movies * (_MOST / np.maximum(total, _MOST))
    return scaled


def _log_likelihood(counts: Floats, concentration: Floats) -> Floats:
    """Dirichlet-multinomial, of counts in a given order: (u, genres) both; (u,)."""
    from scipy.special import gammaln

    n, total = counts.sum(axis=1), concentration.sum(axis=1)
    found: Floats = gammaln(total) - gammaln(total + n)
    found += (gammaln(concentration + counts) - gammaln(concentration)).sum(axis=1)
    return found


class TasteBookState(msgspec.Struct, frozen=True):
    """``TasteBook`` as JSON holds it: users in the order in which they came, movies by user and genre, and by genre."""

    users: PackedArray
    counts: PackedArray
    everybody: PackedArray


class TasteBook:
    """Movies rated, by user and genre of ``catalogue``; without genres no taste turns.

    A movie counts one, in equal parts for each of its genres: they come together, so each tells but a part.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._row: dict[int, int] = {}
        self._counts = np.zeros((0, len(catalogue.genres)))
        self._everybody = np.zeros(len(catalogue.genres))

    def add(self, ratings: RatingColumns) -> Floats:
        """Take in a day's ratings; :func:`turned` of each of its users, by rising id: float64 (u,).

        NaN for a user of whom no genre is known from the days before, or none of the day.
        """
        users, owner = np.unique(ratings.user_id, return_inverse=True)
        found = np.full(len(users), np.nan)
        if not len(users) or not self._catalogue.genres:
            return found
        movies, movie = np.unique(ratings.movie_id, return_inverse=True)
        rated = np.zeros((len(users), len(self._everybody)))
        np.add.at(rated, owner, self._genres_of(movies)[movie])
        row = self._rows_of(users)
        before = self._counts[row]
        known = (rated.any(axis=1)) & (before.any(axis=1))
        usual = (self._everybody + 1) / (self._everybody + 1).sum()  # none is impossible
        found[known] = turned(rated[known], before[known], usual)
        self._counts[row] += rated
        self._everybody += rated.sum(axis=0)
        return found

    def state(self) -> TasteBookState:
        users = np.fromiter(self._row, np.int64, len(self._row))
        return TasteBookState(pack(users), pack(self._counts[: len(users)]), pack(self._everybody))

    @classmethod
    def of(cls, state: TasteBookState, catalogue: Catalogue) -> TasteBook:
        """Raises ValueError for a state over other genres."""
        book = cls(catalogue)
        users, counts = unpack(state.users), unpack(state.counts)
        if counts.shape != (len(users), len(catalogue.genres)):
            raise ValueError(
                f"taste: expected counts of {len(users)} users by {len(catalogue.genres)} genres, found {counts.shape}"
            )
        book._row = {user: row for row, user in enumerate(users.tolist())}
        book._counts, book._everybody = counts.copy(), unpack(state.everybody).copy()
        return book

    def _genres_of(self, movies: Int64s) -> Floats:
        """What part of each movie is of each genre: float64 (m, genres); 0 everywhere for a movie without any."""
        one = np.ones(len(movies))
        sums = self._catalogue.genre_sums(np.arange(len(movies)), len(movies), movies, one.astype(np.int64), one)
        has = sums[:, :, 0]
        parts: Floats = has / np.maximum(has.sum(axis=1, keepdims=True), 1)
        return parts

    def _rows_of(self, users: Int64s) -> Int64s:
        """Of each user; a new one gets an empty one."""
        rows = np.array([self._row.setdefault(user, len(self._row)) for user in users.tolist()], np.int64)
        if (missing := len(self._row) - len(self._counts)) > 0:
            more = max(missing, len(self._counts) // 2)  # rarely, so that a day costs what it holds
            self._counts = np.concatenate([self._counts, np.zeros((more, self._counts.shape[1]))])
        return rows

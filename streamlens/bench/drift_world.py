"""A world that does not change by itself, so that what is found in it is what was put in, or a false alarm.

Made for `bench drift`: sessions of users at random times, movies by taste and popularity, stars by user, movie and
taste; and a champion with it, fitted on the training part: stars by regularised means of users and movies, slates by
popularity within the genre that a user rated most so far. Slates and clicks are those of :mod:`models.slates`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agents.monitor_columns import FeedbackColumns, RatingColumns, SlateColumns
from models.interactions import Float32s
from models.metrics import Floats
from models.ranking import NO_MOVIE
from models.slates import SESSION_GAP_S, SLATE_SIZE, clicked_slates, find_sessions
from streams.dataset import Movie, Ratings
from streams.events import DAY_S
from streams.records import Int64s

__all__ = ["EVENTS_PER_DAY", "START", "Champion", "World", "columns_of", "make_ratings"]

START = 14_000 * DAY_S
EVENTS_PER_DAY = 500

_N_MOVIES, _N_GENRES = 2_000, 10
_RATINGS_PER_SESSION, _SESSION_SIGMA = 8.0, 1.0
_REGULARS = 300  # users there from the start on; gone before the training part ends
_RETURNING = 3.0  # sessions of a user on average
_TASTE = 6.0  # how much more often a user turns to the genre of his taste
_ZIPF_SHIFT, _ZIPF_EXPONENT = 10.0, 1.1
_USER_SIGMA, _MOVIE_SIGMA, _LIKING, _NOISE = 0.4, 0.4, 0.3, 0.85
_MEAN_STARS = 3.5


@dataclass(slots=True, eq=False)
class World:
    """Ratings held in memory, as a dataset that drift can be put into. genre: int64 (m,), of movie i + 1."""

    ratings: Ratings
    genre: Int64s
    name: str = "stationary"
    fingerprint: str = "stationary"

    @property
    def n_ratings(self) -> int:
        return len(self.ratings)

    @property
    def first_timestamp(self) -> int:
        return int(self.ratings.timestamp[0])

    @property
    def last_timestamp(self) -> int:
        return int(self.ratings.timestamp[-1])

    def until(self, timestamp: int) -> World:
        """What comes before ``timestamp``."""
        return World(self.ratings.slice(0, self.position_of(timestamp)), self.genre)

    def timestamp_at(self, position: int) -> int:
        return int(self.ratings.timestamp[position])

    def position_of(self, timestamp: int) -> int:
        return int(np.searchsorted(self.ratings.timestamp, timestamp))

    def chunks(self, *, start: int = 0, size: int = 100_000) -> Iterator[Ratings]:
        for at in range(start, len(self.ratings), size):
            yield self.ratings.slice(at, at + size)

    def movies(self) -> dict[int, Movie]:
        return {i + 1: Movie(i + 1, f"Movie {i + 1}", 2000, (f"Genre {g}",)) for i, g in enumerate(self.genre.tolist())}


def make_ratings(n: int, seed: int) -> World:
    """About ``n`` ratings from :data:`START` on, :data:`EVENTS_PER_DAY` a day, in their total order."""
    random = np.random.default_rng(seed)
    mean_length = _RATINGS_PER_SESSION * np.exp(_SESSION_SIGMA**2 / 2)
    n_sessions = max(1, round(n / mean_length))
    span = n / EVENTS_PER_DAY * DAY_S
    begins = np.sort(random.uniform(0, span, n_sessions))
    user = _users(random, n_sessions)
    lengths = np.maximum(1, np.rint(random.lognormal(np.log(_RATINGS_PER_SESSION), _SESSION_SIGMA, n_sessions)))
    lengths = np.minimum(lengths.astype(np.int64), 400)
    session = np.repeat(np.arange(n_sessions), lengths)
    number = np.arange(len(session)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    timestamp = START + begins[session].astype(np.int64) + number * 20
    owner = user[session]
    genre, movie = _movies(random, owner)
    stars = _stars(random, owner, movie, genre)
    user_id, movie_id = owner + 1, movie + 1
    order = np.lexsort((movie_id, user_id, timestamp))
    return World(Ratings(user_id[order], movie_id[order], stars[order], timestamp[order]), genre)


def _users(random: np.random.Generator, n_sessions: int) -> Int64s:
    """Each session's: a new one, or one of the recent ones again, so that the share of new users stays as it is."""
    new = random.uniform(size=n_sessions) < 1 / _RETURNING
    number = _REGULARS + np.cumsum(new) - 1
    back = np.minimum(random.geometric(5 / _REGULARS, n_sessions) - 1, number)
    return np.where(new, number, number - back)


def _movies(random: np.random.Generator, owner: Int64s) -> tuple[Int64s, Int64s]:
    """The genre of every movie, and what each rating is of."""
    genre = np.arange(_N_MOVIES) % _N_GENRES
    weight = (np.arange(_N_MOVIES) // _N_GENRES + _ZIPF_SHIFT) ** -_ZIPF_EXPONENT
    taste = random.integers(0, _N_GENRES, int(owner.max()) + 1)
    turned = random.uniform(size=len(owner)) < _TASTE / (_TASTE + _N_GENRES - 1)
    chosen = np.where(turned, taste[owner], random.integers(0, _N_GENRES, len(owner)))
    mass = np.cumsum(weight[::_N_GENRES])
    rank = np.searchsorted(mass, random.uniform(0, mass[-1], len(owner)))
    return genre, rank * _N_GENRES + chosen


def _stars(random: np.random.Generator, owner: Int64s, movie: Int64s, genre: Int64s) -> Floats:
    n_users = int(owner.max()) + 1
    of_user, of_movie = random.normal(0, _USER_SIGMA, n_users), random.normal(0, _MOVIE_SIGMA, _N_MOVIES)
    likes = random.normal(0, _LIKING, (n_users, _N_GENRES))
    opinion = _MEAN_STARS + of_user[owner] + of_movie[movie] + likes[owner, genre[movie]]
    return np.clip(np.rint((opinion + random.normal(0, _NOISE, len(owner))) * 2), 1, 10) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """Fitted on a training part. movie_stars: (m + 1,), by movie id. ranked: (genres, r), movie ids, best first."""

    mean: float
    movie_stars: Floats
    ranked: Int64s
    genre: Int64s

    @staticmethod
    def fit(ratings: Ratings, genre: Int64s) -> Champion:
        n_movies = len(genre) + 1
        counts = np.bincount(ratings.movie_id, minlength=n_movies)
        mean = float(ratings.rating.mean())
        movie_stars = np.bincount(ratings.movie_id, ratings.rating - mean, minlength=n_movies) / (counts + 5.0)
        of_movie = np.append(-1, genre)
        ranked = [
            members[np.lexsort((members, -counts[members]))]
            for members in (np.flatnonzero(of_movie == g) for g in range(int(genre.max()) + 1))
        ]
        return Champion(mean, movie_stars, np.stack(ranked), of_movie)

    def stars(self, ratings: Ratings) -> Float32s:
        """Of each rating, from the ratings of its user before it: float32 (n,)."""
        rest = ratings.rating - self.mean - self.movie_stars[ratings.movie_id]
        before, n_before = _running(ratings.user_id, rest)
        return (self.mean + self.movie_stars[ratings.movie_id] + before / (n_before + 3.0)).astype(np.float32)

    def slates(self, ratings: Ratings, at: Int64s) -> Int64s:
        """For the ratings at ``at``: of the genre that the user rated most before, what comes next in its ranking.

        Each slate of a user goes on where the one before it ended, since nobody is shown the same again; the genre of
        a user without a history is the first one.
        """
        n_genres = len(self.ranked)
        rated = np.zeros((len(ratings), n_genres))
        for g in range(n_genres):
            rated[:, g], _ = _running(ratings.user_id, (self.genre[ratings.movie_id] == g).astype(np.float64))
        genre = rated[at].argmax(axis=1)
        _, n_slates = _running(ratings.user_id[at], np.zeros(len(at)))
        first = (n_slates * SLATE_SIZE) % (self.ranked.shape[1] - SLATE_SIZE)
        slates: Int64s = self.ranked[genre[:, None], first[:, None] + np.arange(SLATE_SIZE)]
        return slates


def _running(group: Int64s, values: Floats) -> tuple[Floats, Int64s]:
    """Of each value's group, the sum and the number of those before it: (n,) both."""
    order = np.argsort(group, kind="stable")
    ordered = values[order]
    begins = np.ones(len(group), bool)
    begins[1:] = np.diff(group[order]) != 0
    number, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    sums = np.cumsum(ordered) - ordered
    before, n_before = np.empty(len(group)), np.empty(len(group), np.int64)
    before[order] = sums - sums[first][number]
    n_before[order] = np.arange(len(group)) - first[number]
    return before, n_before


def columns_of(ratings: Ratings, champion: Champion) -> tuple[RatingColumns, SlateColumns, FeedbackColumns]:
    """What a loop would tell the monitor of ``ratings``, in their order."""
    n = len(ratings)
    shared = {"source": np.zeros(n, np.int64), "event_id": np.arange(1, n + 1)}
    told = RatingColumns(
        timestamp=ratings.timestamp,
        user_id=ratings.user_id,
        movie_id=ratings.movie_id,
        half_stars=np.rint(ratings.rating * 2).astype(np.int64),
        predicted=champion.stars(ratings),
        sources=("bench",),
        **shared,
    )
    sessions = find_sessions(ratings.user_id, ratings.timestamp)
    at = sessions.triggers
    movies = champion.slates(ratings, at)
    clicked = clicked_slates(sessions.session, ratings.movie_id, sessions.session[at], at, movies)
    length = np.bincount(sessions.session)
    ends = np.zeros(len(length), np.int64)
    np.maximum.at(ends, sessions.session, ratings.timestamp)
    of_slate = sessions.session[at]
    shared = {"source": np.zeros(len(at), np.int64), "event_id": np.arange(1, len(at) + 1)}
    slates = SlateColumns(
        timestamp=ratings.timestamp[at], user_id=ratings.user_id[at], movie_ids=movies, sources=("bench",), **shared
    )
    feedback = FeedbackColumns(
        timestamp=ends[of_slate] + SESSION_GAP_S,
        user_id=ratings.user_id[at],
        n_shown=(movies != NO_MOVIE).sum(axis=1),
        n_clicked=np.bincount(clicked[clicked >= 0], minlength=len(at)),
        n_ratings=length[of_slate],
        simulated=np.zeros(len(at), bool),
        sources=("bench",),
        **shared,
    )
    return told, slates, feedback

"""Sessions, slates and clicks: when recommendations are made, and which rating counts as a click on which of them.

- A **session** is a user's ratings with gaps under 30 minutes.
- A **slate** of 10 movies is due at its start and again after every 10 ratings: the 1st, 11th, 21st, ... rating of a
  session *triggers* one, made from what the user rated before the time of that rating.
- A rating **clicks** the newest slate of its session, made no later than at this rating, that shows the movie; stars do
  not matter. A slate's movie is clicked once: a further rating of it clicks nothing.

Ratings come in their total order, (timestamp, user, movie). Offline evaluation and the live loop share these functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.ranking import NO_MOVIE
from streams.events import DAY_S
from streams.records import Int64s

__all__ = [
    "LIKED_STARS",
    "OUTCOME_S",
    "SESSION_GAP_S",
    "SLATE_EVERY",
    "SLATE_SIZE",
    "Sessions",
    "clicked_slates",
    "continues_session",
    "find_sessions",
    "slate_due",
]

SESSION_GAP_S = 1_800
SLATE_SIZE = 10
SLATE_EVERY = 10
"""Ratings of a session from one slate to the next."""
LIKED_STARS = 4.0
OUTCOME_S = 7 * DAY_S
"""A slate's precision is judged by what its user rates LIKED_STARS or more within so many seconds of it."""


def continues_session(previous: int | None, timestamp: int) -> bool:
    """Whether a rating belongs to the session of the user's ``previous`` one, None for the first.

    >>> continues_session(1_000, 2_799), continues_session(1_000, 2_800), continues_session(None, 5)
    (True, False, False)
    """
    return previous is not None and timestamp - previous < SESSION_GAP_S


def slate_due(n_before: int) -> bool:
    """Whether the rating after ``n_before`` others of its session triggers a slate.

    >>> [n for n in range(25) if slate_due(n)]
    [0, 10, 20]
    """
    return n_before % SLATE_EVERY == 0


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """Of n ratings, each one's session, numbered from 0, and how many ratings of it came before: int64 (n,)."""

    session: Int64s
    n_before: Int64s

    @property
    def triggers(self) -> Int64s:
        """Positions of the ratings that trigger a slate, rising."""
        return np.flatnonzero(self.n_before % SLATE_EVERY == 0)


def find_sessions(user_id: Int64s, timestamp: Int64s) -> Sessions:
    """The sessions of ratings (n,) in event time. Raises ValueError where time goes back.

    >>> found = find_sessions(np.array([1, 2, 1, 1]), np.array([0, 50, 60, 1_860]))
    >>> found.session.tolist(), found.n_before.tolist()
    ([0, 2, 0, 1], [0, 0, 1, 0])
    """
    if (np.diff(timestamp) < 0).any():
        raise ValueError("sessions: expected ratings in event time, found one earlier than the rating before it")
    n = len(user_id)
    order = np.argsort(user_id, kind="stable")
    begins = np.ones(n, bool)
    begins[1:] = (np.diff(user_id[order]) != 0) | (np.diff(timestamp[order]) >= SESSION_GAP_S)
    number = np.cumsum(begins) - 1
    session, n_before = np.empty(n, np.int64), np.empty(n, np.int64)
    session[order] = number
    n_before[order] = np.arange(n) - np.flatnonzero(begins)[number]
    return Sessions(session, n_before)


def clicked_slates(
    session: Int64s, movie_id: Int64s, slate_session: Int64s, slate_at: Int64s, slate_movies: Int64s
) -> Int64s:
    """The slate that each rating clicks, -1 for none: int64 (n,).

    session, movie_id: (n,), of ratings in their order. slate_session, slate_at: (s,), each slate's session and the
    position of the rating that triggers it. slate_movies: (s, k), ``NO_MOVIE`` where none is shown.

    >>> slates = np.array([[7, 8], [8, 9]])
    >>> ratings = np.array([8, 8, 8, 7])
    >>> clicked_slates(np.zeros(4, int), ratings, np.zeros(2, int), np.array([0, 1]), slates).tolist()
    [0, 1, -1, 0]
    """
    n, k = len(session), slate_movies.shape[1]
    width = 1 + max(int(movie_id.max(initial=0)), int(slate_movies.max(initial=0)))
    slate = np.repeat(np.arange(len(slate_movies)), k)
    shown = slate_movies.ravel()
    slate, shown = slate[shown != NO_MOVIE], shown[shown != NO_MOVIE]
    shelf, at = slate_session[slate] * width + shown, slate_at[slate]  # a movie within a session
    order = np.lexsort((at, shelf))
    slate, shelf, at = slate[order], shelf[order], at[order]
    shelves, first = np.unique(shelf, return_index=True)
    number = np.repeat(np.arange(len(shelves)), np.diff(np.append(first, len(shelf))))
    wanted = session * width + movie_id
    found = np.searchsorted(shelves, wanted)
    there = np.append(shelves, -1)[found] == wanted
    newest = np.searchsorted(number * n + at, found * n + np.arange(n), "right") - 1
    candidate = np.flatnonzero(there & (newest >= np.append(first, 0)[found]))
    entry = newest[candidate]
    _, earliest = np.unique(entry, return_index=True)  # once per slate and movie
    clicked = np.full(n, -1, np.int64)
    clicked[candidate[earliest]] = slate[entry[earliest]]
    return clicked

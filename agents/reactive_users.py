"""Users of a synthetic world who look at their slates and click, so that a better model has an effect that is real.

A replay's users cannot react: what they rated they had rated before any slate was made. These can, but they are made
up, and whatever is told of them says so (``Feedback.simulated``).

A user who sees a slate would rate ``picks`` more movies of all there are, each by the world's known taste at that time,
and clicks those among them that are shown. (ASSUMPTION: as many as a replay's users rate from one slate to the next.)
So the chance of a click is ``1 - (1 - a) ** picks``, with ``a`` the chance that the user's next rating is of the movie
(:meth:`streams.synthetic.Oracle.affinity`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.metrics import Floats
from models.slates import SESSION_GAP_S, SLATE_EVERY
from streams.events import DAY_S, Feedback, Slate
from streams.records import Int64s
from streams.synthetic import Oracle

__all__ = ["ReactiveUsers"]


@dataclass(frozen=True, slots=True)
class ReactiveUsers:
    """The users of the world whose taste ``oracle`` knows. seed: other seeds, other clicks of the same taste."""

    oracle: Oracle
    picks: int = SLATE_EVERY
    seed: int = 0

    def chances(self, slates: Sequence[Slate]) -> Floats:
        """The chance that each movie shown is clicked, slate by slate: float64 (movies shown,).

        Raises KeyError for users or movies that are not of the world.
        """
        users = np.repeat([slate.user_id for slate in slates], [len(slate.movie_ids) for slate in slates])
        movies = np.array([movie for slate in slates for movie in slate.movie_ids], np.int64)
        days = np.repeat([slate.timestamp // DAY_S for slate in slates], [len(slate.movie_ids) for slate in slates])
        chance = np.zeros(len(movies))
        for day in np.unique(days).tolist():
            at = np.flatnonzero(days == day)
            chance[at] = self.oracle.affinity(_int64(users[at]), movies[at], timestamp=day * DAY_S)
        clicked: Floats = 1.0 - (1.0 - chance) ** self.picks
        return clicked

    def answer(self, slates: Sequence[Slate]) -> list[Feedback]:
        """What comes of each slate, at once: a visit of its own, since these users do nothing but look and click."""
        drawn = np.concatenate([np.zeros(0), *(self._draws(slate) for slate in slates)])
        clicks = iter((drawn < self.chances(slates)).tolist())
        return [_feedback(slate, [movie for movie in slate.movie_ids if next(clicks)]) for slate in slates]

    def answer_known(self, slates: Sequence[Slate]) -> list[Feedback | None]:
        """As :meth:`answer`; None for a slate whose user or movies are not of the world: nobody here saw it."""
        if not slates:
            return []
        try:
            return list(self.answer(slates))
        except KeyError:
            if len(slates) == 1:
                return [None]
            middle = len(slates) // 2
            return [*self.answer_known(slates[:middle]), *self.answer_known(slates[middle:])]

    def _draws(self, slate: Slate) -> Floats:
        """The same each time a slate is answered, whatever it is answered with."""
        digest = hashlib.blake2b(f"{self.seed}/{slate.slate_id}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest, "big")).random(len(slate.movie_ids))


def _feedback(slate: Slate, clicked: list[int]) -> Feedback:
    return Feedback(
        slate_id=slate.slate_id,
        session_id=slate.session_id,
        user_id=slate.user_id,
        variant=slate.variant,
        model_version=slate.model_version,
        n_shown=len(slate.movie_ids),
        clicked=clicked,
        n_ratings=len(clicked),
        session_seconds=0,
        timestamp=slate.timestamp + SESSION_GAP_S,
        simulated=True,
    )


def _int64(values: np.ndarray) -> Int64s:
    return values.astype(np.int64)

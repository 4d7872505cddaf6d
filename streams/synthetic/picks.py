"""Which movies users pick: by taste, popularity and release date, and never the same one twice.

The unit is the user: all picks of a lifetime are drawn at once, when the user first appears, and held until the last
session. So a movie is never picked twice, and reading can begin anywhere at the cost of the users active there.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from streams.events import DAY_S
from streams.records import Int64s
from streams.synthetic.catalogue import Catalogue
from streams.synthetic.draws import Draws
from streams.synthetic.schedule import Schedule, spread
from streams.synthetic.taste import NOVELTY_DAYS, NOVELTY_SHARE, Taste

__all__ = ["Picks"]

_CELLS = 16_000_000  # users at once times movies: 16 MB of flags
_FLATTEN_AFTER = 8  # rounds, before popularity stops to count for who has seen all that is popular
_WIDEN_AFTER = 16  # rounds, before taste stops to count too
_LAST_ROUND = 32


class Picks:
    """The picks of the users who are active now."""

    def __init__(self, schedule: Schedule, catalogue: Catalogue, taste: Taste, draws: Draws) -> None:
        self._schedule, self._catalogue, self._taste, self._draws = schedule, catalogue, taste, draws
        self._picks: dict[int, npt.NDArray[np.int32]] = {}
        self._last_end = (
            schedule.start[schedule.session_base[1:] - 1] + schedule.duration[schedule.session_base[1:] - 1]
        )

    def forget_before(self, timestamp: int) -> None:
        """Drop users whose last session is over."""
        gone = [user for user in self._picks if self._last_end[user] < timestamp]
        for user in gone:
            del self._picks[user]

    def of_sessions(self, sessions: Int64s) -> Int64s:
        """Positions in the catalogue, for the ratings of ``sessions`` one session after the other."""
        s = self._schedule
        users = s.user[sessions].tolist()
        self._draw_missing(users)
        first = s.rating_base[s.session_base[s.user[sessions]]]
        begins = (s.rating_base[sessions] - first).tolist()
        ends = (s.rating_base[sessions + 1] - first).tolist()
        picks = self._picks
        parts = [picks[user][begin:end] for user, begin, end in zip(users, begins, ends, strict=True)]
        return np.concatenate(parts).astype(np.int64)

    def _draw_missing(self, users: Iterable[int]) -> None:
        missing = np.array(sorted(set(users) - self._picks.keys()), np.int64)
        step = max(1, _CELLS // len(self._catalogue))
        for begin in range(0, len(missing), step):
            self._draw(missing[begin : begin + step])

    def _draw(self, users: Int64s) -> None:
        """All picks of ``users``: candidates are drawn in rounds, and those already picked are drawn anew."""
        s, m = self._schedule, len(self._catalogue)
        base = s.rating_base[s.session_base[users]]
        counts = s.rating_base[s.session_base[users + 1]] - base
        numbers, firsts = spread(base, counts)
        owner = np.repeat(np.arange(len(users)), counts)
        days = self._days(users)
        shares = np.cumsum(self._taste.theme_shares(users), axis=1)
        shares[:, -1] = 1.0
        themes = (shares + np.arange(len(users))[:, None]).ravel()
        taken = np.zeros(len(users) * m, np.bool_)
        picked = np.empty(len(numbers), np.int32)
        pending = np.arange(len(numbers))
        for attempt in range(_LAST_ROUND):
            candidates = self._candidates(attempt, numbers[pending], owner[pending], days[pending], themes)
            keys, first = _earliest(owner[pending] * m + candidates)
            fresh = ~taken[keys]
            taken[keys[fresh]] = True
            accepted = first[fresh]
            picked[pending[accepted]] = candidates[accepted]
            pending = np.delete(pending, accepted)
            if not len(pending):
                break
        for at in pending.tolist():  # whoever has seen nearly all there is
            free = self._free(taken[owner[at] * m : (owner[at] + 1) * m], int(days[at]))
            picked[at] = free[int(numbers[at]) % len(free)]
            taken[owner[at] * m + picked[at]] = True
        self._picks.update(zip(users.tolist(), np.split(picked, firsts[1:]), strict=True))

    def _days(self, users: Int64s) -> Int64s:
        """Event day of each rating of ``users``: that on which its session starts."""
        s = self._schedule
        sessions, _ = spread(s.session_base[users], s.session_base[users + 1] - s.session_base[users])
        return np.repeat(s.start[sessions] // DAY_S, s.rating_base[sessions + 1] - s.rating_base[sessions])

    def _candidates(
        self, attempt: int, numbers: Int64s, owner: Int64s, days: Int64s, themes: npt.NDArray[np.float64]
    ) -> Int64s:
        c, k = self._catalogue, self._catalogue.n_themes
        chance = self._draws.uniform(f"theme {attempt}", numbers)
        if attempt < _WIDEN_AFTER:
            theme = np.minimum(np.searchsorted(themes, owner + chance) - owner * k, k - 1)
        else:
            theme = (chance * k).astype(np.int64)
        end = c.released_by(theme, days)
        begin: Int64s = c.base[theme]
        new = self._draws.uniform(f"novelty {attempt}", numbers) < NOVELTY_SHARE
        since = c.released_by(theme[new], days[new] - NOVELTY_DAYS)
        begin[new] = np.where(since < end[new], since, begin[new])
        chance = self._draws.uniform(f"movie {attempt}", numbers)
        if attempt >= _FLATTEN_AFTER:
            begin += (chance * (end - begin)).astype(np.int64)
            return begin
        low = c.mass[begin]
        mass = low + chance * (c.mass[end] - low)
        order = np.argsort(mass)  # neighbours find each other in the cache: half the time
        found = np.empty_like(begin)
        found[order] = np.searchsorted(c.mass, mass[order], "right") - 1
        return np.clip(found, begin, end - 1, out=found)

    def _free(self, taken: npt.NDArray[np.bool_], day: int) -> Int64s:
        """What a user has not picked of what is out; where that is nothing, of what will be."""
        c = self._catalogue
        themes = np.arange(c.n_themes)
        end = c.released_by(themes, np.full(c.n_themes, day))
        out = np.arange(len(c)) < end[c.theme]
        free = np.flatnonzero(out & ~taken)
        return free if len(free) else np.flatnonzero(~taken)


def _earliest(keys: Int64s) -> tuple[Int64s, Int64s]:
    """Distinct keys below 2**31 and where each stands first: ``np.unique`` with its index, five times as fast."""
    packed = np.sort((keys << 32) | np.arange(len(keys)))
    distinct, at = packed >> 32, packed & 0xFFFFFFFF
    first = np.concatenate([[True], distinct[1:] != distinct[:-1]])
    return distinct[first], at[first]

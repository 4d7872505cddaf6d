"""``taste-shift``: 20, 40 or 80 % of the users like other genres from now on; movies stay as popular as before."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.dataset import Movie
from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.drift.tally import Tally, mapped
from streams.errors import ConfigError
from streams.records import Int64s
from streams.synthetic.draws import Draws

__all__ = ["TasteShift", "genre_cycles", "genre_permutation", "leading_genres"]

_USERS = {"low": 0.20, "middle": 0.40, "high": 0.80}
NO_GENRE = "(no genres listed)"


def leading_genres(movie_ids: Sequence[int], counts: Sequence[int], movies: Mapping[int, Movie]) -> list[str]:
    """Of each movie, the genre that says most about it: of those it has, the one with the fewest ratings."""
    genres = [movies[m].genres if m in movies and movies[m].genres else (NO_GENRE,) for m in movie_ids]
    mass: dict[str, int] = {}
    for names, count in zip(genres, counts, strict=True):
        for name in names:
            mass[name] = mass.get(name, 0) + count
    return [min(names, key=lambda name: (mass[name], name)) for names in genres]


def genre_cycles(mass: Mapping[str, int]) -> list[list[str]]:
    """Genres that change places: two neighbours by number of ratings each, and three at the end of an odd number.

    >>> genre_cycles({"War": 1, "Drama": 9, "Comedy": 8, "Crime": 5, "Horror": 2})
    [['Drama', 'Comedy'], ['Crime', 'Horror', 'War']]
    """
    names = sorted(mass, key=lambda name: (-mass[name], name))
    cut = len(names) - 3 if len(names) % 2 and len(names) > 1 else len(names)
    cycles = [names[i : i + 2] for i in range(0, cut, 2)]
    return [*cycles, names[cut:]] if cut < len(names) else cycles


def genre_permutation(ranked: Sequence[int], genres: Sequence[str], cycles: Sequence[Sequence[str]]) -> dict[int, int]:
    """Where each movie goes: to the movie of the same rank in its genre's successor.

    ranked: movie ids, the most popular first; genres: the leading genre of each. Movies of a genre that has more of
    them than its partner are left over; of these, each changes places with the next one of another genre. What is
    left of one genre then stays where it is, and is in no pair.
    """
    of_genre: dict[str, list[int]] = {}
    for movie, genre in zip(ranked, genres, strict=True):
        of_genre.setdefault(genre, []).append(movie)
    goes: dict[int, int] = {}
    for cycle in cycles:
        for row in zip(*(of_genre[genre] for genre in cycle), strict=False):
            goes.update(zip(row, (*row[1:], row[0]), strict=True))
    waiting: deque[tuple[int, str]] = deque()  # all of one genre
    for movie, genre in zip(ranked, genres, strict=True):
        if movie in goes:
            continue
        if waiting and waiting[0][1] != genre:
            partner, _ = waiting.popleft()
            goes[movie], goes[partner] = partner, movie
        else:
            waiting.append((movie, genre))
    return goes


@dataclass(frozen=True, slots=True, eq=False)
class TasteShift:
    """From the beginning on, some users rate, in place of a movie, its counterpart in another genre.

    Its strength is the part of the affected part's users whose taste turns, exact to one user; a hash of the user
    chooses them. The counterpart has the same rank in its genre, and no two movies have the same one: how ratings
    spread over the ranks of popularity stays, and what they are about changes.
    """

    share: float
    n_users: int
    n_shifted: int
    threshold: int
    cycles: list[list[str]]
    sources: Int64s
    targets: Int64s
    moved_share: float
    draws: Draws

    @staticmethod
    def learn(upstream: Upstream) -> TasteShift:
        movies, users = Tally(), Tally()
        for rows in upstream.affected_part():
            movies.add(rows.movie_id)
            users.add(rows.user_id)
        order = movies.by_popularity
        ranked, counts = movies.ids[order].tolist(), movies.counts[order].tolist()
        leading = leading_genres(ranked, counts, upstream.movies())
        mass: dict[str, int] = {}
        for genre, count in zip(leading, counts, strict=True):
            mass[genre] = mass.get(genre, 0) + count
        if len(mass) < 2:
            raise ConfigError(
                f"drift {upstream.spec}: expected rated movies of two genres or more from week {upstream.spec.week} "
                f"on, found {len(mass)}; taste has nowhere to turn in this data"
            )
        cycles = genre_cycles(mass)
        goes = genre_permutation(ranked, leading, cycles)
        sources = np.array(sorted(goes), np.int64)
        share = _USERS[upstream.spec.strength]
        n_shifted = max(1, round(share * len(users.ids)))
        bits = np.sort(upstream.draws.bits("user", users.ids))
        moved = int(movies.counts[np.isin(movies.ids, sources)].sum()) / int(movies.counts.sum())
        return TasteShift(
            share,
            n_users=len(users.ids),
            n_shifted=n_shifted,
            threshold=int(bits[n_shifted - 1]),
            cycles=cycles,
            sources=sources,
            targets=np.array([goes[movie] for movie in sources.tolist()], np.int64),
            moved_share=moved,
            draws=upstream.draws,
        )

    def shifts(self, user_id: Int64s) -> Bools:
        """Whose taste turns."""
        return self.draws.bits("user", user_id) <= np.uint64(self.threshold)

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        shifts = begun & rows.well_formed & self.shifts(rows.user_id)
        movie_id = np.where(shifts, mapped(rows.movie_id, self.sources, self.targets), rows.movie_id)
        return replace(rows, movie_id=movie_id), movie_id != rows.movie_id

    def parameters(self) -> dict[str, Any]:
        return {
            "users": self.share,
            "n_users": self.n_users,
            "n_shifted": self.n_shifted,
            "moved_share": self.moved_share,
            "genre_cycles": self.cycles,
            "moved": np.column_stack([self.sources, self.targets]).tolist(),
        }

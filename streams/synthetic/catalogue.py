"""The movies of a synthetic world: themes, release dates, popularity, genres and titles.

Every movie belongs to one theme; a theme's movies lie side by side, ordered by release, so that "what of this theme
was out by then" is a range, and a draw by popularity within it is one search in a running sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.dataset import Movie
from streams.events import DAY_S
from streams.records import Int64s
from streams.synthetic.draws import Draws, Floats
from streams.synthetic.options import SyntheticOptions
from streams.synthetic.schedule import FIRST_TIMESTAMP, LAST_TIMESTAMP

__all__ = ["Catalogue", "make_catalogue"]

FIRST_DAY = FIRST_TIMESTAMP // DAY_S
_DAYS = LAST_TIMESTAMP // DAY_S - FIRST_DAY + 1
_FIRST_YEAR = 1996

_MOST_THEMES = 40
# Zipf-Mandelbrot: popularity of the movie of rank r is (r + shift) ** -exponent.
_ZIPF_SHIFT, _ZIPF_EXPONENT = 90.0, 1.62
# Share of the movies released by the end of a year, from ml-latest-small.
_YEARS = [1902, 1920, 1930, 1940, 1950, 1960, 1970, 1980, 1990, 1995, 2000, 2005, 2010, 2015, 2018]
_RELEASED = [0.0, 0.001, 0.005, 0.021, 0.041, 0.072, 0.112, 0.169, 0.296, 0.405, 0.538, 0.685, 0.827, 0.958, 1.0]
_GENRES = {
    "Drama": 4361, "Comedy": 3756, "Thriller": 1894, "Action": 1828, "Romance": 1596, "Adventure": 1263,
    "Crime": 1199, "Sci-Fi": 980, "Horror": 978, "Fantasy": 779, "Children": 664, "Animation": 611, "Mystery": 573,
    "Documentary": 440, "War": 382, "Musical": 334, "Western": 167, "IMAX": 158, "Film-Noir": 87,
}  # fmt: skip
_EXTRA_GENRES = 0.42  # chance of each of three more genres: 2.26 a movie, as in ml-latest-small
_ADJECTIVES = [
    "Quiet", "Crimson", "Hidden", "Broken", "Golden", "Last", "Distant", "Silver", "Burning", "Secret", "Frozen",
    "Lonely", "Wild", "Electric", "Paper", "Midnight", "Hollow", "Bright", "Endless", "Forgotten", "Velvet",
    "Savage", "Gentle", "Iron", "Lost",
]  # fmt: skip
_NOUNS = [
    "River", "Garden", "Witness", "Station", "Harvest", "Mirror", "Orchard", "Empire", "Lullaby", "Horizon",
    "Letter", "Stranger", "Harbor", "Promise", "Winter", "Carnival", "Shadow", "Engine", "Summer", "Bridge",
    "Voyage", "Kingdom", "Signal", "Island", "Detective",
]  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """m movies in k themes, ordered by (theme, release day); positions count from 0.

    movie_id: int64 (m,), rising with release. position: int64 (m + 1,), the inverse. theme: int64 (m,). year: int64
    (m,). weight: float64 (m,), popularity, sums to 1. mass: float64 (m + 1,), its running sum. base: int64 (k + 1,),
    each theme's first position. released: int32 (k, days), position behind the theme's last movie released by a day.
    """

    movie_id: Int64s
    position: Int64s
    theme: Int64s
    year: Int64s
    weight: Floats
    mass: Floats
    base: Int64s
    released: npt.NDArray[np.int32]
    draws: Draws

    def __len__(self) -> int:
        return len(self.movie_id)

    @property
    def n_themes(self) -> int:
        return len(self.base) - 1

    def released_by(self, themes: Int64s, days: Int64s) -> Int64s:
        """Behind the last position of each theme that is out on each day (days since the epoch)."""
        return self.released[themes, np.clip(days - FIRST_DAY, 0, _DAYS - 1)].astype(np.int64)

    def movies(self) -> dict[int, Movie]:
        """All movies by id, with made-up titles."""
        count = np.arange(len(self))
        adjective = (self.draws.uniform("adjective", count) * len(_ADJECTIVES)).astype(np.int64)
        noun = (self.draws.uniform("noun", count) * len(_NOUNS)).astype(np.int64)
        genres = self._genres()
        return {
            movie_id: Movie(movie_id, f"{_ADJECTIVES[adjective[p]]} {_NOUNS[noun[p]]} ({year})", year, genres[p])
            for p, movie_id, year in sorted(
                zip(count.tolist(), self.movie_id.tolist(), self.year.tolist(), strict=True), key=lambda row: row[1]
            )
        }

    def _genres(self) -> list[tuple[str, ...]]:
        names = list(_GENRES)
        shares = np.cumsum(list(_GENRES.values())) / sum(_GENRES.values())
        leading = np.searchsorted(shares, self.draws.ranks("theme genre", self.n_themes))
        second = np.searchsorted(shares, self.draws.uniform("second genre", np.arange(self.n_themes)))
        count = np.arange(len(self) * 3).reshape(-1, 3)
        more = np.searchsorted(shares, self.draws.uniform("genre", count))
        more[:, 0] = second[self.theme]
        has_more = self.draws.uniform("has genre", count) < _EXTRA_GENRES
        return [
            tuple(sorted({names[lead], *(names[g] for g, has in zip(extra, flags, strict=True) if has)}))
            for lead, extra, flags in zip(leading[self.theme], more.tolist(), has_more.tolist(), strict=True)
        ]


def make_catalogue(options: SyntheticOptions, draws: Draws) -> Catalogue:
    """The movies of a world; every theme has something from the first day on."""
    m = options.movies
    k = max(4, min(_MOST_THEMES, m // 50))
    count = np.arange(m)
    theme = (draws.uniform("theme", count) * k).astype(np.int64)
    theme[:k] = np.arange(k)
    moment = np.interp(draws.ranks("year", m), _RELEASED, [y + 1 for y in _YEARS])
    moment[:k] = np.minimum(moment[:k], _FIRST_YEAR - 1)
    year = moment.astype(np.int64)
    new_year = (year - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    day = np.maximum(new_year + ((moment - year) * 365).astype(np.int64), FIRST_DAY)
    rank = draws.ranks("popularity", m) * m + 0.5
    weight = (rank + _ZIPF_SHIFT) ** -_ZIPF_EXPONENT
    weight /= weight.sum()

    order = np.lexsort((count, day, theme))
    theme, day, year, weight = theme[order], day[order], year[order], weight[order]
    movie_id = np.empty(m, np.int64)
    movie_id[np.lexsort((np.arange(m), theme, year, day))] = np.arange(1, m + 1)
    position = np.full(m + 1, -1)
    position[movie_id] = np.arange(m)
    base = np.searchsorted(theme, np.arange(k + 1))
    days = np.arange(FIRST_DAY, FIRST_DAY + _DAYS)
    released = np.stack([base[t] + np.searchsorted(day[base[t] : base[t + 1]], days, "right") for t in range(k)])
    mass = np.concatenate([[0.0], np.cumsum(weight)])
    return Catalogue(movie_id, position, theme, year, weight, mass, base, released.astype(np.int32), draws)

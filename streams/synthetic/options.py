"""How large a synthetic world is."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields

from streams.errors import ConfigError

__all__ = ["MIN_PER_USER", "SyntheticOptions", "parse_options"]

_RATINGS = 100_836  # as ml-latest-small
_RATINGS_PER_USER = 165.3
_CATALOGUE = 12_200
MIN_PER_USER = 20  # MovieLens publishes users from 20 ratings on
_MAX_PER_USER = 500
_MAX_SHARE_OF_CATALOGUE = 8
_MAX_MOVIES = 1_000_000
_MAX_RATINGS = 2**31 - 1
_VERSION = 1  # raise it when the same options and seed give another world


@dataclass(frozen=True, slots=True)
class SyntheticOptions:
    """A world's size and seed; sizes left at 0 follow from ``ratings``.

    users: one per 165 ratings, as in every MovieLens release. movies: grows with the cube root of the ratings, which
    leads from ml-latest-small to MovieLens 25M. The time span is always 1996 to 2018, so volume grows with ``ratings``.
    """

    ratings: int = _RATINGS
    users: int = 0
    movies: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.ratings <= _MAX_RATINGS:
            raise ConfigError(f"synthetic: expected ratings from 1 to {_MAX_RATINGS:,}, found {self.ratings:,}")
        if self.users == 0:
            object.__setattr__(self, "users", max(1, round(self.ratings / _RATINGS_PER_USER)))
        if self.movies == 0:
            object.__setattr__(self, "movies", max(200, round(_CATALOGUE * (self.ratings / _RATINGS) ** (1 / 3))))
        if self.users < 1 or not 1 <= self.movies <= _MAX_MOVIES or self.seed < 0:
            raise ConfigError(
                f"synthetic: expected users and seed above zero and up to {_MAX_MOVIES:,} movies, found users="
                f"{self.users}, seed={self.seed}, movies={self.movies}; leave one out for its default"
            )
        lowest = min(MIN_PER_USER, self.ratings) * self.users
        highest = self.users * min(self.movies // _MAX_SHARE_OF_CATALOGUE, _MAX_PER_USER)
        if not lowest <= self.ratings <= highest:
            raise ConfigError(
                f"synthetic: expected {lowest:,} to {highest:,} ratings for {self.users:,} users and {self.movies:,} "
                f"movies (a user rates 20 to 500 on average, and at most an eighth of the movies), found "
                f"{self.ratings:,}; change ratings, users or movies"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all options and the version of the generator."""
        return hashlib.sha256(f"synthetic/{_VERSION}/{sorted(asdict(self).items())}".encode()).hexdigest()


def parse_options(text: str) -> SyntheticOptions:
    """Options as a dataset name spells them.

    >>> parse_options("users=100,ratings=20000,seed=7")
    SyntheticOptions(ratings=20000, users=100, movies=7115, seed=7)
    """
    known = [field.name for field in fields(SyntheticOptions)]
    options: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        digits = value.replace("_", "")
        if name not in known or not (digits.isascii() and digits.isdigit()):
            raise ConfigError(f"synthetic: expected {', '.join(known)} with whole numbers, found {part!r}")
        options[name] = int(digits)
    return SyntheticOptions(**options)

"""What GroupLens publishes: the names of the MovieLens releases, how large they are, and who may pass them on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LICENCE", "PAGE", "RELEASES", "Release"]

PAGE = "https://grouplens.org/datasets/movielens/"

LICENCE = (
    "All of it: research use, with acknowledgement in publications; no commercial use without permission of GroupLens. "
    "Each archive's README holds the terms that apply."
)

_SAME_TERMS = "under the same terms"
_NOT_ALLOWED = "not without permission"
_SEE_README = "see its README"


@dataclass(frozen=True, slots=True)
class Release:
    """One archive. ``n_ratings`` and ``archive_mb`` (decimal) are about right: ``ml-latest`` grows now and then.

    redistribution: what its README says about passing the data on.
    """

    name: str
    n_ratings: int
    archive_mb: int
    files: str
    redistribution: str


RELEASES = {
    release.name: release
    for release in (
        Release("ml-latest-small", 100_000, 1, "ratings.csv, movies.csv", _SAME_TERMS),
        Release("ml-latest", 33_000_000, 335, "ratings.csv, movies.csv", _SEE_README),
        Release("ml-32m", 32_000_000, 239, "ratings.csv, movies.csv", _SAME_TERMS),
        Release("ml-25m", 25_000_000, 250, "ratings.csv, movies.csv", _SEE_README),
        Release("ml-10m", 10_000_000, 63, "ratings.dat, movies.dat", _NOT_ALLOWED),
        Release("ml-1m", 1_000_000, 6, "ratings.dat, movies.dat", _NOT_ALLOWED),
        Release("ml-100k", 100_000, 5, "u.data, u.item, u.genre", _NOT_ALLOWED),
    )
}
"""By name, the small current one first."""

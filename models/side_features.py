"""What models know beside ratings: each movie's genres and year, and where the data has one, each user's group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from featurestore.catalogue import Catalogue
from models.interactions import Float32s
from streams.records import Int64s

__all__ = ["SideFeatures"]


@dataclass(frozen=True, slots=True, eq=False)
class SideFeatures:
    """Movies by rising id, and users' demographic groups.

    movie_id: int64 (m,), rising. genres: float32 (m, len(genre_names)), 1 where the movie has the genre. year: int64
    (m,), 0 where unknown. user_groups: by user id, for users whose group is known. Raises ValueError for movies that do
    not rise, columns of other shapes, and genres that are not finite.
    """

    movie_id: Int64s
    genres: Float32s
    year: Int64s
    genre_names: tuple[str, ...] = ()
    user_groups: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.movie_id), len(self.genre_names)), (len(self.movie_id),)
        found = self.genres.shape, self.year.shape
        if found != wanted:
            raise ValueError(f"features: expected genres and years of the shapes {wanted}, found {found}")
        if (np.diff(self.movie_id) <= 0).any():
            raise ValueError("features: expected rising movie ids, each once; sort them, and genres and years likewise")
        if not np.isfinite(self.genres).all():
            raise ValueError("features: expected finite genres, found NaN or infinity")

    @classmethod
    def of_catalogue(cls, catalogue: Catalogue, user_groups: Mapping[int, str] | None = None) -> SideFeatures:
        """
        >>> from streams.dataset import Movie
        >>> features = SideFeatures.of_catalogue(Catalogue([Movie(7, "Heat (1995)", 1995, ("Crime", "Thriller"))]))
        >>> features.genre_names, features.genres.tolist(), features.year.tolist()
        (('Crime', 'Thriller'), [[1.0, 1.0]], [1995])
        """
        movies = list(catalogue.movies.values())
        column = {name: i for i, name in enumerate(catalogue.genres)}
        genres = np.zeros((len(movies), len(column)), np.float32)
        for row, movie in enumerate(movies):
            genres[row, [column[name] for name in movie.genres]] = 1.0
        return cls(
            np.array([m.movie_id for m in movies], np.int64),
            genres,
            np.array([m.year or 0 for m in movies], np.int64),
            catalogue.genres,
            dict(user_groups or {}),
        )

    @classmethod
    def none(cls) -> SideFeatures:
        """Nothing known."""
        return cls(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), np.zeros(0, np.int64))

    def of_movies(self, movie_ids: Int64s) -> SideFeatures:
        """The same for ``movie_ids``, which rise; a movie that is not here has no genre and no year."""
        genres = np.zeros((len(movie_ids), len(self.genre_names)), np.float32)
        year = np.zeros(len(movie_ids), np.int64)
        if len(self.movie_id):
            at = np.searchsorted(self.movie_id, movie_ids)
            at[at == len(self.movie_id)] = 0
            known = self.movie_id[at] == movie_ids
            genres[known], year[known] = self.genres[at[known]], self.year[at[known]]
        return SideFeatures(movie_ids, genres, year, self.genre_names, self.user_groups)

    def with_genres(self, names: tuple[str, ...]) -> SideFeatures:
        """The same with a column for each of ``names``, and for no other genre."""
        genres = np.zeros((len(self.movie_id), len(names)), np.float32)
        for column, name in enumerate(names):
            if name in self.genre_names:
                genres[:, column] = self.genres[:, self.genre_names.index(name)]
        return SideFeatures(self.movie_id, genres, self.year, names, self.user_groups)

"""What users like, and the oracle that tells it.

A user is a vector; so is a theme, and a movie lies near its theme. A user turns to a theme the more often the better
the vectors agree, and within it picks by popularity. Stars follow an ordered logit: a latent opinion (user bias, movie
quality, agreement of the vectors) plus logistic noise, cut at nine thresholds that give MovieLens' shares of stars.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.events import DAY_S
from streams.records import Int64s
from streams.synthetic.catalogue import Catalogue
from streams.synthetic.draws import Draws, Floats
from streams.synthetic.options import SyntheticOptions

__all__ = ["Oracle", "Taste"]

RATING_SHARES = (0.01359, 0.02788, 0.01776, 0.07488, 0.05504, 0.19881, 0.13027, 0.26596, 0.0848, 0.13101)
"""Shares of 0.5, 1, ... 5 stars in ml-latest-small."""

NOVELTY_SHARE, NOVELTY_DAYS = 0.06, 365
_DIMENSIONS = 8
_THEME_PULL = 1.0  # of agreement on the choice of a theme
_NEAR_THEME = 0.8
# Standard deviations of the latent opinion, whose variances add up to about 1.
_USER_SIGMA, _QUALITY_SIGMA, _AGREEMENT_SIGMA, _NOISE_SIGMA = 0.44, 0.36, 0.4, 0.72
_QUALITY_OF_POPULAR = 0.35  # correlation of quality and popularity
_NOISE_SCALE = _NOISE_SIGMA * 3**0.5 / np.pi

Float32s = npt.NDArray[np.float32]


class Taste:
    """The truth of one world; users and movies are positions that count from 0.

    thresholds: float64 (9,), rising: an opinion above the i-th earns more than (i + 1) / 2 stars.
    """

    def __init__(self, options: SyntheticOptions, catalogue: Catalogue, ratings_per_user: Int64s, draws: Draws) -> None:
        self._catalogue, self._draws, self.n_users = catalogue, draws, options.users
        themes = self._vectors("theme", catalogue.n_themes)
        near = _NEAR_THEME * themes[catalogue.theme]
        self._movie_vector = near + np.float32((1 - _NEAR_THEME**2) ** 0.5) * self._vectors("movie", len(catalogue))
        self._user_vector = self._vectors("user", options.users)
        self._theme_vector = themes
        self._theme_share = np.add.reduceat(catalogue.weight, catalogue.base[:-1])
        self._user_bias = _standardised(draws.normal("bias", np.arange(options.users)), ratings_per_user) * _USER_SIGMA
        self._quality = self._qualities()
        self.thresholds = np.empty(9)

    def _vectors(self, purpose: str, n: int) -> Float32s:
        """n random vectors, scaled so that products of two have variance 1."""
        normal = self._draws.normal(f"{purpose} vector", np.arange(n * _DIMENSIONS)).reshape(n, _DIMENSIONS)
        vectors: Float32s = (normal * _DIMENSIONS**-0.25).astype(np.float32)
        return vectors

    def _qualities(self) -> Floats:
        weight = self._catalogue.weight
        popular = _standardised(np.log(weight), np.ones_like(weight))
        own = self._draws.normal("quality", np.arange(len(weight)))
        mixed = _QUALITY_OF_POPULAR * popular + (1 - _QUALITY_OF_POPULAR**2) ** 0.5 * own
        return _standardised(mixed, weight) * _QUALITY_SIGMA

    def theme_shares(self, users: Int64s) -> Floats:
        """How often each user turns to each theme, shape (n, themes); rows sum to 1."""
        # Not a matrix product: BLAS rounds by the shape of the batch, and a pick must not depend on its company.
        agreement = np.zeros((len(users), len(self._theme_share)))
        for of_users, of_themes in zip(self._user_vector[users].T, self._theme_vector.T, strict=True):
            agreement += of_users[:, None] * of_themes
        shares = np.exp(_THEME_PULL * agreement) * self._theme_share
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    def opinions(self, users: Int64s, movies: Int64s) -> Floats:
        """Latent opinions without noise, shape (n,)."""
        agreement = (self._user_vector[users] * self._movie_vector[movies]).sum(axis=1)
        opinions: Floats = self._user_bias[users] + self._quality[movies] + _AGREEMENT_SIGMA * agreement
        return opinions

    def half_stars(self, users: Int64s, movies: Int64s, numbers: Int64s) -> Int64s:
        """What users give, 1 to 10; ``numbers`` tell ratings apart."""
        chance = self._draws.uniform("noise", numbers)
        opinion = self.opinions(users, movies) + _NOISE_SCALE * np.log(chance / (1 - chance))
        return np.searchsorted(self.thresholds, opinion) + 1

    def expected_rating(self, users: Int64s, movies: Int64s) -> Floats:
        opinion = self.opinions(users, movies)
        above = _sigmoid((opinion[:, None] - self.thresholds) / _NOISE_SCALE)
        expected: Floats = 0.5 + 0.5 * above.sum(axis=1)
        return expected

    def fit_thresholds(self, users: Int64s, movies: Int64s, ratings_per_user: Int64s) -> None:
        """Choose the thresholds at which ratings like these, shape (n,), get ``RATING_SHARES``.

        The biases in the sample are replaced by as many from the whole population, heavy users more often: few
        users make a sample, and their own biases would shift the shares.
        """
        n = len(users)
        at = self._draws.ranks("bias sample", n) * ratings_per_user.sum()
        population = np.searchsorted(np.cumsum(ratings_per_user), at)
        opinion = self.opinions(users, movies) - self._user_bias[users] + self._user_bias[population]
        wanted = np.cumsum(RATING_SHARES)[:-1]
        low, high = np.full(9, -8.0), np.full(9, 8.0)
        for _ in range(24):
            middle = (low + high) / 2
            below = np.array([_sigmoid((t - opinion) / _NOISE_SCALE).mean() for t in middle])
            low, high = np.where(below < wanted, middle, low), np.where(below < wanted, high, middle)
        self.thresholds = (low + high) / 2


class Oracle:
    """The true taste of a synthetic world, in the ids of its ratings."""

    def __init__(self, taste: Taste, catalogue: Catalogue, day: int) -> None:
        self._taste, self._catalogue, self._day = taste, catalogue, day

    def expected_rating(self, user_ids: Int64s, movie_ids: Int64s) -> Floats:
        """Mean stars that each user gives each movie, shape (n,): no model of the ratings can do better."""
        return self._taste.expected_rating(self._users(user_ids), self._movies(movie_ids))

    def affinity(self, user_ids: Int64s, movie_ids: Int64s, *, timestamp: int | None = None) -> Floats:
        """Chance that a user's next rating is of the movie, shape (n,), before what the user has rated is left out.

        timestamp: when, seconds since the epoch; by default at the end of the world. Unreleased movies have none.
        """
        users, movies = self._users(user_ids), self._movies(movie_ids)
        distinct, index = np.unique(users, return_inverse=True)
        theme = self._catalogue.theme[movies]
        share = self._taste.theme_shares(distinct)[index, theme]
        return share * self._chance_in_theme(timestamp)[movies]

    def top_items(self, user_id: int, k: int, *, timestamp: int | None = None) -> Int64s:
        """The k movie ids the user would pick most likely, best first."""
        shares = self._taste.theme_shares(self._users(np.array([user_id])))[0]
        chance = shares[self._catalogue.theme] * self._chance_in_theme(timestamp)
        best = np.argsort(-chance, kind="stable")[:k]
        return self._catalogue.movie_id[best]

    def popularity(self, *, timestamp: int | None = None) -> dict[int, float]:
        """Chance that a rating by an average user is of the movie, by movie id; sums to 1."""
        catalogue = self._catalogue
        share = np.add.reduceat(catalogue.weight, catalogue.base[:-1])[catalogue.theme]
        chance = share * self._chance_in_theme(timestamp)
        return dict(zip(catalogue.movie_id.tolist(), chance.tolist(), strict=True))

    def _chance_in_theme(self, timestamp: int | None) -> Floats:
        """Chance of each movie once its theme is chosen; the new ones have a share of their own."""
        catalogue = self._catalogue
        themes = np.arange(catalogue.n_themes)
        day = np.full(len(themes), self._day if timestamp is None else timestamp // DAY_S)
        end, old = catalogue.released_by(themes, day), catalogue.released_by(themes, day - NOVELTY_DAYS)
        old = np.where(old < end, old, catalogue.base[:-1])
        at = np.arange(len(catalogue))
        chance = np.zeros(len(catalogue))
        for begin, portion in ((catalogue.base[:-1], 1 - NOVELTY_SHARE), (old, NOVELTY_SHARE)):
            inside = (at >= begin[catalogue.theme]) & (at < end[catalogue.theme])
            total = (catalogue.mass[end] - catalogue.mass[begin])[catalogue.theme]
            chance += np.where(inside, portion * catalogue.weight / total, 0.0)
        return chance

    def _users(self, user_ids: Int64s) -> Int64s:
        users: Int64s = np.asarray(user_ids, np.int64) - 1
        if len(users) and (users.min() < 0 or users.max() >= self._taste.n_users):
            raise KeyError(
                f"user ids: expected 1 to {self._taste.n_users}, found {users.min() + 1} to {users.max() + 1}"
            )
        return users

    def _movies(self, movie_ids: Int64s) -> Int64s:
        ids = np.asarray(movie_ids, np.int64)
        if len(ids) and (ids.min() < 1 or ids.max() > len(self._catalogue)):
            raise KeyError(f"movie ids: expected 1 to {len(self._catalogue)}, found {ids.min()} to {ids.max()}")
        return self._catalogue.position[ids]


def _standardised(values: Floats, weights: Floats | Int64s) -> Floats:
    """Mean 0 and variance 1 under ``weights``: heavy users shift no share of stars."""
    if len(values) == 1:
        return np.zeros(1)
    mean = np.average(values, weights=weights)
    spread = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    standard: Floats = (values - mean) / spread
    return standard


def _sigmoid(x: Floats) -> Floats:
    odds: Floats = 1 / (1 + np.exp(-x))
    return odds

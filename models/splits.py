"""Ratings held out, and those to learn from; docs/evaluation.md says which split shows what.

A split of your own, a published one say, is a :class:`Split` too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.interactions import Bools, Histories, Interactions
from models.side_features import SideFeatures
from streams.errors import DataError
from streams.records import Int64s

__all__ = [
    "Split",
    "held_out_users",
    "known_by",
    "moment_before_last",
    "random_rating_split",
    "random_split",
    "temporal_split",
]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """train: what a model is fitted on. test: held out, of the users who are tested.

    features: of all movies that are ranked. relevant_from: a held-out rating of so many stars or more is relevant; 0:
    each is. histories: what the users of ``test`` (by rising id) had rated, where they are no users of ``train``.
    ranks, rates: whether lists, and predicted stars, are judged by it.
    """

    protocol: str
    train: Interactions
    test: Interactions
    features: SideFeatures
    relevant_from: float = 0.0
    histories: Histories | None = None
    ranks: bool = True
    rates: bool = True


def random_split(
    interactions: Interactions, features: SideFeatures, *, seed: int = 0, share: float = 0.2, validation: bool = False
) -> Split:
    """A fifth of each user's ratings, drawn at random; every one is relevant.

    As in Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020, and most of
    the literature. It shows the future of other users: for comparing with published figures only.
    validation: hold out of the training part of the split of the same seed, so that a search never sees its test part.
    """
    held_out = _random_per_user(interactions, share, np.random.default_rng([seed, 0]))
    if validation:
        interactions = interactions.take(~held_out)
        held_out = _random_per_user(interactions, share, np.random.default_rng([seed, 1]))
    return Split("random", interactions.take(~held_out), interactions.take(held_out), features, rates=False)


def random_rating_split(
    interactions: Interactions, features: SideFeatures, *, seed: int = 0, share: float = 0.1, validation: bool = False
) -> Split:
    """A tenth of all ratings, to be predicted in stars.

    The protocol of Lee et al., "Local Low-Rank Matrix Approximation", ICML 2013, and of Rendle, Zhang and Koren, "On
    the Difficulty of Evaluating Baselines", 2019.
    """
    held_out = _random(interactions, share, np.random.default_rng([seed, 2]))
    if validation:
        interactions = interactions.take(~held_out)
        held_out = _random(interactions, share, np.random.default_rng([seed, 3]))
    return Split("random", interactions.take(~held_out), interactions.take(held_out), features, ranks=False)


def temporal_split(
    interactions: Interactions, features: SideFeatures, *, share: float = 0.2, validation: bool = False
) -> Split:
    """One moment for all: the last fifth of the ratings is held out, of users who were there before; 4 stars or more
    are relevant.

    The global timeline of Ji et al., "A Critical Study on Data Leakage in Recommender System Offline Evaluation", TOIS
    2023; Meng et al., "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", RecSys 2020.
    Raises DataError where nobody rates on both sides of that moment.
    """
    cut = moment_before_last(interactions.timestamp, share)
    if validation:
        interactions = interactions.before(cut)
        cut = moment_before_last(interactions.timestamp, share)
    train, later = interactions.before(cut), interactions.take(interactions.timestamp >= cut)
    test = later.take(np.isin(later.user_id, train.user_id))
    if not len(test):
        raise DataError("temporal split: expected users who rate before and after one moment, found none")
    return Split("temporal", train, test, known_by(features, train.movie_id, cut), relevant_from=4.0)


def held_out_users(interactions: Interactions, features: SideFeatures, *, n_users: int, seed: int = 0) -> Split:
    """``n_users`` users that no model is trained on, known by 80 % of their ratings; the rest of these is relevant.

    Strong generalisation, as Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, and the
    paper of EASE. Raises DataError where no user is left to train on.
    """
    users = np.unique(interactions.user_id)
    if not 0 < n_users < len(users):
        raise DataError(f"held-out users: expected 1 to {len(users) - 1}, found {n_users}")
    random = np.random.default_rng([seed, 4])
    tested = np.isin(interactions.user_id, random.choice(users, n_users, replace=False))
    of_tested = interactions.take(tested)
    held_out = _random_per_user(of_tested, 0.2, random)
    test = of_tested.take(held_out)
    histories = Histories.of_users(of_tested.take(~held_out), np.unique(test.user_id))
    return Split("held-out-users", interactions.take(~tested), test, features, histories=histories)


def moment_before_last(timestamp: Int64s, share: float) -> int:
    """The moment at which the last ``share`` of ratings begins. Raises DataError where there are none."""
    if not len(timestamp):
        raise DataError("split: expected ratings, found none")
    return int(np.sort(timestamp)[min(round(len(timestamp) * (1 - share)), len(timestamp) - 1)])


def known_by(features: SideFeatures, rated: Int64s, moment: int) -> SideFeatures:
    """Of the movies that are in ``rated``, or released by the year of ``moment`` (seconds since the epoch)."""
    year = 1970 + int(np.datetime64(moment, "s").astype("datetime64[Y]").astype(np.int64))
    return features.of_movies(features.movie_id[(features.year <= year) | np.isin(features.movie_id, rated)])


def _random(interactions: Interactions, share: float, random: np.random.Generator) -> Bools:
    drawn = np.zeros(len(interactions), bool)
    drawn[random.permutation(len(interactions))[: round(share * len(interactions))]] = True
    return drawn


def _random_per_user(interactions: Interactions, share: float, random: np.random.Generator) -> Bools:
    """``share`` of each user's ratings, rounded to the nearest number."""
    user, order = interactions.user_id, np.lexsort((random.random(len(interactions)), interactions.user_id))
    _, first, counts = np.unique(user[order], return_index=True, return_counts=True)
    rank = np.arange(len(user)) - np.repeat(first, counts)
    drawn = np.zeros(len(user), bool)
    drawn[order] = rank < np.repeat(np.round(share * counts), counts)
    return drawn

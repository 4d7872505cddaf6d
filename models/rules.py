"""Business rules: what a list shall look like beside being likely, as pure functions over candidates.

Candidates are the model's best movies, their scores brought to 0 (the last) to 1 (the best), so that a weight means the
same for every model; a movie of which it knows nothing is 0, and no measure of the others. Rules apply in the order of
:meth:`Rules.steps`: recency and genres change how relevant each candidate is, diversity then picks the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from models.history_weights import recency_weights
from models.interactions import Float32s, Histories
from models.ranking import UNRATED
from models.side_features import SideFeatures
from streams.records import Int64s

__all__ = [
    "Candidates",
    "Rule",
    "Rules",
    "candidates_of",
    "favour_genres",
    "favour_recent_taste",
    "most_relevant",
    "spread_out",
]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """m movies, best first by the model. movie_id: int64 (m,). score: float32 (m,), the model's. relevance: float32
    (m,), what rules change. genres: float32 (m, len(genre_names)), rows of unit length, or 0 where a movie has none.
    """

    movie_id: Int64s
    score: Float32s
    relevance: Float32s
    genres: Float32s
    genre_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.movie_id)

    def take(self, at: Int64s) -> Candidates:
        """Those at these places, in their order."""
        return replace(
            self,
            movie_id=self.movie_id[at],
            score=self.score[at],
            relevance=self.relevance[at],
            genres=self.genres[at],
        )


Rule = Callable[[Candidates], Candidates]


def candidates_of(movie_id: Int64s, score: Float32s, features: SideFeatures) -> Candidates:
    """Of a model's list (m,), best first; all are equally relevant where all scores are equal.

    >>> candidates_of(np.array([7, 9, 8]), np.array([3, 2, 1], np.float32), SideFeatures.none()).relevance.tolist()
    [1.0, 0.5, 0.0]
    """
    known = score > UNRATED
    lowest = score.min(initial=np.inf, where=known)
    span = score.max(initial=-np.inf, where=known) - lowest
    relevance = np.where(known, (score - lowest) / span if span > 0 else 1.0, 0.0).astype(np.float32)
    return Candidates(movie_id, score, relevance, _unit_genres(features, movie_id), features.genre_names)


def favour_genres(candidates: Candidates, weights: tuple[tuple[str, float], ...]) -> Candidates:
    """Multiply the relevance by the weight of each genre that a movie has: 2 favours it, 0.5 disfavours.

    0 buries: below whatever is not buried, were it of no relevance.
    """
    factor = np.ones(len(candidates), np.float32)
    for name, weight in weights:
        if name in candidates.genre_names:
            has = candidates.genres[:, candidates.genre_names.index(name)] > 0
            factor[has] *= np.float32(weight)
    relevance = np.where(factor > 0, candidates.relevance * factor, np.float32(-1.0))
    return replace(candidates, relevance=relevance)


def favour_recent_taste(
    candidates: Candidates, history: Histories, features: SideFeatures, *, half_life: float, strength: float = 0.5
) -> Candidates:
    """Raise the relevance by up to ``strength`` by how near a movie's genres are to those rated last.

    half_life: in ratings, see :func:`models.history_weights.recency_weights`. Nearness is the cosine.
    """
    weights = recency_weights(history, half_life, 0.0)
    taste = weights @ _unit_genres(features, history.movie_id)
    length = float(np.linalg.norm(taste))
    if not length:
        return candidates
    near = candidates.genres @ (taste / length)
    return replace(candidates, relevance=(candidates.relevance + strength * near).astype(np.float32))


def most_relevant(candidates: Candidates, k: int) -> Candidates:
    """The ``k`` most relevant, best first; of equal relevance, the model's order."""
    return candidates.take(np.argsort(-candidates.relevance, kind="stable")[:k])


def spread_out(candidates: Candidates, k: int, diversity: float) -> Candidates:
    """``k`` of them by maximal marginal relevance: each next one is relevant, and unlike those before.

    Carbonell & Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998: the next is the one of the highest
    (1 - diversity) relevance - diversity max(similarity to those before), here the cosine of genres. At 0 the list is
    that of :func:`most_relevant`; at 1 only the first is chosen by relevance.
    """
    left = np.ones(len(candidates), bool)
    nearest = np.zeros(len(candidates), np.float32)
    chosen: list[int] = []
    for _ in range(min(k, len(candidates))):
        worth = candidates.relevance if not chosen else (1 - diversity) * candidates.relevance - diversity * nearest
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, candidates.genres @ candidates.genres[best])
    return candidates.take(np.array(chosen, np.int64))


@dataclass(frozen=True, slots=True)
class Rules:
    """What a caller wants of a list. genre_weights: name and weight, see :func:`favour_genres`. diversity: 0 to 1, see
    :func:`spread_out`. recency_half_life: in ratings, see :func:`favour_recent_taste`; 0 is none.

    Raises ValueError for a negative weight or half-life, and a diversity outside of 0 to 1.
    """

    genre_weights: tuple[tuple[str, float], ...] = ()
    diversity: float = 0.0
    recency_half_life: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in self.genre_weights:
            if not 0.0 <= weight < np.inf:
                raise ValueError(f"genre {name}: expected a weight of 0 or more, found {weight}")
        if not 0.0 <= self.diversity <= 1.0:
            raise ValueError(f"diversity: expected 0 to 1, found {self.diversity}")
        if not 0.0 <= self.recency_half_life < np.inf:
            raise ValueError(f"recency half-life: expected 0 ratings or more, found {self.recency_half_life}")

    def __bool__(self) -> bool:
        return self != Rules()

    def steps(self, history: Histories, features: SideFeatures, k: int) -> tuple[Rule, ...]:
        """The rules that are asked for, in the order in which they apply; the last one cuts the list to ``k``."""
        steps: list[Rule] = []
        if self.recency_half_life:
            steps.append(
                partial(favour_recent_taste, history=history, features=features, half_life=self.recency_half_life)
            )
        if self.genre_weights:
            steps.append(partial(favour_genres, weights=self.genre_weights))
        steps.append(
            partial(spread_out, k=k, diversity=self.diversity) if self.diversity else partial(most_relevant, k=k)
        )
        return tuple(steps)


def _unit_genres(features: SideFeatures, movie_id: Int64s) -> Float32s:
    distinct, place = np.unique(movie_id, return_inverse=True)
    genres = features.of_movies(distinct).genres
    unit: Float32s = (genres / np.maximum(1e-9, np.linalg.norm(genres, axis=1, keepdims=True)))[place]
    return unit.astype(np.float32)

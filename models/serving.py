"""Serving: recommendations from a history by the champion, or another variant, in milliseconds and in any thread.

Which models serve is one immutable mapping. A request reads it once, so a swap drops nothing: who asked before is
answered by the old model in whole, who asks afterwards by the new one.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Self

import numpy as np

from models.answer_cache import AnswerCache
from models.interactions import Float32s, Histories
from models.latency import Latency, LatencyWindow
from models.ranking import NO_MOVIE, Recommendations
from models.recommender import Recommender
from models.rules import Rules, candidates_of
from models.side_features import SideFeatures
from streams.errors import ModelError
from streams.records import Int64s

__all__ = ["CHAMPION", "Answer", "Server"]

CHAMPION = "champion"

_CANDIDATES = 500
"""Rules choose among so many of the model's best."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A list for one user. movie_ids: int64 (k or fewer,), best first; scores: float32, the model's; cold: nothing in
    the history is known to the model, so that the list is what is popular; cached: it was answered before.
    """

    variant: str
    version: str
    movie_ids: Int64s
    scores: Float32s
    cold: bool
    cached: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    version: str
    model: Recommender


_Key = tuple[str, bytes, str | None, int, Rules]


class Server:
    """Serves one model per variant. Thread-safe.

    features: of all movies that may be listed: those added since a model's training are ranked too. cached_answers: how
    many lists are kept; one is found again while version, history, rules and length are the same, so that a new rating
    or model makes it unreachable. threads: what :meth:`recommend_many` shares its users among; use them with one BLAS
    thread each (``OPENBLAS_NUM_THREADS=1``), else these wait for each other. clock_s: what latency is measured by.
    """

    def __init__(
        self,
        features: SideFeatures | None = None,
        *,
        cached_answers: int = 10_000,
        threads: int = 1,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.features = features or SideFeatures.none()
        self._variants: Mapping[str, _Served] = MappingProxyType({})
        self._swapping = threading.Lock()
        self._cache: AnswerCache[_Key, Answer] = AnswerCache(cached_answers)
        self._windows: dict[str, LatencyWindow] = {}
        self._clock_s = clock_s
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="serving") if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads; requests for many users are refused then."""
        if self._pool is not None:
            self._pool.shutdown()

    def swap(self, version: str, model: Recommender, variant: str = CHAMPION) -> None:
        """Serve ``model`` as this variant from now on. Requests that run are answered by what served when they came."""
        served = _Served(version, model.with_movies(self.features) if len(self.features.movie_id) else model)
        with self._swapping:
            self._windows.setdefault(variant, LatencyWindow())
            self._variants = MappingProxyType({**self._variants, variant: served})

    def withdraw(self, variant: str) -> None:
        """Serve this variant no longer; its latency stays known."""
        with self._swapping:
            self._variants = MappingProxyType({n: s for n, s in self._variants.items() if n != variant})

    @property
    def versions(self) -> dict[str, str]:
        """The version that serves, by variant."""
        return {variant: served.version for variant, served in self._variants.items()}

    def model(self, variant: str = CHAMPION) -> Recommender:
        """What serves as this variant. Raises ModelError where nothing does."""
        return self._served(variant).model

    def recommend(
        self,
        history: Histories,
        k: int = 10,
        *,
        rules: Rules | None = None,
        variant: str = CHAMPION,
        group: str | None = None,
    ) -> Answer:
        """At most ``k`` movies that are not in ``history``, which is of one user and may be empty.

        group: the user's demographic group, which serves where the history is empty. Raises ModelError for a variant
        that nothing serves as, ValueError for histories of more than one user.
        """
        if len(history) != 1:
            raise ValueError(f"history: expected one user's, found {len(history)}; recommend_many takes more")
        began = self._clock_s()
        served, rules = self._served(variant), rules or Rules()
        key = (served.version, _digest(history), group, k, rules)
        answer = self._cache.get(key)
        if answer is None:
            answer = self._answer(served, history, k, rules, group, variant)
            self._cache.put(key, answer)
        else:
            answer = replace(answer, variant=variant, cached=True)
        self._windows[variant].add(self._clock_s() - began, hit=answer.cached)
        return answer

    def recommend_many(self, histories: Histories, k: int = 10, *, variant: str = CHAMPION) -> Recommendations:
        """The model's lists for many users in one call; no rules, no cache."""
        model = self._served(variant).model
        if self._pool is None or len(histories) < 2 * self._threads:
            return model.recommend_for_history(histories, k)
        shares = _shares(histories, self._threads)
        found = list(self._pool.map(lambda share: model.recommend_for_history(share, k), shares))
        return Recommendations(
            np.concatenate([part.movie_ids for part in found]),
            np.concatenate([part.scores for part in found]),
            np.concatenate([part.cold for part in found]),
        )

    def latency(self) -> dict[str, Latency]:
        """Of the last answers of each variant."""
        with self._swapping:
            windows = dict(self._windows)
        return {variant: window.latency() for variant, window in windows.items()}

    def _served(self, variant: str) -> _Served:
        variants = self._variants
        if variant not in variants:
            raise ModelError(f"serving: expected one of the variants {', '.join(variants) or 'none'}, found {variant}")
        return variants[variant]

    def _answer(
        self, served: _Served, history: Histories, k: int, rules: Rules, group: str | None, variant: str
    ) -> Answer:
        wanted = max(k, _CANDIDATES) if rules else k
        listed = served.model.recommend_for_history(history, wanted, groups=[group])
        there = listed.movie_ids[0] != NO_MOVIE
        movie_ids, scores = listed.movie_ids[0][there], listed.scores[0][there]
        if rules:
            candidates = candidates_of(movie_ids, scores, self.features)
            for step in rules.steps(history, self.features, k):
                candidates = step(candidates)
            movie_ids, scores = candidates.movie_id, candidates.score
        for values in (movie_ids, scores):
            values.flags.writeable = False  # the cache gives it to others too
        return Answer(variant, served.version, movie_ids, scores, bool(listed.cold[0]))


def _digest(history: Histories) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for column in (history.movie_id, history.rating, history.timestamp):
        digest.update(column.tobytes())
    return digest.digest()


def _shares(histories: Histories, n: int) -> list[Histories]:
    """``n`` parts with about as many users each."""
    ends = np.linspace(0, len(histories), n + 1).astype(int).tolist()
    return [histories.slice(first, last) for first, last in pairwise(ends)]

"""Recommendations for the pages: the registry's models served from memory, for stored or just given ratings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dashboards.registry_view import serving_version
from featurestore.features import History
from featurestore.reader import FeatureReader
from models.explanations import Reasons, explain
from models.interactions import Histories, Interactions
from models.latency import Latency
from models.registry import Registry
from models.rules import Rules
from models.serving import CHAMPION, Answer, Server
from models.side_features import SideFeatures
from streams.dataset import Movie
from streams.errors import ModelError, ModelMissing, StoreError

__all__ = ["Given", "Listed", "Recommending", "Shelf", "UserHistory", "merged", "shelves"]

_LOOK_S = 2.0
_LIST = 120
"""So many movies are ranked, of which the shelves show their part."""

Given = tuple[int, float]
"""A movie and the stars it was given."""


@dataclass(frozen=True, slots=True, eq=False)
class UserHistory:
    """A user's ratings before the moment that is looked at, and those after it."""

    before: History
    after: History

    @classmethod
    def split(cls, stored: History, n_after: int) -> UserHistory:
        """``n_after``: so many of the last ratings, and whatever has the time of the first of them, come after."""
        n_after = min(n_after, len(stored))
        at = len(stored) if not n_after else int(np.searchsorted(stored.timestamp, stored.timestamp[-n_after]))
        return cls(_part(stored, slice(0, at)), _part(stored, slice(at, None)))


def _part(history: History, rows: slice) -> History:
    return History(history.timestamp[rows], history.movie_id[rows], history.rating[rows], history.late[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """An answer, and what it took on this server: ms from asking to having it."""

    answer: Answer
    ms: float
    history: Histories


class Recommending:
    """Serves the champion and the challengers of a registry; new ones within two seconds. Thread-safe.

    event_time: of the run, 0 where it is not known; who was promoted serves from its effective time on.
    """

    def __init__(
        self,
        store_url: str,
        models: Path,
        *,
        event_time: Callable[[], int] = lambda: 0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = Registry(models)
        self._event_time = event_time
        self._clock_s = clock_s
        self._reading = threading.Lock()
        self._looking = threading.Lock()
        self._looked_at: float | None = None
        self._store_url = store_url
        self._reader: FeatureReader | None = FeatureReader(store_url)
        catalogue = self._reader.catalogue
        self.movies: dict[int, Movie] = dict(catalogue.movies)
        self.genres = catalogue.genres
        self.features = SideFeatures.of_catalogue(catalogue)
        self.server = Server(self.features)

    def close(self) -> None:
        self.server.close()
        with self._reading:
            self._close_reader()

    def variants(self) -> dict[str, str]:
        """What serves: variant to version. Challengers are variants under their version's id.

        Raises ModelMissing where nothing was ever promoted, ModelError for a damaged registry.
        """
        with self._looking:
            now = self._clock_s()
            if self._looked_at is None or now - self._looked_at > _LOOK_S:
                self._look()
                self._looked_at = now
        return self.server.versions

    def _look(self) -> None:
        champion = serving_version(self.registry, self._event_time())
        if champion is None:
            raise ModelMissing(f"{self.registry.folder}: no champion yet")
        wanted = {CHAMPION: champion} | {version.version_id: version for version in self.registry.challengers()}
        serving = self.server.versions
        for variant, version in wanted.items():
            if serving.get(variant) != version.version_id:
                self.server.swap(version.version_id, version.load(), variant)
        for variant in serving.keys() - wanted.keys():
            self.server.withdraw(variant)

    def history(self, user_id: int) -> History:
        """The user's ratings as stored; one short read."""
        with self._read() as reader:
            return reader.history(user_id)

    def users(self, n: int = 200, before: int | None = None) -> list[int]:
        """``n`` users, who had rated before that event time, from all over the ids."""
        with self._read() as reader:
            return reader.sample_users(n, before)

    @contextmanager
    def _read(self) -> Iterator[FeatureReader]:
        """For one at a time; a store that was built anew meanwhile is opened anew. Raises what opening it does."""
        with self._reading:
            try:
                if self._reader is not None:
                    self._reader.database.changes()  # raises where the file was removed or replaced
            except StoreError:
                self._close_reader()
            if self._reader is None:
                self._reader = FeatureReader(self._store_url)
            yield self._reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def recommend(
        self, user_id: int, history: Histories, *, rules: Rules, variant: str = CHAMPION, k: int = _LIST
    ) -> Listed:
        """A list by the variant, timed. Raises ModelError where the variant has gone."""
        began = time.perf_counter()
        group = self.server.model(variant).group_of(user_id)
        answer = self.server.recommend(history, k, rules=rules, variant=variant, group=group)
        return Listed(answer, (time.perf_counter() - began) * 1_000, history)

    def explain(self, listed: Listed, movie_id: int) -> Reasons | None:
        """Why a movie of the list; None where the list is what is popular, or the model has changed since."""
        if listed.answer.cold or not len(listed.history.movie_id):
            return None
        try:
            model = self.server.model(listed.answer.variant)
            return explain(model, listed.history, np.array([movie_id]), self.features)[0]
        except ModelError:
            return None

    def latency(self) -> dict[str, Latency]:
        """Of the answers given on these pages, by variant."""
        return self.server.latency()


def merged(stored: History, given: list[Given], event_time: int) -> Histories:
    """What is stored and what was just given, which the store may hold already, as one user's history."""
    movies = np.concatenate([stored.movie_id, np.array([movie for movie, _ in given], np.int64)])
    stars = np.concatenate([stored.rating, np.array([stars for _, stars in given], np.float64)])
    times = np.concatenate([stored.timestamp, np.full(len(given), event_time, np.int64)])
    rows = Interactions(np.zeros(len(movies), np.int64), movies, stars, times)
    return Histories.of_users(rows, np.zeros(1, np.int64))


@dataclass(frozen=True, slots=True)
class Shelf:
    """A row of the page: places in the list, and the movies."""

    title: str
    note: str
    movies: list[tuple[int, Movie]]


def shelves(answer: Answer, liked: History, movies: dict[int, Movie], k: int = 10, n_genres: int = 3) -> list[Shelf]:
    """The list as rows: the best, then the best of the genres that the user gave four stars and more most often.

    Every row is a part of the one list: places are the places there.
    """
    listed = [(place, movies[m]) for place, m in enumerate(answer.movie_ids.tolist(), 1) if m in movies]
    found = [Shelf("Top picks", f"by {answer.version}", listed[:k])]
    counts: dict[str, int] = {}
    for movie_id, stars in zip(liked.movie_id.tolist(), liked.rating.tolist(), strict=True):
        for genre in movies[movie_id].genres if stars >= 4 and movie_id in movies else ():
            counts[genre] = counts.get(genre, 0) + 1
    for genre in sorted(counts, key=lambda name: (-counts[name], name))[:n_genres]:
        of_genre = [(place, movie) for place, movie in listed[k:] if genre in movie.genres][:k]
        if len(of_genre) >= 3:
            found.append(Shelf(f"More {genre}", f"{counts[genre]} liked", of_genre))
    return found

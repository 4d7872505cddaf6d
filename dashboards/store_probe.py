"""What the pages show of the feature store, looked at once a second by one thread: short reads, whoever is watching."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import structlog

from featurestore.features import PopularItem
from featurestore.reader import AppliedOffset, FeatureReader
from featurestore.sqlite import database_path
from streams.dataset import Movie
from streams.errors import StoreMissing, StreamLensError
from streams.events import DAY_S, RATINGS
from streams.postgres_url import is_postgres

__all__ = ["TREND_DAYS", "StoreProbe", "StoreView"]

TREND_DAYS = 28
_EVERY_S = 1.0
_TRENDS_EVERY_S = 5.0
_WATCHED_FOR_S = 15.0
"""Nobody has asked for so long: there is nothing to look for."""
_TOP = 60
_LONGEST_LOOK_S = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoreView:
    """One look. at: wall time of the last one that succeeded, 0 before any.

    popular, popular_before: the most rated of the last :data:`TREND_DAYS` event days, and of as many before. files: MiB
    by name, of the run's databases.
    """

    state: Literal["looking", "there", "missing", "away"] = "looking"
    problem: str = ""
    at: float = 0.0
    applied: tuple[AppliedOffset, ...] = ()
    clock: int = 0
    popular: tuple[PopularItem, ...] = ()
    popular_before: tuple[PopularItem, ...] = ()
    movies: dict[int, Movie] = field(default_factory=dict)
    files: dict[str, float] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """The run has ended, and everything of it was applied."""
        return bool(self.applied) and all(row.end_of_run for row in self.applied)


class StoreProbe:
    """Looks from :meth:`start` to :meth:`close`, while somebody asks for :attr:`view`."""

    def __init__(self, store_url: str, folder: Path | None, *, wall_s: Callable[[], float] = time.time) -> None:
        self.store_url = store_url
        self._folder = folder
        self._wall_s = wall_s
        self._view = StoreView()
        self._asked = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pages-store", daemon=True)

    def start(self) -> StoreProbe:
        self._thread.start()
        return self

    def close(self) -> None:
        """Returns once the look that is under way has ended."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_LONGEST_LOOK_S)

    @property
    def view(self) -> StoreView:
        """The last look."""
        self._asked = time.monotonic()
        return self._view

    def _run(self) -> None:
        reader: FeatureReader | None = None
        trends_at = 0.0
        while not self._closing.is_set():
            now = time.monotonic()
            if now - self._asked < _WATCHED_FOR_S:
                try:
                    reader = reader or FeatureReader(self.store_url)
                    with_trends = now >= trends_at
                    self._view = self.look(reader, with_trends=with_trends)
                    trends_at = now + _TRENDS_EVERY_S if with_trends else trends_at
                except StoreMissing as error:
                    self._failed(reader, "missing", error)
                    reader = None
                except StreamLensError as error:
                    self._failed(reader, "away", error)
                    reader = None
                except Exception as error:  # a thread that ends would leave a page that never moves again
                    log.exception("the pages' look at the store failed, trying again")
                    self._failed(reader, "away", error)
                    reader = None
            self._closing.wait(_EVERY_S)
        if reader is not None:
            reader.close()

    def _failed(self, reader: FeatureReader | None, state: Literal["missing", "away"], error: Exception) -> None:
        if reader is not None:
            reader.close()
        self._view = replace(self._view, state=state, problem=str(error))

    def look(self, reader: FeatureReader, *, with_trends: bool = True) -> StoreView:
        """What the store says now; without trends, those of the look before."""
        reader.database.changes()  # raises where the file was removed or replaced: SQLite would go on reading it
        with reader.snapshot():
            applied = tuple(row for row in reader.applied() if row.topic == RATINGS and row.agent == "features")
        clock = min((row.clock for row in applied), default=0)
        before = self._view
        popular, earlier = before.popular, before.popular_before
        if with_trends and clock:
            today = clock // DAY_S * DAY_S + DAY_S
            window_s = TREND_DAYS * DAY_S
            popular = tuple(reader.popular(window_s, as_of=today, k=_TOP))
            earlier = tuple(reader.popular(window_s, as_of=today - window_s, k=_TOP))
        return StoreView(
            state="there",
            at=self._wall_s(),
            applied=applied,
            clock=clock,
            popular=popular,
            popular_before=earlier,
            movies=dict(reader.catalogue.movies) if len(before.movies) != len(reader.catalogue) else before.movies,
            files=self._sizes(),
        )

    def _sizes(self) -> dict[str, float]:
        folder = self._folder
        if folder is None and not is_postgres(self.store_url):
            folder = database_path(self.store_url).parent
        if folder is None:
            return {}
        sizes: dict[str, float] = {}
        for path in sorted(folder.glob("*.db*")):
            name = path.name.partition(".db")[0]  # with its write-ahead log
            try:
                sizes[name] = sizes.get(name, 0.0) + path.stat().st_size / 2**20
            except FileNotFoundError:
                continue
        return sizes

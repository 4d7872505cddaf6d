"""What the rating model would have said of a day's ratings: the prequential half of RMSE.

The model was fitted before the day, and knows of each user what the feature store has from before the day. Whatever
came late is left out, for it may be there at one time and not at another.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from featurestore.aggregate import Accepted
from featurestore.reader import FeatureReader
from models.interactions import Float32s, Histories, Interactions
from models.recommender import RatingPredictor
from models.registry import Registry, Version
from streams.errors import ModelError, StoreMissing
from streams.events import DAY_S, RATINGS
from streams.records import Int64s

__all__ = ["Foresight", "RatingModel"]

_RATINGS_AT_ONCE = 2 << 20
"""Of histories held together: 50 MB."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RatingModel:
    """Which versions predict stars. registry: its folder. delay_s: event time from ``as_of`` to when a version counts.

    The version of the training part counts at once, another when what asked for it takes effect: whether a training was
    done sooner than that in wall time is of no account.
    """

    kind: str
    registry: Path
    live_from: int
    delay_s: int

    def of_day(self, versions: list[Version], day: int) -> Version | None:
        """The newest that counts at the start of ``day`` and was not rejected."""
        start = day * DAY_S
        known = [
            version
            for version in versions
            if version.manifest.kind == self.kind
            and version.status != "rejected"
            and self._counts_from(version) <= start
        ]
        return max(known, key=lambda v: (v.manifest.as_of, v.manifest.created_at, v.version_id), default=None)

    def _counts_from(self, version: Version) -> int:
        as_of = version.manifest.as_of
        return as_of if as_of <= self.live_from else as_of + self.delay_s


class Foresight:
    """Predicts with the versions that were there at the last :meth:`waits_for`. One thread at a time."""

    def __init__(self, model: RatingModel, store_url: str) -> None:
        self._model = model
        self._store_url = store_url
        self._registry = Registry(model.registry)
        self._versions: list[Version] = []
        self._loaded: tuple[str, RatingPredictor] | None = None

    def waits_for(self, event_time: int) -> str:
        """What is missing to predict the days before the boundary ``event_time``, for a person; empty for nothing.

        Without a version there is nothing to wait for.
        """
        try:
            self._versions = self._registry.versions()
        except ModelError as error:
            log.warning("no stars predicted", error=str(error))
            self._versions = []
        if event_time <= self._model.live_from or self._model.of_day(self._versions, event_time // DAY_S) is None:
            return ""
        try:
            with closing(FeatureReader(self._store_url)) as reader:
                closed = [row.closed for row in reader.applied() if row.topic == RATINGS]
        except StoreMissing:
            return "the feature store, which is not there yet"
        if closed and min(closed) >= event_time:
            return ""
        return f"the feature store, which is at {min(closed, default=0)} and has to reach {event_time}"

    def stars(self, day: int, user_ids: Int64s, movie_ids: Int64s) -> Float32s:
        """See :data:`agents.monitor.Foresee`."""
        version = self._model.of_day(self._versions, day)
        predictor = None if version is None else self._predictor(version)
        found = np.full(len(user_ids), np.nan, np.float32)
        if predictor is None:
            return found
        users, owner = np.unique(user_ids, return_inverse=True)
        with closing(FeatureReader(self._store_url)) as reader:
            rated = reader.rated_before(users, day * DAY_S)
        histories = Histories.of_users(_on_time(rated), users)
        sizes = histories.lengths[owner]
        parts = np.cumsum(sizes) // _RATINGS_AT_ONCE
        for at in np.split(np.arange(len(user_ids)), np.flatnonzero(np.diff(parts)) + 1):
            found[at] = predictor.predict_for_history(histories.take(owner[at]), movie_ids[at])
        return found

    def _predictor(self, version: Version) -> RatingPredictor | None:
        if self._loaded is None or self._loaded[0] != version.version_id:
            try:
                model = version.load()
            except ModelError as error:
                log.warning("no stars predicted", error=str(error))
                return None
            if not isinstance(model, RatingPredictor):
                return None
            self._loaded = version.version_id, model
        return self._loaded[1]


def _on_time(rated: Accepted) -> Interactions:
    kept = rated.where(~rated.late)
    return Interactions(kept.user_id, kept.movie_id, kept.half_stars / 2, kept.timestamp)

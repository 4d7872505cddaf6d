"""Writing features with exactly-once effect: views and dead letters change with the applied offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import msgspec

from featurestore.aggregate import Accepted, Cursor, accept
from featurestore.catalogue import Catalogue
from featurestore.database import Database, open_writer, read_catalogue
from featurestore.partition_writer import OutboxRecord, PartitionWriter
from featurestore.view_settings import ViewSettings
from featurestore.views import Views
from streams.batch import InvalidRecord, RatingBatch
from streams.errors import ConfigError
from streams.events import DEADLETTER

__all__ = ["AppliedBatch", "FeatureWriter"]

_REBUILD = "`streamlens worker --rebuild` recomputes the store from the log"


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """What one transaction did: how many ratings counted, were duplicate, late (and counted), and invalid."""

    ratings: int
    duplicates: int
    late: int
    invalid: int


class FeatureWriter(PartitionWriter):
    """The one writer of an agent's features for the partitions it holds.

    Not thread-safe: one thread at a time. ``wall_ms`` gives the wall time in milliseconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        agent: str,
        topic: str,
        run_id: str = "",
        views: ViewSettings | None = None,
        catalogue: Catalogue | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.run_id = run_id
        self.views = views or ViewSettings()
        database = open_writer(url, self.views, catalogue or Catalogue())
        super().__init__(database, agent=agent, topic=topic, rebuild=_REBUILD, wall_ms=wall_ms)
        try:
            meta = dict(database.rows("SELECT key, value FROM meta"))
            self._check_settings(meta)
            self.catalogue = self._check_catalogue(meta, catalogue)
        except BaseException:
            self.close()
            raise

    def _check_settings(self, meta: Mapping[str, str]) -> None:
        """A store is built with one lateness bound, one session gap and so on: other ones would give other views."""
        for key, value in self.views.as_meta().items():
            if meta[key] != value:
                raise ConfigError(
                    f"{self.database.label}: built with {key} = {meta[key]}, asked for {value}; "
                    f"set {key} = {meta[key]}, or {_REBUILD}"
                )

    def _check_catalogue(self, meta: Mapping[str, str], given: Catalogue | None) -> Catalogue:
        """The movies the store was built with, which are those ``given``."""
        if given is None:
            return read_catalogue(self.database)
        if given.fingerprint == meta["catalogue"]:
            return given
        raise ConfigError(
            f"{self.database.label}: built with other movies (titles, years or genres) than the dataset has now; "
            f"restore the dataset, or {_REBUILD}"
        )

    # Applying

    def apply(self, batches: Sequence[RatingBatch]) -> AppliedBatch:
        """Apply batches in one transaction; what is already applied is skipped, and so are partitions not held.

        Raises what :meth:`commit` does; then nothing has changed and the same call may be made again.
        """
        known = self.cursors
        while not self._apply(batches):
            pass
        after = self.cursors
        changed = [p for p, cursor in after.items() if cursor is not known[p]]
        return _difference([known[p] for p in changed], [after[p] for p in changed])

    def _apply(self, batches: Sequence[RatingBatch]) -> bool:
        cursors = self.cursors
        parts: list[Accepted] = []
        letters: list[OutboxRecord] = []
        for batch in batches:
            if (before := cursors.get(batch.partition)) is None:
                continue  # released while the batch was on its way
            accepted, after, invalid = accept(batch, before, lateness_s=self.views.lateness_s)
            cursors[batch.partition] = after
            parts.append(accepted)
            letters += self._dead_letters(batch, before, invalid)
        ratings = Accepted.concat(parts) if parts else Accepted.none()
        views = Views.of(ratings, self.views, self.catalogue) if len(ratings) else None

        def write(database: Database) -> None:
            if views is not None:
                views.write(database, self.views.session_gap_s)

        return self.commit(cursors, _sources(batches), write, letters)

    def _dead_letters(self, batch: RatingBatch, before: Cursor, invalid: Iterable[InvalidRecord]) -> list[OutboxRecord]:
        source = f"{self.run_id}/{self.agent}/{batch.topic}/{batch.partition}"
        letters = []
        for event_id, record in enumerate(invalid, before.emitted + 1):
            letter = msgspec.structs.replace(
                record.dead_letter(batch.topic, batch.partition), source=source, event_id=event_id
            )
            key = f"{batch.topic}/{batch.partition}/{record.offset}".encode()
            letters.append(OutboxRecord(batch.partition, DEADLETTER, key, msgspec.json.encode(letter)))
        return letters


def _sources(batches: Iterable[RatingBatch]) -> dict[int, set[str]]:
    """The sources of the batches by partition."""
    found: dict[int, set[str]] = {}
    for batch in batches:
        found.setdefault(batch.partition, set()).update(batch.sources)
    return found


def _difference(before: list[Cursor], after: list[Cursor]) -> AppliedBatch:
    def gained(name: str) -> int:
        value = attrgetter(name)
        return int(sum(map(value, after)) - sum(map(value, before)))

    return AppliedBatch(gained("ratings"), gained("duplicates"), gained("late"), gained("invalid"))

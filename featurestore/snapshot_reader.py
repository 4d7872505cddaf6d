"""Reading a snapshot back: the same features as the store gives as of the snapshot's event time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.catalogue import Catalogue
from featurestore.features import ItemFeatures, UserFeatures
from featurestore.snapshot_manifest import read_manifest
from featurestore.snapshot_tables import (
    INTERACTIONS,
    ITEM_FEATURES,
    MOVIES,
    USER_FEATURES,
    item_features_of,
    movies_of,
    user_features_of,
)
from streams.errors import StoreError
from streams.events import HOUR_S
from streams.records import Int64s

__all__ = ["Snapshot"]


class Snapshot:
    """The snapshot in ``folder``; each file is read when it is asked for, once.

    ``check``: compare every file with its checksum first. Raises StoreError where there is no snapshot, or a damaged
    one.
    """

    def __init__(self, folder: Path, *, check: bool = True) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        if check:
            for name, file in self.manifest.files.items():
                if self._digest(name) != file.sha256:
                    raise StoreError(f"{folder / name}: not what the manifest says; take the snapshot again")

    @property
    def as_of(self) -> int:
        """Event time: nothing from then on is in it."""
        return self.manifest.as_of

    def interactions(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The ratings before ``as_of``, by user and of one user in event time; all columns unless some are named."""
        return self._table(INTERACTIONS, columns)

    @cached_property
    def users(self) -> UserFeatures:
        """The features of every user with ratings, by rising id."""
        return user_features_of(self._table(USER_FEATURES), self.manifest.genres, self.as_of)

    @cached_property
    def items(self) -> ItemFeatures:
        """The features of every movie with ratings, by rising id."""
        return item_features_of(self._table(ITEM_FEATURES), self.as_of // HOUR_S * HOUR_S)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Every movie the store knows, rated or not."""
        return movies_of(self._table(MOVIES))

    def get_user_features(self, user_ids: Sequence[int] | Int64s) -> UserFeatures:
        """As :meth:`featurestore.reader.FeatureReader.get_user_features` as of this snapshot's event time."""
        return self.users.of(user_ids)

    def get_item_features(self, movie_ids: Sequence[int] | Int64s) -> ItemFeatures:
        """As :meth:`featurestore.reader.FeatureReader.get_item_features` as of this snapshot's event time."""
        return self.items.of(movie_ids)

    def _table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        path = self.folder / name
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{path}: cannot be read ({error}); take the snapshot again") from error

    def _digest(self, name: str) -> str:
        try:
            with (self.folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"{self.folder / name}: cannot be read ({error}); take the snapshot again") from error

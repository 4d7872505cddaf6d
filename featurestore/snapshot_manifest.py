"""What a snapshot says of itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from featurestore.view_settings import ViewSettings
from streams.errors import StoreError

__all__ = ["FileInfo", "SnapshotManifest", "manifest_path", "read_manifest"]

_FORMAT = 1


class FileInfo(msgspec.Struct, frozen=True):
    """One Parquet file: how many rows and bytes, its SHA-256, and its columns with their Arrow types."""

    rows: int
    bytes: int
    sha256: str
    columns: dict[str, str]


class SnapshotManifest(msgspec.Struct, frozen=True):
    """What a snapshot holds, and of what.

    snapshot_id: SHA-256 over all the rest but ``created_at``: equal ids, equal content. as_of, clock: event time,
    seconds since the epoch; where ``clock`` lies before ``as_of``, more ratings before ``as_of`` may still have come.
    log_id, offsets: the log and, per partition, the offset up to which it was applied. catalogue: fingerprint of the
    movies. views: the settings of the store. created_at: wall time, seconds since the epoch.
    """

    snapshot_id: str
    as_of: int
    clock: int
    log_id: str
    offsets: dict[int, int]
    genres: tuple[str, ...]
    catalogue: str
    views: ViewSettings
    files: dict[str, FileInfo]
    created_at: float
    format: int = _FORMAT


def manifest_path(folder: Path) -> Path:
    """Where the manifest of a snapshot folder stands."""
    return folder / "manifest.json"


def read_manifest(folder: Path) -> SnapshotManifest:
    """The manifest of a snapshot. Raises StoreError where there is none, or one of another format."""
    path = manifest_path(folder)
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=SnapshotManifest)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder}: expected a snapshot, found none; take one with `streamlens snapshot`") from None
    except msgspec.DecodeError as error:
        raise StoreError(f"{path}: expected a snapshot's manifest, found {error}; take the snapshot again") from error
    if manifest.format != _FORMAT:
        raise StoreError(f"{path}: expected format {_FORMAT}, found {manifest.format}; take the snapshot again")
    return manifest

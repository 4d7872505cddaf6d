"""Snapshots: interactions and features as of one event time, as Parquet files with a manifest. Training reads these.

A snapshot is taken from a private copy of the store, so it is consistent with one set of applied offsets and holds up
nobody. The folder appears whole or not at all: it is written under another name and renamed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.aggregate import Accepted
from featurestore.database import copy_store
from featurestore.features import (
    ItemFeatures,
    ItemSums,
    item_features,
    item_sums,
    merge_item_sums,
    user_features,
    user_sums,
)
from featurestore.reader import AppliedOffset, FeatureReader
from featurestore.snapshot_manifest import FileInfo, SnapshotManifest, manifest_path
from featurestore.snapshot_tables import (
    INTERACTIONS,
    ITEM_FEATURES,
    MOVIES,
    USER_FEATURES,
    interactions_schema,
    interactions_table,
    item_table,
    movies_table,
    user_schema,
    user_table,
)
from featurestore.view_settings import ViewSettings
from streams.durable import write_durably
from streams.errors import ConfigError, StoreUnavailable
from streams.events import DAY_S, HOUR_S

__all__ = ["take_snapshot"]

_PAGES_PER_MERGE = 16


def take_snapshot(
    store_url: str,
    out: Path,
    as_of: int | None = None,
    *,
    overwrite: bool = False,
    wall_s: Callable[[], float] = time.time,
) -> SnapshotManifest:
    """Write the snapshot folder ``out``: ratings before ``as_of`` (the store's clock by default), features as of it.

    Memory is bounded by some thousand users' histories, whatever the store holds; the disk of ``out`` needs room for
    a copy of the store beside the result. Raises ConfigError where ``out`` exists, unless ``overwrite`` and it is a
    snapshot; StoreMissing, StoreError and StoreUnavailable as every reader does, and where ``out`` cannot be written.
    """
    out = out.resolve()  # of a link, the folder it leads to is replaced, not the link
    try:
        _clear_up(out)
        _check_target(out, overwrite)
        with _draft(out) as draft:
            with tempfile.TemporaryDirectory(prefix=".copy-", dir=draft) as scratch:
                copy = copy_store(store_url, Path(scratch) / "features.db")
                with FeatureReader(f"sqlite:///{copy}") as reader:
                    manifest = _write(reader, draft, reader.clock() if as_of is None else as_of, wall_s())
            write_durably(manifest_path(draft), msgspec.json.format(msgspec.json.encode(manifest)))
            _put_in_place(draft, out, overwrite)
    except OSError as error:
        raise StoreUnavailable(
            f"{out}: the snapshot cannot be written ({error}); free space, or name another"
        ) from error
    return manifest


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise _exists(out)
    if not manifest_path(out).is_file():
        raise ConfigError(f"{out}: expected a snapshot to replace, found something else; name another folder")


def _exists(out: Path) -> ConfigError:
    return ConfigError(f"{out}: expected a folder that does not exist yet, found one; name another, or add --force")


def _put_in_place(draft: Path, out: Path, overwrite: bool) -> None:
    """Rename, with an old snapshot aside meanwhile; :func:`_clear_up` brings it back if the process dies in between."""
    aside: list[Path] = []
    try:
        while not _renamed(draft, out):
            if not overwrite:
                raise _exists(out)
            with suppress(FileNotFoundError):  # another process replaces it too, and was quicker
                aside.append(out.rename(_beside(out, "replaced")))
    except BaseException:
        for old in aside:
            with suppress(OSError):
                old.rename(out)
        raise
    for old in aside:
        shutil.rmtree(old, ignore_errors=True)


def _renamed(draft: Path, out: Path) -> bool:
    """False where a snapshot is there, also one that another process has put there since it was looked for."""
    try:
        draft.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _beside(out: Path, what: str) -> Path:
    return out.parent / f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.{what}"


def _left_behind(out: Path, what: str) -> Iterator[Path]:
    """What killed processes left of this snapshot."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.{what}"):
        pid = left.name.split(".")[-3]
        if pid.isdigit() and not _is_alive(int(pid)):
            yield left


def _clear_up(out: Path) -> None:
    """Finish or undo what killed processes left."""
    for old in _left_behind(out, "replaced"):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(out)
    for draft in _left_behind(out, "partial"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A folder beside ``out``, gone at the end unless it was renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = _beside(out, "partial")
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _ParquetFile:
    """A Parquet file under way: zstd, one row group per table written."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._rows += len(table)

    def close(self) -> FileInfo:
        """End the file and wait until it is on the disk."""
        self._writer.close()
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256")
        columns = {field.name: str(field.type) for field in self._schema}
        return FileInfo(self._rows, self.path.stat().st_size, digest.hexdigest(), columns)


def _write(reader: FeatureReader, draft: Path, as_of: int, created_at: float) -> SnapshotManifest:
    files = {INTERACTIONS: _ParquetFile(draft / INTERACTIONS, interactions_schema())}
    files[USER_FEATURES] = _ParquetFile(draft / USER_FEATURES, user_schema(len(reader.catalogue.genres)))
    items = _write_users(reader, as_of, files[INTERACTIONS], files[USER_FEATURES])
    for name, table in ((ITEM_FEATURES, item_table(items)), (MOVIES, movies_table(reader.catalogue))):
        files[name] = _ParquetFile(draft / name, table.schema)
        files[name].write(table)
    return _manifest(reader, as_of, {name: file.close() for name, file in files.items()}, created_at)


def _write_users(reader: FeatureReader, as_of: int, interactions: _ParquetFile, users: _ParquetFile) -> ItemFeatures:
    """Write interactions and users page by page; returns the features of all movies, which the same pass gives."""
    settings, catalogue = reader.settings, reader.catalogue
    parts = [item_sums(Accepted.none(), as_of, settings.popularity_half_life_days)]
    for page in reader.history_pages(before=as_of):
        interactions.write(interactions_table(page))
        sums = user_sums(page, settings, catalogue)
        users.write(user_table(user_features(sums.user_id, sums, catalogue.genres, as_of)))
        parts.append(item_sums(page, as_of, settings.popularity_half_life_days))
        if len(parts) == _PAGES_PER_MERGE:
            parts = [merge_item_sums(parts)]
    return _item_features(merge_item_sums(parts), as_of, settings)


def _item_features(sums: ItemSums, as_of: int, settings: ViewSettings) -> ItemFeatures:
    return item_features(
        sums.movie_id,
        sums,
        as_of=as_of // HOUR_S * HOUR_S,
        end_day=as_of // DAY_S,
        half_life_days=settings.popularity_half_life_days,
    )


def _manifest(reader: FeatureReader, as_of: int, files: dict[str, FileInfo], created_at: float) -> SnapshotManifest:
    applied: list[AppliedOffset] = sorted(reader.applied(), key=lambda row: row.partition)
    manifest = SnapshotManifest(
        snapshot_id="",
        as_of=as_of,
        clock=reader.clock(),
        log_id=applied[0].log_id if applied else "",
        offsets={row.partition: row.next_offset for row in applied},
        genres=reader.catalogue.genres,
        catalogue=reader.catalogue.fingerprint,
        views=reader.settings,
        files=files,
        created_at=0.0,
    )
    snapshot_id = hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()
    return msgspec.structs.replace(manifest, snapshot_id=snapshot_id, created_at=created_at)

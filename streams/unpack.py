"""Unpack a zip archive that is not trusted: nothing outside its folder, nothing absurdly large, every CRC checked."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from streams.errors import DataError, DataUnavailable
from streams.transfer import disk_errors, megabytes

__all__ = ["unpack"]

_BLOCK = 1 << 20
_MAX_ENTRIES = 10_000
_MAX_BYTES = 16 << 30
"""Unpacked; the largest MovieLens archive has about 1.2 GB."""


def unpack(archive: Path, into: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Write the files of ``archive`` below ``into``, an empty folder, without the one folder they all stand in.

    progress: told the bytes written so far and in all. Raises DataError for an archive that is damaged or would do
    harm, before anything of a harmful one is written; DataUnavailable where the disk has no room.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            files = _files(packed)
            total = sum(entry.file_size for entry in files.values())
            free = shutil.disk_usage(into).free
            if total > free:
                raise DataUnavailable(
                    f"{into.parent}: expected {megabytes(total)} of room to unpack, found {megabytes(free)}; "
                    "free some space and give the same command"
                )
            done = 0
            for path, entry in files.items():
                target = into / path
                with disk_errors(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(entry) as source, target.open("xb") as file:
                        while block := source.read(_BLOCK):
                            file.write(block)
                            done += len(block)
                            progress(done, total)
                        file.flush()
                        os.fsync(file.fileno())
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"expected a zip archive, found a damaged one ({error})") from error


def _files(packed: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to write, by their path below the folder."""
    entries = packed.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise DataError(f"expected at most {_MAX_ENTRIES:,} files in the archive, found {len(entries):,}")
    total = sum(entry.file_size for entry in entries)
    if total > _MAX_BYTES:
        raise DataError(f"expected at most {megabytes(_MAX_BYTES)} in the archive, found {megabytes(total)}")
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in entries:
        path = _safe_path(entry)
        if entry.is_dir() or path.parts[:1] == ("__MACOSX",):
            continue
        if path in files:
            raise DataError(f"expected each file once in the archive, found {entry.filename!r} twice")
        files[path] = entry
    for path in files:
        if any(parent in files for parent in path.parents):
            raise DataError(f"expected files and folders apart in the archive, found {str(path)!r} inside a file")
    tops = {path.parts[0] for path in files}
    if len(tops) == 1 and all(len(path.parts) > 1 for path in files):
        return {PurePosixPath(*path.parts[1:]): entry for path, entry in files.items()}
    return files


def _safe_path(entry: zipfile.ZipInfo) -> PurePosixPath:
    name = entry.filename
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":"
    if outside or (not path.parts and not entry.is_dir()):
        raise DataError(f"expected files inside the archive's folder, found {name!r}")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"expected plain files in the archive, found {name!r}, a link or device")
    return path

"""The registry: which trained version serves (the champion), which could (challengers), and who decided it, and why.

A folder, with nothing running: each version is a folder of it, and ``registry.json`` holds the decisions in their
order. Champion and statuses are read off the decisions, so that trail and champion cannot disagree; the file is
replaced by a rename, so that a crash leaves the last decision or the one before. Decisions take turns by a file lock,
which a killed process frees at once. Locks and renames need a POSIX file system.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from models.recommender import Recommender
from models.versions import MANIFEST, VERSION_ID, Manifest, check_files, load_version, read_manifest
from streams.durable import replace_durably, sync_folder
from streams.errors import ModelError, ModelMissing

__all__ = ["Action", "AuditEntry", "Registry", "Status", "Version"]

Status = Literal["challenger", "champion", "rejected", "retired"]
"""A challenger was not decided on yet; retired is who was champion."""
Action = Literal["promoted", "rejected", "rolled back"]

_DECISIONS = "registry.json"
_LOCK = "registry.lock"
_DRAFT = ".draft-"


class AuditEntry(msgspec.Struct, frozen=True):
    """One decision. at: wall time, ISO 8601 in UTC. version_id: who was rejected, else who is champion from then on.

    previous: the champion until then. by: who or what decided.
    """

    at: str
    action: Action
    version_id: str
    previous: str | None
    by: str
    why: str


class _Decisions(msgspec.Struct, frozen=True):
    entries: tuple[AuditEntry, ...] = ()
    format: int = 1


@dataclass(frozen=True, slots=True)
class Version:
    """A trained version, with its status at the time it was asked for."""

    version_id: str
    folder: Path
    manifest: Manifest
    status: Status

    def load(self) -> Recommender:
        """The model. Raises ModelError where a file is not what was trained."""
        return load_version(self.folder, self.manifest)


class Registry:
    """The versions and decisions in ``folder``, which need not exist yet. Many processes may have it open.

    Every call reads what is on the disk then. Raises ModelError where that is damaged, ModelMissing for a version that
    is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def versions(self) -> list[Version]:
        """All of them, the oldest first."""
        entries = self.audit()
        found = [self._version(path.parent.name, entries) for path in self.folder.glob(f"[!.]*/{MANIFEST}")]
        return sorted(found, key=lambda version: (version.manifest.created_at, version.version_id))

    def get(self, version_id: str) -> Version:
        return self._version(version_id, self.audit())

    def champion(self) -> Version | None:
        """Who serves; None before the first promotion."""
        entries = self.audit()
        champions = _champions(entries)
        return self._version(champions[-1], entries) if champions else None

    def challengers(self) -> list[Version]:
        """Those that were neither promoted nor rejected yet, the oldest first."""
        return [version for version in self.versions() if version.status == "challenger"]

    def audit(self) -> list[AuditEntry]:
        """Every decision, the oldest first."""
        path = self.folder / _DECISIONS
        try:
            entries = list(msgspec.json.decode(path.read_bytes(), type=_Decisions).entries)
            _champions(entries)
            return entries
        except FileNotFoundError:
            return []
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise ModelError(f"{path}: expected the registry's decisions, found {error}; restore it") from error

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """An empty folder to prepare a version in, gone at the end. What killed processes left is cleared away."""
        with self._turn():
            self._clear_up()
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.folder))
            held = os.open(draft, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(held)

    def add(self, draft: Path) -> Version:
        """Take in a folder with a model and its manifest, which is moved: it is there whole, or not at all.

        draft: on the registry's file system, best within :meth:`draft`. Raises ModelError for a damaged one.
        """
        manifest = read_manifest(draft)
        check_files(draft, manifest)
        folder = self.folder / manifest.version_id
        sync_folder(draft)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.rename(folder)
        except OSError as error:
            raise ModelError(f"{folder}: the version cannot be put there ({error})") from error
        sync_folder(self.folder)
        return self.get(manifest.version_id)

    def promote(self, version: Version, *, by: str, why: str) -> Version:
        """Make it the champion. Raises ModelError where it is damaged, or is the champion already."""
        check_files(version.folder, version.manifest)
        with self._turn():
            entries = self.audit()
            if version.version_id in _champions(entries)[-1:]:
                raise ModelError(f"{version.version_id}: expected another version to promote, it is the champion")
            self._decide(entries, "promoted", version.version_id, by, why)
        return self.get(version.version_id)

    def reject(self, version: Version, *, by: str, why: str) -> Version:
        """It is no challenger any more, and nothing is rolled back to it. Raises ModelError for the champion."""
        with self._turn():
            entries = self.audit()
            if version.version_id in _champions(entries)[-1:]:
                raise ModelError(
                    f"{version.version_id}: expected another version to reject, it is the champion; "
                    "roll back, or promote another first"
                )
            self._decide(entries, "rejected", version.version_id, by, why)
        return self.get(version.version_id)

    def roll_back(self, *, by: str, why: str) -> Version:
        """Make the champion before this one the champion again; returns it.

        Raises ModelError where there is none, or it is damaged.
        """
        with self._turn():
            entries = self.audit()
            champions = _champions(entries)
            if len(champions) < 2:
                found = f"only {champions[-1]}" if champions else "no champion at all"
                raise ModelError(f"{self.folder}: expected an earlier champion to roll back to, found {found}")
            before = self._version(champions[-2], entries)
            check_files(before.folder, before.manifest)
            self._decide(entries, "rolled back", before.version_id, by, why)
        return self.get(before.version_id)

    def _version(self, version_id: str, entries: Sequence[AuditEntry]) -> Version:
        folder = self.folder / version_id
        if not VERSION_ID.fullmatch(version_id) or not (folder / MANIFEST).exists():
            known = ", ".join(sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{MANIFEST}"))) or "none"
            raise ModelMissing(f"{self.folder}: expected a version {version_id}, found: {known}")
        manifest = read_manifest(folder)
        if manifest.version_id != version_id:
            raise ModelError(
                f"{folder}: expected the version {version_id}, found {manifest.version_id}; rename it back"
            )
        return Version(version_id, folder, manifest, _status(version_id, entries))

    def _decide(self, entries: Sequence[AuditEntry], action: Action, version_id: str, by: str, why: str) -> None:
        """Within a turn. Raises ModelError without a reason."""
        if not why.strip():
            raise ModelError(f"{version_id}: expected a reason for the audit trail, found none")
        champions = _champions(entries)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = AuditEntry(at, action, version_id, champions[-1] if champions else None, by, why)
        decisions = _Decisions((*entries, entry))
        replace_durably(self.folder / _DECISIONS, msgspec.json.format(msgspec.json.encode(decisions)))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only process that decides; others wait, for some milliseconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _clear_up(self) -> None:
        """Within a turn: remove the drafts that nobody holds any more."""
        for left in self.folder.glob(f".{_DECISIONS}.*"):
            left.unlink()
        for path in self.folder.glob(f"{_DRAFT}*"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _champions(entries: Sequence[AuditEntry]) -> list[str]:
    """The champion, last, and those before it that a rollback leads to, each once."""
    champions: list[str] = []
    for entry in entries:
        if entry.action == "rolled back":
            if champions[-2:-1] != [entry.version_id]:
                raise ValueError(f"a way back to {entry.version_id}, which was not the champion before")
            champions.pop()
        else:
            champions = [version for version in champions if version != entry.version_id]
        if entry.action == "promoted":
            champions.append(entry.version_id)
    return champions


def _status(version_id: str, entries: Sequence[AuditEntry]) -> Status:
    if version_id in _champions(entries)[-1:]:
        return "champion"
    actions = [entry.action for entry in entries if entry.version_id == version_id]
    if not actions:
        return "challenger"
    return "rejected" if actions[-1] == "rejected" else "retired"

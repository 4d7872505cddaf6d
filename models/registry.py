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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from models.decisions import (
    Action,
    AuditEntry,
    Decisions,
    Status,
    champions,
    rejected_at,
    serving_at,
    status_of,
)
from models.recommender import Recommender
from models.versions import MANIFEST, VERSION_ID, Manifest, check_files, load_version, read_manifest
from streams.durable import replace_durably, sync_folder
from streams.errors import ModelError, ModelMissing

__all__ = ["Action", "AuditEntry", "Registry", "Status", "Version"]

_DECISIONS = "registry.json"
_LOCK = "registry.lock"
_DRAFT = ".draft-"

Clear = Callable[[Path], None]


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
        """All whose manifest can be read, the oldest first."""
        return self._found()[0]

    def damaged(self) -> dict[str, str]:
        """The other versions, each with what is wrong with it."""
        return self._found()[1]

    def get(self, version_id: str) -> Version:
        return self._version(version_id, self.audit())

    def champion(self) -> Version | None:
        """Who serves; None before the first promotion."""
        entries = self.audit()
        served = champions(entries)
        return self._version(served[-1], entries) if served else None

    def champion_at(self, event_time: int) -> Version | None:
        """Who serves at an event time, seconds since the epoch: decisions hold from their effective times on."""
        entries = self.audit()
        served = serving_at(entries, event_time)
        return self._version(served, entries) if served else None

    def newest(self, kind: str, event_time: int) -> Version | None:
        """The version of ``kind`` that learnt most, of those that may serve at ``event_time`` and are not rejected."""
        rejected = rejected_at(self.audit(), event_time)
        found = [
            version
            for version in self.versions()
            if version.manifest.kind == kind
            and version.manifest.serves_from <= event_time
            and version.version_id not in rejected
        ]
        return max(found, key=lambda version: (version.manifest.as_of, version.manifest.created_at), default=None)

    def answer_to(self, request: str) -> AuditEntry | None:
        """What was decided on ``request``; None for nothing yet."""
        return next((entry for entry in self.audit() if entry.request == request), None)

    def challengers(self) -> list[Version]:
        """Those that were neither promoted nor rejected yet, the oldest first."""
        return [version for version in self.versions() if version.status == "challenger"]

    def audit(self) -> list[AuditEntry]:
        """Every decision, the oldest first."""
        path = self.folder / _DECISIONS
        try:
            entries = list(msgspec.json.decode(path.read_bytes(), type=Decisions).entries)
            champions(entries)
            return entries
        except FileNotFoundError:
            return []
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise ModelError(f"{path}: expected the registry's decisions, found {error}; restore it") from error

    @contextmanager
    def draft(self, clear: Clear = lambda draft: None) -> Iterator[Path]:
        """An empty folder to prepare a version in, gone at the end. What killed processes left is cleared away.

        clear: called with a draft that is about to go, to remove what belongs to it elsewhere.
        """
        with self._turn():
            self._clear_up(clear)
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.folder))
            held = os.open(draft, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield draft
        finally:
            _discard(draft, clear)
            os.close(held)

    def add(self, draft: Path) -> Version:
        """Take in a folder with a model and its manifest, which is moved: it is there whole, or not at all.

        draft: on the registry's file system, best within :meth:`draft`. Raises ModelError for a damaged one.
        """
        manifest = read_manifest(draft)
        check_files(draft, manifest)
        folder = self.folder / manifest.version_id
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sync_folder(draft)  # what it holds is on the disk before its name is
            draft.rename(folder)
            sync_folder(self.folder)
        except OSError as error:
            raise ModelError(f"{folder}: the version cannot be put there ({error})") from error
        return self.get(manifest.version_id)

    def promote(
        self, version: Version, *, by: str, why: str, effective: int | None = None, request: str | None = None
    ) -> Version:
        """Make it the champion, from event time ``effective`` on. Where ``request`` was decided on, nothing changes.

        Raises ModelError where it is damaged, or is the champion already.
        """
        check_files(version.folder, version.manifest)
        with self._turn():
            entries = self.audit()
            if not _is_answered(entries, request):
                if version.version_id in champions(entries)[-1:]:
                    raise ModelError(f"{version.version_id}: expected another version to promote, it is the champion")
                self._decide(entries, "promoted", version.version_id, by, why, effective, request)
        return self.get(version.version_id)

    def reject(
        self, version: Version, *, by: str, why: str, effective: int | None = None, request: str | None = None
    ) -> Version:
        """It is no challenger any more, and nothing is rolled back to it. Raises ModelError for the champion.

        effective, request: as :meth:`promote` has them.
        """
        with self._turn():
            entries = self.audit()
            if not _is_answered(entries, request):
                if version.version_id in champions(entries)[-1:]:
                    raise ModelError(
                        f"{version.version_id}: expected another version to reject, it is the champion; "
                        "roll back, or promote another first"
                    )
                self._decide(entries, "rejected", version.version_id, by, why, effective, request)
        return self.get(version.version_id)

    def roll_back(
        self,
        *,
        by: str,
        why: str,
        effective: int | None = None,
        request: str | None = None,
        champion: str | None = None,
    ) -> Version:
        """Make the champion before this one the champion again; returns it.

        effective, request: as :meth:`promote` has them. champion: who is to be replaced. Raises ModelError where that
        is not the champion, and where there is none before it, or a damaged one.
        """
        with self._turn():
            entries = self.audit()
            served = champions(entries)
            if _is_answered(entries, request):
                return self._version(served[-1], entries)
            if champion is not None and served[-1:] != [champion]:
                raise ModelError(f"{self.folder}: expected the champion {champion} to roll back, found {served[-1:]}")
            if len(served) < 2:
                found = f"only {served[-1]}" if served else "no champion at all"
                raise ModelError(f"{self.folder}: expected an earlier champion to roll back to, found {found}")
            before = self._version(served[-2], entries)
            check_files(before.folder, before.manifest)
            self._decide(entries, "rolled back", before.version_id, by, why, effective, request)
        return self.get(before.version_id)

    def _found(self) -> tuple[list[Version], dict[str, str]]:
        """Versions, the oldest first, and damaged ones with what is wrong."""
        entries = self.audit()
        found, damaged = [], {}
        for name in sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{MANIFEST}")):
            try:
                found.append(self._version(name, entries))
            except ModelError as error:
                damaged[name] = str(error)
        return sorted(found, key=lambda version: (version.manifest.created_at, version.version_id)), damaged

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
        return Version(version_id, folder, manifest, status_of(version_id, entries))

    def _decide(
        self,
        entries: Sequence[AuditEntry],
        action: Action,
        version_id: str,
        by: str,
        why: str,
        effective: int | None,
        request: str | None,
    ) -> None:
        """Within a turn. Raises ModelError without a reason."""
        if not why.strip():
            raise ModelError(f"{version_id}: expected a reason for the audit trail, found none")
        served = champions(entries)
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = AuditEntry(at, action, version_id, served[-1] if served else None, by, why, effective, request)
        decisions = Decisions((*entries, entry))
        replace_durably(self.folder / _DECISIONS, msgspec.json.format(msgspec.json.encode(decisions)))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only process that decides; others wait, for some milliseconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _clear_up(self, clear: Clear) -> None:
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
                _discard(path, clear)
            finally:
                os.close(descriptor)


def _is_answered(entries: Sequence[AuditEntry], request: str | None) -> bool:
    return request is not None and any(entry.request == request for entry in entries)


def _discard(draft: Path, clear: Clear) -> None:
    clear(draft)
    shutil.rmtree(draft, ignore_errors=True)

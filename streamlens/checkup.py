"""Is this machine set up right? Each check says what it found, and what to do where that will not work."""

from __future__ import annotations

import fcntl
import platform
import re
import shutil
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from featurestore.database import open_reader
from streamlens.presence import holder
from streamlens.settings import Settings
from streamlens.target import Target, find_target
from streams.dataset import DEFAULT_DATASET, open_dataset
from streams.errors import StoreMissing, StreamLensError
from streams.postgres_url import without_password

__all__ = ["Finding", "examine"]

_OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING, by which a writer takes a partition over."""
_LEAST_FREE_BYTES = 1 << 30
_PACKAGE_NAME = re.compile(r"[\w.-]+")
"""What a requirement begins with, whatever versions, extras and markers follow."""
_EXTRAS = {"kafka": ("cramjam", "lz4"), "postgres": ("psycopg", "postgresql:// stores")}
"""`pip install 'streamlens[NAME]'`: the package that it brings, and what for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: ``found`` in words; ``hint``: the next step where it is not ``ok``."""

    name: str
    ok: bool
    found: str
    hint: str = ""


async def examine(run_id: str | None = None, bus: str | None = None, store: str | None = None) -> list[Finding]:
    """All checks; none of them raises for what it finds, and none changes anything."""
    findings = [_python(), _packages(), _extras(), _sqlite()]
    try:
        target = find_target(run_id, bus=bus, store=store)
    except (StreamLensError, OSError) as error:
        return [*findings, Finding("settings", False, str(error), "mend it and look again")]
    findings += [_settings(), _locks(target.settings.var), _disk(target.settings.var), _data(target.settings)]
    return [*findings, await _bus(target), _store(target), _run(target)]


def _python() -> Finding:
    hint = "install Python 3.11 or newer"
    return Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} ({sys.executable})", hint)


def _packages() -> Finding:
    hint = "run `make setup`, or `pip install streamlens`"
    missing = []
    try:
        wanted = [line for line in metadata.requires("streamlens") or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return Finding("packages", False, "streamlens itself is not installed", hint)
    for line in wanted:
        name = _PACKAGE_NAME.findall(line)[0]
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    found = f"missing: {', '.join(missing)}" if missing else f"all {len(wanted)} there"
    return Finding("packages", not missing, found, hint)


def _extras() -> Finding:
    """Never wrong: what needs one names it."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for name, (package, serves) in _EXTRAS.items():
        found[find_spec(package) is not None].append(f"{name} ({serves})")
    missing = f"; not installed: {', '.join(found[False])}" if found[False] else ""
    return Finding("extras", True, (", ".join(found[True]) or "none") + missing)


def _sqlite() -> Finding:
    oldest = ".".join(map(str, _OLDEST_SQLITE))
    ok = sqlite3.sqlite_version_info >= _OLDEST_SQLITE
    return Finding("sqlite", ok, sqlite3.sqlite_version, f"use a Python built with SQLite {oldest} or newer")


def _settings() -> Finding:
    return Finding("settings", True, "valid")


def _locks(var: Path) -> Finding:
    """The bus tells members of a group apart by OS file locks; some network file systems only pretend to have them."""
    folder = _existing(var)
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as first, open(first.name) as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("file locks", True, f"work in {folder}")
            found = "a second holder was let in"
    except OSError as error:
        found = str(error)
    return Finding("file locks", False, f"{folder}: {found}", "set STREAMLENS_VAR to a folder on a local disk")


def _disk(var: Path) -> Finding:
    free = shutil.disk_usage(_existing(var)).free
    found = f"{free / (1 << 30):.1f} GiB free for {var.absolute()}"
    return Finding("disk", free >= _LEAST_FREE_BYTES, found, "free 1 GiB, or set STREAMLENS_VAR to a roomier place")


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def _data(settings: Settings) -> Finding:
    try:
        dataset = open_dataset(settings.replay.data or DEFAULT_DATASET)
        return Finding("data", True, f"{dataset.name}, {dataset.n_ratings:,} ratings")
    except StreamLensError as error:
        return Finding("data", False, str(error), "`--data synthetic` needs no files")


async def _bus(target: Target) -> Finding:
    if target.run is None and target.settings.bus is None:
        return Finding("bus", True, "none yet; `streamlens replay` makes one")
    try:
        async with target.open_bus() as bus:
            topics = await bus.topics()
            held = [await bus.offsets(name) for name in topics]
            records = sum(end for ranges in held for _, end in ranges.values())
    except StreamLensError as error:
        return Finding("bus", False, str(error), "start what serves it, or name another with --bus")
    return Finding(
        "bus",
        True,
        f"{target.bus_url}: {len(topics)} topics, {records:,} records",
    )


def _store(target: Target) -> Finding:
    if target.run is None and target.settings.store is None:
        return Finding("store", True, "none yet; `streamlens worker` makes one")
    try:
        open_reader(target.store_url).close()
    except StoreMissing as error:
        return Finding("store", True, str(error))
    except StreamLensError as error:
        return Finding("store", False, str(error), "start what serves it, or name another with --store")
    return Finding("store", True, without_password(target.store_url))


def _run(target: Target) -> Finding:
    if target.run is None:
        return Finding("run", True, "none yet; `streamlens demo` shows everything in a minute")
    at_work = [role for role in ("replayer", "worker") if holder(target.run.path, role) is not None]
    state = "complete" if target.run.info.completed_at else "unfinished"
    return Finding(
        "run", True, f"{target.run_id} of {target.data}, {state}; running: {', '.join(at_work) or 'nothing'}"
    )

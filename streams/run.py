"""A run: its identity, and the folder ``var/runs/RUN_ID/`` that holds its log, its store and what it was asked to do.

``var/current`` names the last run; commands take that one unless told. A run is continued by asking for the same
thing again: data, options and seed make its id. Locks and atomic renames need a POSIX file system.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from streams.durable import replace_durably
from streams.errors import ConfigError
from streams.postgres_url import store_url_of_run, without_password

__all__ = [
    "RunFolder",
    "RunInfo",
    "WeekSplitInfo",
    "bus_url_of_run",
    "current_run",
    "list_runs",
    "open_run",
    "run_id_of",
    "start_run",
]

_RUN_JSON = "run.json"
_CURRENT = "current"
_RUN_ID = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_.-]{0,63}")


class WeekSplitInfo(msgspec.Struct, frozen=True):
    """The run's two parts: ratings before ``cutoff`` (seconds since the epoch) are training data."""

    start: int
    cutoff: int
    n_training: int
    n_live: int


class RunInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``run.json`` holds. Times are wall time, ISO 8601 in UTC; ``nonce`` tells apart runs of the same options.

    ``bus_url`` and ``store_url`` are None where log and store lie in the run's folder, which may be moved.
    """

    run_id: str
    data: str
    data_fingerprint: str
    options: dict[str, Any]
    started_at: str
    bus_url: str | None = None
    store_url: str | None = None
    split: WeekSplitInfo | None = None
    nonce: str = ""
    completed_at: str | None = None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk. ``bus_url`` and ``store_url`` are files of the folder unless the run was given others."""

    var: Path
    info: RunInfo

    @property
    def run_id(self) -> str:
        return self.info.run_id

    @property
    def path(self) -> Path:
        return _folder(self.var, self.run_id)

    @property
    def bus_url(self) -> str:
        return self.info.bus_url or f"sqlite:///{self.path.resolve() / 'bus.db'}"

    @property
    def store_url(self) -> str:
        return self.info.store_url or f"sqlite:///{self.path.resolve() / 'features.db'}"

    @contextmanager
    def claim(self, role: str) -> Iterator[None]:
        """Be the only process in ``role`` ("replayer") of this run; a killed process frees it at once.

        Raises ConfigError naming the process that has it.
        """
        path = self.path / f"{role}.lock"
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ConfigError(
                    f"run {self.run_id}: expected no other {role}, found process {file.read().strip() or 'unknown'}; "
                    "stop it first, or begin another run with --new-run"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def complete(self) -> RunFolder:
        """Write down that everything of the run was published."""
        if self.info.completed_at is not None:
            return self
        done = RunFolder(self.var, msgspec.structs.replace(self.info, completed_at=_now()))
        replace_durably(self.path / _RUN_JSON, msgspec.json.format(msgspec.json.encode(done.info)))
        return done

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder, all of it or nothing."""
        replace_durably(self.path / name, content)


def run_id_of(data_fingerprint: str, options: Mapping[str, object], nonce: str = "") -> str:
    """12 hex digits over data, options (with the seed) and what tells apart runs of the same.

    >>> run_id_of("ab12", {"week": 10, "seed": 0})
    'ed2030b7f622'
    """
    identity = msgspec.json.encode([data_fingerprint, dict(sorted(options.items())), nonce])
    return hashlib.sha256(identity).hexdigest()[:12]


def bus_url_of_run(bus_url: str, run_id: str) -> str:
    """A bus of the run's own: on a Kafka cluster, which runs share, the run's id sets its topics and groups apart.

    >>> bus_url_of_run("kafka://broker:9092", "ed2030b7f622")
    'kafka://broker:9092/ed2030b7f622'
    >>> bus_url_of_run("kafka://broker:9092/team-a", "ed2030b7f622")
    'kafka://broker:9092/team-a'
    """
    scheme, _, rest = bus_url.partition("://")
    hosts, _, prefix = rest.partition("/")
    return f"{scheme}://{hosts}/{run_id}" if scheme == "kafka" and not prefix.rstrip("/") else bus_url


def start_run(
    var: Path,
    *,
    data: str,
    data_fingerprint: str,
    options: Mapping[str, object],
    split: WeekSplitInfo | None = None,
    new_run: bool = False,
    bus_url: str | None = None,
    store_url: str | None = None,
) -> RunFolder:
    """The run of this data and these options, created or, where it exists, continued; it becomes the current one.

    A Kafka ``bus_url`` without a prefix gets the run's id as its prefix, a PostgreSQL ``store_url`` without a schema
    one named after it; a password is not kept.

    Raises ConfigError when the current run is unfinished and was asked for something else, or lies on another bus
    or store; ``new_run`` begins one of its own then, whatever there is.
    """
    run = None if new_run else _run_to_continue(var, data, data_fingerprint, options)
    if run is None:
        nonce = secrets.token_hex(4) if new_run else ""
        run_id = run_id_of(data_fingerprint, options, nonce)
        info = RunInfo(
            run_id=run_id,
            data=data,
            data_fingerprint=data_fingerprint,
            options=dict(options),
            started_at=_now(),
            bus_url=None if bus_url is None else bus_url_of_run(bus_url, run_id),
            store_url=_kept(store_url, run_id),
            split=split,
            nonce=nonce,
        )
        run = RunFolder(var, info)
        run.path.mkdir(parents=True, exist_ok=True)
        replace_durably(run.path / _RUN_JSON, msgspec.json.format(msgspec.json.encode(info)))
    wanted_bus = None if bus_url is None else bus_url_of_run(bus_url, run.run_id)
    wanted_store = _kept(store_url, run.run_id)
    for name, wanted, expected in (("bus", wanted_bus, run.bus_url), ("store", wanted_store, run.store_url)):
        if wanted is not None and wanted != expected:
            raise ConfigError(
                f"run {run.run_id}: expected its {name} {expected}, found {wanted}; "
                f"leave --{name} out to resume it, or begin another run with --new-run"
            )
    replace_durably(var / _CURRENT, f"{run.run_id}\n".encode())
    return run


def _kept(store_url: str | None, run_id: str) -> str | None:
    return None if store_url is None else without_password(store_url_of_run(store_url, run_id))


def _run_to_continue(var: Path, data: str, data_fingerprint: str, options: Mapping[str, object]) -> RunFolder | None:
    """The current run if it is of this data and these options, else an earlier one that is; None for a first run."""
    run = current_run(var)
    if run is not None:
        difference = _difference(run.info, data, data_fingerprint, options)
        if difference is None:
            return run
        if run.info.completed_at is None:
            raise ConfigError(
                f"run {run.run_id} is unfinished: to resume it, expected {difference}; "
                "ask for the same again, or begin another run with --new-run"
            )
    run_id = run_id_of(data_fingerprint, options)
    return open_run(var, run_id) if (_folder(var, run_id) / _RUN_JSON).exists() else None


def _difference(info: RunInfo, data: str, data_fingerprint: str, options: Mapping[str, object]) -> str | None:
    """What a run was asked for and what is asked for now, where they differ."""
    if info.data_fingerprint != data_fingerprint:
        return f"data {info.data}, found {data}" + (" with other content" if info.data == data else "")
    names = [name for name in {**info.options, **options} if info.options.get(name) != options.get(name)]
    if not names:
        return None
    expected = " ".join(f"{name}={_shown(info.options.get(name))}" for name in names)
    return f"{expected}, found " + " ".join(f"{name}={_shown(options.get(name))}" for name in names)


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def open_run(var: Path, run_id: str) -> RunFolder:
    """A run that exists. Raises ConfigError where it does not, or where its ``run.json`` cannot be read."""
    path = _folder(var, run_id) / _RUN_JSON
    try:
        info = msgspec.json.decode(path.read_bytes(), type=RunInfo)
    except FileNotFoundError:
        known = ", ".join(run.run_id for run in list_runs(var)[-5:]) or "none"
        raise ConfigError(f"run {run_id}: expected {path}, found no such run; known runs: {known}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path}: expected a run's description, found {error}; begin another with --new-run"
        ) from None
    return RunFolder(var, info)


def current_run(var: Path) -> RunFolder | None:
    """The run that ``var/current`` names; None where nothing was ever run, or the run was deleted."""
    try:
        run_id = (var / _CURRENT).read_text().strip()
    except FileNotFoundError:
        return None
    return open_run(var, run_id) if (_folder(var, run_id) / _RUN_JSON).exists() else None


def list_runs(var: Path) -> list[RunFolder]:
    """Every run of ``var``, oldest first."""
    runs = [open_run(var, path.parent.name) for path in (var / "runs").glob(f"*/{_RUN_JSON}")]
    return sorted(runs, key=lambda run: (run.info.started_at, run.run_id))


def _folder(var: Path, run_id: str) -> Path:
    if not _RUN_ID.fullmatch(run_id):
        raise ConfigError(f"run: expected an id such as ed2030b7f622, found {run_id!r}")
    return var / "runs" / run_id


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")

"""A trained version on disk: a folder with the model's files and ``manifest.json``, which says what it was made of.

The manifest holds the SHA-256 of each file, and of itself.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from models.kinds import load_model
from models.model_files import ABOUT, ARRAYS
from models.recommender import Recommender
from streams.durable import write_durably
from streams.errors import ModelError, ModelMissing

__all__ = [
    "MANIFEST",
    "VERSION_ID",
    "Manifest",
    "Measured",
    "Validation",
    "check_files",
    "load_version",
    "new_version_id",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
_FORMAT = 1
VERSION_ID = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_.-]{0,99}")

Measured = dict[str, tuple[float, float, float]]
"""Measures by name, each as value, low and high of its 95 % interval over users."""


class Validation(msgspec.Struct, frozen=True):
    """What a model of the same recipe, fitted before ``start``, was worth on what came from then on until ``as_of``.

    start: event time, seconds since the epoch. yardsticks: by name, on the same slates.
    """

    start: int
    n_users: int
    n_slates: int
    measures: Measured
    yardsticks: dict[str, Measured]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a version was made of, and what it is worth.

    created_at: wall time, ISO 8601 in UTC. as_of: event time; nothing from then on was learnt from. snapshot_id,
    log_id, offsets: of the snapshot. validation: None where the data was too little to hold some out. embedding_width:
    of the vectors in the feature store, None where it has none. seconds: wall time of the training. versions: of Python
    and libraries. commit: of the code, None outside of a checkout. files: SHA-256 by name. effective: event time from
    which on it may serve, where that is later than as_of. request: the retrain event or other wish it was made for.
    """

    version_id: str
    kind: str
    created_at: str
    as_of: int
    seed: int
    hyperparameters: dict[str, Any]
    snapshot_id: str | None = None
    log_id: str | None = None
    offsets: dict[int, int] = {}
    n_ratings: int
    n_users: int
    n_movies: int
    validation: Validation | None = None
    embedding_width: int | None = None
    seconds: float = 0.0
    versions: dict[str, str] = {}
    commit: str | None = None
    device: str = "cpu"
    files: dict[str, str] = {}
    effective: int | msgspec.UnsetType = msgspec.UNSET
    request: str | msgspec.UnsetType = msgspec.UNSET
    format: int = _FORMAT
    sha256: str = ""
    """Over all the rest."""

    @property
    def serves_from(self) -> int:
        """Event time from which on the version may serve."""
        return self.as_of if isinstance(self.effective, msgspec.UnsetType) else self.effective


def new_version_id(kind: str, as_of: int, request: str | None = None) -> str:
    """A name that no other version has; of one ``request``, which wants one version of a kind, always the same.

    >>> new_version_id("vae", 1_537_799_250)[:13]
    'vae-20180924-'
    """
    end = secrets.token_hex(3) if request is None else hashlib.sha256(f"{request} {as_of}".encode()).hexdigest()[:6]
    return f"{kind}-{datetime.fromtimestamp(as_of, UTC):%Y%m%d}-{end}"


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Complete the saved model in ``folder`` with its manifest; returns it with the checksums of the files."""
    if not VERSION_ID.fullmatch(manifest.version_id):
        raise ModelError(f"version: expected letters, digits, _ . and -, found {manifest.version_id!r}")
    files = {name: _file_digest(folder / name) for name in (ABOUT, ARRAYS)}
    manifest = msgspec.structs.replace(manifest, files=files, sha256="")
    manifest = msgspec.structs.replace(manifest, sha256=_digest(manifest))
    write_durably(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises ModelMissing where there is no version, ModelError where its manifest was changed."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ModelMissing(
            f"{folder}: expected a trained version, found none; `streamlens models` lists them"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{path}: expected a version's manifest, found {error}; train it again") from error
    if manifest.format != _FORMAT:
        raise ModelError(f"{path}: expected format {_FORMAT}, found {manifest.format}; train it again")
    if manifest.sha256 != _digest(msgspec.structs.replace(manifest, sha256="")):
        raise ModelError(f"{path}: damaged, it was changed since training; train it again")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises ModelError where a file is not what the manifest says."""
    for name, expected in manifest.files.items():
        if _file_digest(folder / name) != expected:
            raise ModelError(
                f"{folder / name}: damaged, not what {MANIFEST} says; train it again or take another version"
            )


def load_version(folder: Path, manifest: Manifest) -> Recommender:
    """The model, its files checked. Raises ModelError where they are not what the manifest says."""
    check_files(folder, manifest)
    return load_model(folder)


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(manifest)).hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error}); train it again or take another version") from error

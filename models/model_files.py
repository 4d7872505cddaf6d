"""Models on disk: arrays in ``model.safetensors``, everything else in ``model.json``; no pickle, nothing that runs.

``model.json`` holds the SHA-256 of the arrays, and of itself: a file that was cut short or changed is refused.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from streams.durable import write_durably
from streams.errors import ModelError, ModelMissing

__all__ = ["StoredModel", "read_model", "write_model"]

ARRAYS = "model.safetensors"
ABOUT = "model.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class StoredModel:
    """What a folder holds: the kind of model, its constructor's arguments, its arrays, and what else it keeps."""

    name: str
    hyperparameters: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    about: dict[str, Any]


def write_model(
    folder: Path,
    name: str,
    hyperparameters: Mapping[str, Any],
    arrays: Mapping[str, npt.NDArray[Any]],
    about: Mapping[str, Any],
) -> None:
    """Write ``folder``, which appears whole or not at all. Raises ModelError where it exists or cannot be written."""
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        data = safetensors.numpy.save({key: np.ascontiguousarray(values) for key, values in arrays.items()})
        write_durably(draft / ARRAYS, data)
        content = {
            "format": FORMAT,
            "name": name,
            "hyperparameters": dict(hyperparameters),
            "about": dict(about),
            "arrays_sha256": hashlib.sha256(data).hexdigest(),
        }
        content["sha256"] = _digest(content)
        write_durably(draft / ABOUT, msgspec.json.format(msgspec.json.encode(content)))
        if folder.exists():
            raise ModelError(f"{folder}: a model is there already; a version never changes: save to another folder")
        draft.rename(folder)
    except OSError as error:
        raise ModelError(f"{folder}: the model cannot be written ({error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_model(folder: Path) -> StoredModel:
    """Read it back. Raises ModelMissing where there is none, ModelError where it is damaged or of another format."""
    try:
        raw, data = (folder / ABOUT).read_bytes(), (folder / ARRAYS).read_bytes()
    except FileNotFoundError as error:
        raise ModelMissing(f"{error.filename}: no such file; `streamlens train` writes models") from error
    except OSError as error:
        raise ModelError(f"{folder}: the model cannot be read ({error})") from error
    try:
        content = msgspec.json.decode(raw, type=dict[str, Any])
        said = content.pop("sha256")
        if said != _digest(content):
            raise ValueError(f"{ABOUT} was changed")
        if content["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {content['format']}")
        if hashlib.sha256(data).hexdigest() != content["arrays_sha256"]:
            raise ValueError(f"{ARRAYS} is not what {ABOUT} says")
        arrays = safetensors.numpy.load(data)
    except (ValueError, KeyError, msgspec.DecodeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model is damaged ({error}); train it again or take another version") from error
    return StoredModel(content["name"], content["hyperparameters"], arrays, content["about"])


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()

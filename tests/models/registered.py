"""Versions of small models in a registry, as training leaves them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import numpy as np

from models.interactions import Interactions
from models.kinds import make_model
from models.registry import Registry, Version
from models.versions import Manifest, new_version_id, write_manifest

_SECONDS = count()


def add_version(registry: Registry, kind: str = "popularity", *, effective: int | None = None) -> Version:
    """A model of two users and two movies, each a second younger than the one before."""
    model = make_model(kind).fit(Interactions([1, 1, 2], [10, 20, 10], [4.0, 3.5, 5.0], [100, 200, 300]))
    manifest = Manifest(
        version_id=new_version_id(kind, 400),
        kind=kind,
        created_at=(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(_SECONDS))).isoformat(),
        as_of=400,
        seed=0,
        hyperparameters=model.hyperparameters,
        n_ratings=3,
        n_users=2,
        n_movies=2,
        effective=msgspec.UNSET if effective is None else effective,
    )
    with registry.draft() as draft:
        model.save(draft / "version")
        write_manifest(draft / "version", manifest)
        return registry.add(draft / "version")


def scores_of(version: Version) -> list[float]:
    scores: list[float] = version.load().recommend(np.array([2]), 2).scores[0].tolist()
    return scores

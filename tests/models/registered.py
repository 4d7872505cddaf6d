"""Versions of small models in a registry, as training leaves them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.interactions import Interactions
from models.kinds import make_model
from models.registry import Registry, Version
from models.versions import Manifest, new_version_id, write_manifest

CLOCK = (f"2026-11-27T04:00:{second:02}.000+00:00" for second in range(60))


def add_version(registry: Registry, kind: str = "popularity", clock: Iterator[str] = CLOCK) -> Version:
    """A model of two users and two movies."""
    model = make_model(kind).fit(Interactions([1, 1, 2], [10, 20, 10], [4.0, 3.5, 5.0], [100, 200, 300]))
    manifest = Manifest(
        version_id=new_version_id(kind, 400),
        kind=kind,
        created_at=next(clock),
        as_of=400,
        seed=0,
        hyperparameters=model.hyperparameters,
        n_ratings=3,
        n_users=2,
        n_movies=2,
    )
    with registry.draft() as draft:
        model.save(draft / "version")
        write_manifest(draft / "version", manifest)
        return registry.add(draft / "version")


def scores_of(version: Version) -> list[float]:
    scores: list[float] = version.load().recommend(np.array([2]), 2).scores[0].tolist()
    return scores

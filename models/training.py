"""A version from a snapshot: what was known before T is measured, learnt and kept, and nothing else.

A model of the same recipe is first fitted on what lies before the last tenth of the ratings, and judged slate by slate
on that tenth beside popularity (:mod:`models.prequential`, fitted once). The version itself learns from everything
before T; when it stops, a model with epochs decides by a slice of that which it holds out
(:mod:`models.early_stopping`).
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from featurestore.embeddings import EmbeddingStore, embeddings_url
from featurestore.snapshot import take_snapshot
from featurestore.snapshot_reader import Snapshot
from models.bootstrap import Interval
from models.evaluation import Evaluation
from models.interactions import Interactions
from models.kinds import make_model
from models.prequential import Stream, evaluate_prequential
from models.provenance import code_commit, library_versions
from models.recommender import Epoch, Recommender, Vectors
from models.registry import Registry, Version
from models.side_features import SideFeatures
from models.splits import known_by, moment_before_last
from models.torch_device import device_named
from models.versions import Manifest, Measured, Validation, new_version_id, read_manifest, write_manifest
from streams.errors import ModelError, ModelMissing, StoreMissing
from streams.events import DAY_S

__all__ = [
    "YARDSTICKS",
    "OnProgress",
    "Phase",
    "Recipe",
    "describe",
    "fit_version",
    "keep_version",
    "measures_of",
    "ratings_of",
    "train_version",
    "validate",
]

YARDSTICKS = ("popularity", "decayed-popularity")
"""They stand beside the measures of every version."""
_VALIDATION_SHARE = 0.1

Phase = Literal["snapshot", "validation", "training", "saving"]
OnProgress = Callable[[Phase, Epoch | None], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A kind of model, its hyperparameters beside its own defaults, and the seed. Raises ModelError where unknown."""

    kind: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.make()

    def make(self) -> Recommender:
        """A model, untrained."""
        return make_model(self.kind, **{"seed": self.seed, **self.hyperparameters})


def train_version(
    store_url: str,
    registry: Registry,
    recipe: Recipe,
    *,
    as_of: int | None = None,
    user_groups: Mapping[int, str] | None = None,
    on_progress: OnProgress = lambda phase, epoch: None,
) -> Version:
    """Train on a snapshot of the store as of ``as_of`` (its clock by default); embeddings go beside the store.

    The registry has the version whole, or not at all. user_groups: demographic ones, of the data. Raises ModelError
    where nothing was rated before ``as_of``, what every reader of the store raises, and what fitting does.
    """
    started = time.monotonic()
    with _draft(registry, store_url) as draft:
        on_progress("snapshot", None)
        take_snapshot(store_url, draft / "snapshot", as_of)
        snapshot = Snapshot(draft / "snapshot", check=False)  # written a moment ago
        model, manifest = fit_version(recipe, snapshot, user_groups, on_progress)
        on_progress("saving", None)
        manifest = msgspec.structs.replace(manifest, seconds=round(time.monotonic() - started, 3))
        return _keep(store_url, registry, draft / "version", model, manifest)


def keep_version(store_url: str, registry: Registry, model: Recommender, manifest: Manifest) -> Version:
    """Put a fitted model into the registry, and its embeddings beside the store."""
    with _draft(registry, store_url) as draft:
        return _keep(store_url, registry, draft / "version", model, manifest)


def fit_version(
    recipe: Recipe,
    snapshot: Snapshot,
    user_groups: Mapping[int, str] | None = None,
    on_progress: OnProgress = lambda phase, epoch: None,
    *,
    late: bool = True,
) -> tuple[Recommender, Manifest]:
    """A model of everything in the snapshot, and what is to be said of it; nothing is written.

    late: learn from late ratings too, of which a later snapshot as of the same time may hold more.
    """
    if snapshot.as_of > snapshot.manifest.clock:  # it would claim to know what is yet to come
        raise ModelError(
            f"train: expected a time up to the store's clock, {_moment(snapshot.manifest.clock)}, "
            f"found {_moment(snapshot.as_of)}: choose an earlier --as-of, or let `streamlens worker` apply more"
        )
    ratings = ratings_of(snapshot, late=late)
    if not len(ratings):
        raise ModelError(
            f"train: expected ratings before {_moment(snapshot.as_of)}, found none; the store's clock is at "
            f"{_moment(snapshot.manifest.clock)}: choose a later --as-of, or let `streamlens worker` apply more"
        )
    features = SideFeatures.of_catalogue(snapshot.catalogue, user_groups)
    features = known_by(features, np.unique(ratings.movie_id), snapshot.as_of)
    on_progress("validation", None)
    validation = validate(recipe, ratings, features, lambda epoch: on_progress("validation", epoch))
    on_progress("training", None)
    model = recipe.make().fit(ratings, features, on_epoch=lambda epoch: on_progress("training", epoch))
    return model, describe(recipe.kind, model, snapshot, snapshot.as_of, len(ratings), validation)


def describe(
    kind: str, model: Recommender, snapshot: Snapshot, as_of: int, n_ratings: int, validation: Validation | None
) -> Manifest:
    """What is to be said of a model that learnt from what the snapshot has before ``as_of``."""
    device = model.hyperparameters.get("device")
    return Manifest(
        version_id=new_version_id(kind, as_of),
        kind=kind,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        as_of=as_of,
        snapshot_id=snapshot.manifest.snapshot_id,
        log_id=snapshot.manifest.log_id,
        offsets=snapshot.manifest.offsets,
        seed=model.seed,
        hyperparameters=model.hyperparameters,
        n_ratings=n_ratings,
        n_users=len(model.user_ids),
        n_movies=len(model.movie_ids),
        validation=validation,
        versions={"python": platform.python_version(), **library_versions()},
        commit=code_commit(),
        device=device_named(device) if device else "cpu",
    )


def ratings_of(snapshot: Snapshot, *, late: bool = True) -> Interactions:
    """The ratings of a snapshot. late: those too that came late."""
    table = snapshot.interactions(["user_id", "movie_id", "rating", "timestamp", "late"])
    ratings = Interactions.of_table(table)
    return ratings if late else ratings.take(~table["late"].to_numpy())


def validate(
    recipe: Recipe,
    ratings: Interactions,
    features: SideFeatures,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Validation | None:
    """What the recipe is worth on the last tenth of the ratings; None where these leave nothing to learn from."""
    start, last = moment_before_last(ratings.timestamp, _VALIDATION_SHARE), int(ratings.timestamp.max())
    if start <= ratings.timestamp.min():
        return None
    stream = Stream.of(ratings, features, cutoff=start, refit_days=(last - start) // DAY_S + 1)  # one fit
    own = evaluate_prequential(recipe.make, stream, on_epoch=on_epoch)
    beside = {name: evaluate_prequential(Recipe(name).make, stream) for name in YARDSTICKS if name != recipe.kind}
    yardsticks = {name: measures_of(evaluation) for name, evaluation in beside.items()}
    return Validation(start, len(own.user_ids), own.n_lists, measures_of(own), yardsticks)


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def measures_of(evaluation: Evaluation) -> Measured:
    """Those that there was something to measure by."""
    return {name: _plain(interval) for name, interval in evaluation.measures.items() if math.isfinite(interval.value)}


def _plain(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _keep(store_url: str, registry: Registry, folder: Path, model: Recommender, manifest: Manifest) -> Version:
    """folder: within a draft."""
    model.save(folder)
    embeddings = model.embeddings()
    width = embeddings.users.shape[1] if embeddings else None
    manifest = write_manifest(folder, msgspec.structs.replace(manifest, embedding_width=width))
    if embeddings:  # before the version is there: whoever finds it finds these
        _write_embeddings(store_url, manifest, embeddings)
    return registry.add(folder)


def _draft(registry: Registry, store_url: str) -> AbstractContextManager[Path]:
    return registry.draft(partial(_forget_embeddings, store_url))


def _forget_embeddings(store_url: str, draft: Path) -> None:
    """A draft that goes with a manifest in it never became a version; its embeddings may have been written."""
    with suppress(ModelError, ModelMissing, StoreMissing):
        manifest = read_manifest(draft / "version")
        if manifest.embedding_width is not None:
            with EmbeddingStore(embeddings_url(store_url), create=True) as store:
                store.forget(manifest.kind, manifest.version_id)


def _write_embeddings(store_url: str, manifest: Manifest, found: Vectors) -> None:
    where = (manifest.kind, manifest.version_id)
    with EmbeddingStore(embeddings_url(store_url), create=True) as store:
        store.write("user", *where, found.user_ids, found.users, as_of=manifest.as_of)
        store.write("item", *where, found.movie_ids, found.movies, as_of=manifest.as_of)

"""Versions from snapshots: what is learnt, what is not, what is written, and what a crash leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from featurestore.catalogue import Catalogue
from featurestore.embeddings import EmbeddingStore, embeddings_url, verify_embeddings
from models.interactions import Histories, Interactions
from models.model_files import read_model
from models.registry import Registry, Version
from models.side_features import SideFeatures
from models.training import YARDSTICKS, Recipe, train_version, validate
from streams.dataset import Movie
from streams.errors import ModelError, StoreMissing, StoreUnavailable
from streams.events import DAY_S, Rating, Tick
from tests.models.two_tastes import two_tastes

BuildStore = Callable[..., str]

START = 1_000_000_000 - 1_000_000_000 % DAY_S
T = START + 100 * DAY_S
VAE = Recipe("vae", {"width": 4, "epochs": 2, "device": "cpu"}, seed=3)
CATALOGUE = Catalogue(
    [Movie(m, f"Movie {m} (1990)", 1990, ("Even",) if m % 2 == 0 else ("Odd",)) for m in range(60)]
    + [Movie(999, "Yet to come (2030)", 2030, ("Even",))]
)


def world(until: int = T) -> list[Rating | Tick]:
    """Two tastes, 2,400 ratings evenly up to ``until``, a rating of each user each time."""
    random_order = np.random.default_rng(0)
    movies = [random_order.permutation([m for m in range(60) if m % 2 == user % 2])[:24] for user in range(100)]
    step = (until - START) // 2_400
    return [Rating(n % 100, int(movies[n % 100][n // 100]), 4.0, START + n * step) for n in range(2_400)]


@pytest.fixture(scope="module")
def store(build_store: BuildStore) -> str:
    ratings = world()
    return build_store([*ratings, Tick(T), Tick(T)], catalogue=CATALOGUE)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def arrays_of(version: Version) -> dict[str, np.ndarray]:
    return read_model(version.folder).arrays


@pytest.mark.parametrize("recipe", [Recipe("ease"), VAE], ids=lambda recipe: recipe.kind)
def test_the_same_snapshot_and_seed_give_the_same_arrays(store: str, registry: Registry, recipe: Recipe) -> None:
    first, second = (train_version(store, registry, recipe) for _ in range(2))
    assert first.version_id != second.version_id
    assert first.manifest.snapshot_id == second.manifest.snapshot_id
    assert first.manifest.validation == second.manifest.validation
    assert arrays_of(first).keys() == arrays_of(second).keys()
    for name, values in arrays_of(first).items():
        np.testing.assert_array_equal(values, arrays_of(second)[name], err_msg=name)


def test_the_manifest_says_what_it_was_made_of(store: str, registry: Registry) -> None:
    told: list[tuple[str, int | None]] = []
    version = train_version(
        store, registry, VAE, on_progress=lambda phase, epoch: told.append((phase, epoch.number if epoch else None))
    )
    manifest = version.manifest
    assert (manifest.kind, manifest.as_of, manifest.seed, manifest.device) == ("vae", T, 3, "cpu")
    assert manifest.hyperparameters == VAE.make().hyperparameters
    assert (manifest.n_ratings, manifest.n_users, manifest.n_movies) == (2_400, 100, 60)
    assert (manifest.log_id, manifest.offsets) == ("log-1", {0: 1_201, 1: 1_201})
    assert {"python", "numpy", "torch"} <= manifest.versions.keys()
    assert manifest.seconds > 0
    assert version.status == "challenger"
    assert registry.versions() == [version]
    phases = [phase for phase, _ in told]
    assert list(dict.fromkeys(phases)) == ["snapshot", "validation", "training", "saving"]
    assert ("training", 1) in told
    assert {path.name for path in registry.folder.iterdir()} == {version.version_id, "registry.lock"}


def test_it_is_measured_on_the_last_tenth_beside_popularity(store: str, registry: Registry) -> None:
    """Everybody has one of two tastes: who learns that is above popularity."""
    validation = train_version(store, registry, Recipe("ease", {"l2": 10.0})).manifest.validation
    assert validation is not None
    assert T - 11 * DAY_S < validation.start < T - 9 * DAY_S
    assert set(validation.yardsticks) == set(YARDSTICKS)
    assert validation.n_slates >= 100
    own, popular = validation.measures["ctr"], validation.yardsticks["popularity"]["ctr"]
    assert own[1] <= own[0] <= own[2]
    assert own[1] > popular[0]


def test_nothing_from_t_on_is_used(build_store: BuildStore, registry: Registry) -> None:
    """From T on everybody rates the other taste, and one movie that nobody rated before: as of T that is not there."""
    before = world()
    rng = np.random.default_rng(1)
    after: list[Rating | Tick] = [
        Rating(user, int(movie), 5.0, T + n)
        for n, (user, movie) in enumerate((u, m) for u in range(100) for m in [*range(1 - u % 2, 60, 4), 999])
    ]
    rng.shuffle(after)  # type: ignore[arg-type]
    later = build_store([*before, Tick(T), Tick(T), *after, Tick(T + DAY_S), Tick(T + DAY_S)], catalogue=CATALOGUE)
    known = build_store([*before, Tick(T), Tick(T)], catalogue=CATALOGUE)
    of_later, of_known = (train_version(url, registry, VAE, as_of=T) for url in (later, known))
    assert of_later.manifest.n_ratings == 2_400
    assert of_later.manifest.validation == of_known.manifest.validation
    for name, values in arrays_of(of_known).items():
        np.testing.assert_array_equal(values, arrays_of(of_later)[name], err_msg=name)
    with_it = train_version(later, registry, VAE)
    assert with_it.manifest.n_ratings == 2_400 + len(after)
    assert 999 in with_it.load().movie_ids
    assert 999 not in of_later.load().movie_ids


def test_what_is_measured_was_not_learnt() -> None:
    """A pattern that begins with the last tenth is at chance."""
    ratings = two_tastes()
    cut = np.quantile(ratings.timestamp, 0.9)
    late = ratings.timestamp >= cut
    planted = Interactions(
        ratings.user_id, np.where(late, 500 + ratings.user_id % 2, ratings.movie_id), ratings.rating, ratings.timestamp
    )
    found = validate(Recipe("ease"), planted, SideFeatures.none())
    assert found is not None
    assert found.measures["ctr"][0] == 0.0


def test_embeddings_in_the_store_are_the_models(store: str, registry: Registry) -> None:
    version = train_version(store, registry, VAE)
    model = version.load()
    found = model.embeddings()
    assert found is not None
    with EmbeddingStore(embeddings_url(store)) as embeddings:
        users = embeddings.read("user", "vae", found.user_ids, version=version.version_id)
        movies = embeddings.read("item", "vae", found.movie_ids, version=version.version_id)
    assert users.known.all()
    assert movies.known.all()
    assert users.version.as_of == movies.version.as_of == T
    assert users.version.dim == version.manifest.embedding_width == 5
    np.testing.assert_array_equal(users.vectors, found.users)
    np.testing.assert_array_equal(movies.vectors, found.movies)
    ratings = [r for r in world() if isinstance(r, Rating) and r.user_id == 7]
    own = Histories.of([([r.movie_id for r in ratings], [4.0] * 24, [r.timestamp for r in ratings])])
    np.testing.assert_allclose(users.vectors[7] @ movies.vectors.T, model.score(own)[0], rtol=1e-4, atol=1e-4)


def test_whoever_finds_a_version_finds_its_embeddings(
    store: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(EmbeddingStore, "write", full)
    with pytest.raises(StoreUnavailable):
        train_version(store, registry, VAE)
    assert registry.versions() == []


def test_too_few_ratings_to_hold_some_out_are_learnt_from(build_store: BuildStore, registry: Registry) -> None:
    url = build_store([Rating(1, 2, 4.0, START), Tick(T), Tick(T)], catalogue=CATALOGUE)
    version = train_version(url, registry, Recipe("popularity"))
    assert version.manifest.validation is None
    assert version.load().recommend([5], 1).movie_ids.tolist() == [[2]]


def test_what_cannot_be_trained_is_said(store: str, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected ratings before 2001-09-09 00:00:00, found none.*clock is at 2001"):
        train_version(store, registry, Recipe("ease"), as_of=START)
    with pytest.raises(ModelError, match="up to the store's clock, 2001"):
        train_version(store, registry, Recipe("ease"), as_of=T + 1)
    with pytest.raises(ModelError, match="found 'nope'"):
        Recipe("nope")
    with pytest.raises(ModelError, match="dropout"):
        Recipe("vae", {"dropout": 2.0})
    with pytest.raises(StoreMissing, match="not there yet"):
        train_version(f"sqlite:///{tmp_path}/none.db", registry, Recipe("ease"))
    assert registry.versions() == []
    assert list(registry.folder.glob(".draft-*")) == []


TRAIN = """
import sys
from pathlib import Path
from models.registry import Registry
from models.training import Recipe, train_version

print("ready", flush=True)
while True:
    train_version(sys.argv[1], Registry(Path(sys.argv[2])), Recipe("ease"))
    print("trained", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments_a_version_is_whole_or_absent(store: str, registry: Registry) -> None:
    moments, trained = random.Random(0), 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", TRAIN, store, str(registry.folder)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0.0, 0.6))  # the random moment
        child.send_signal(signal.SIGKILL)
        told, _ = child.communicate()
        versions = registry.versions()
        assert len(versions) - trained in (told.count("trained"), told.count("trained") + 1)
        trained = len(versions)
        for version in versions:
            assert {path.name for path in version.folder.iterdir()} == {
                "model.safetensors",
                "model.json",
                "manifest.json",
            }
            version.load()
    train_version(store, registry, Recipe("ease"))
    assert list(registry.folder.glob(".draft-*")) == [], "what killed trainings left was not cleared away"
    assert all(a.manifest.created_at <= b.manifest.created_at for a, b in pairwise(registry.versions()))


AT_EACH_PHASE = """
import os, signal, sys
from pathlib import Path
from models.registry import Registry
from models.training import Recipe, train_version


def die_in(wanted):
    def on_progress(phase, epoch):
        if phase == wanted and (epoch is not None or phase in ("snapshot", "saving")):
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress


recipe = Recipe("vae", {"width": 4, "epochs": 2, "device": "cpu"})
train_version(sys.argv[1], Registry(Path(sys.argv[2])), recipe, on_progress=die_in(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["snapshot", "validation", "training", "saving"])
def test_killed_in_any_phase_there_is_no_version(store: str, registry: Registry, phase: str) -> None:
    command: Sequence[str] = [sys.executable, "-c", AT_EACH_PHASE, store, str(registry.folder), phase]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == -signal.SIGKILL
    assert registry.versions() == []
    with registry.draft():
        assert len(list(registry.folder.glob(".draft-*"))) == 1


AT_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from models.registry import Registry
from models.training import Recipe, train_version

Registry.add = lambda self, draft: os.kill(os.getpid(), signal.SIGKILL)
train_version(sys.argv[1], Registry(Path(sys.argv[2])), Recipe("vae", {"width": 4, "epochs": 1, "device": "cpu"}))
"""


@pytest.mark.slow
def test_killed_before_the_version_is_there_its_embeddings_go_with_the_next_training(
    build_store: BuildStore, registry: Registry
) -> None:
    store = build_store([*world(), Tick(T), Tick(T)], catalogue=CATALOGUE)
    command: Sequence[str] = [sys.executable, "-c", AT_THE_RENAME, store, str(registry.folder)]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == -signal.SIGKILL
    assert registry.versions() == []
    with EmbeddingStore(embeddings_url(store)) as embeddings:
        assert {found.kind for found in embeddings.versions()} == {"user", "item"}, "nothing was proven"
    version = train_version(store, registry, VAE)
    with EmbeddingStore(embeddings_url(store)) as embeddings:
        assert {found.version for found in embeddings.versions()} == {version.version_id}
    assert verify_embeddings(embeddings_url(store)).rows > 0


def test_embeddings_of_a_version_that_could_not_be_added_are_not_kept(
    build_store: BuildStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = build_store([*world(), Tick(T), Tick(T)], catalogue=CATALOGUE)

    def refuse(self: Registry, draft: Path) -> Version:
        raise ModelError("the disk is full")

    monkeypatch.setattr(Registry, "add", refuse)
    with pytest.raises(ModelError, match="the disk is full"):
        train_version(store, registry, VAE)
    with EmbeddingStore(embeddings_url(store)) as embeddings:
        assert embeddings.versions() == []

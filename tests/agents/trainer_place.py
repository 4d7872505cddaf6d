"""Where a trainer works in tests, what is planted there, and how it is stopped."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.training_supervisor import Supervisor
from models.training import Recipe, train_version
from tests.agents.training_world import GATES, TRAINING_END, T, Workplace, world
from tests.featurestore.conftest import BuildStore, build_store

__all__ = ["INITIAL", "QUIET", "build_store", "decisions", "one_step", "place", "plant", "stored"]

INITIAL = "run/trainer/initial"


@pytest.fixture(scope="module")
def stored(build_store: BuildStore) -> Path:
    """The feature store of the world, to be copied."""
    return Path(build_store(world()).removeprefix("sqlite:///"))


@pytest.fixture
def place(stored: Path, tmp_path: Path) -> Workplace:
    with sqlite3.connect(stored) as source, sqlite3.connect(tmp_path / "features.db") as target:
        source.backup(target)
    return Workplace(f"sqlite:///{tmp_path}/features.db", tmp_path)


def plant(place: Workplace, *kinds: str) -> list[str]:
    """Champions one after the other, as of the training's end, effective at the event's time; their versions."""
    found = []
    for kind in kinds:
        version = train_version(place.store_url, place.registry, Recipe(kind), as_of=TRAINING_END)
        place.registry.promote(version, by="test", why="planted", effective=T if found else TRAINING_END)
        found.append(version.version_id)
    return found


def decisions(place: Workplace) -> list[tuple[str, str | None, int | None]]:
    return [(e.action, e.request, e.effective) for e in place.registry.audit()]


QUIET: dict[str, Any] = {
    "training_end": None,
    "gates": msgspec.structs.replace(GATES, shadow_min_slates=10**6),
    "max_attempts": 9,
}
"""Nothing but the event."""


def one_step(supervisor: Supervisor) -> None:
    """The trainer is stopped after one job."""
    step, left = supervisor.step, [1]

    async def limited() -> bool:
        left[0] -= 1
        return left[0] >= 0 and await step()

    supervisor.step = limited  # type: ignore[method-assign]

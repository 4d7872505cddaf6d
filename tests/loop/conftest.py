"""What the small run comes to, worked out once for all tests of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.loop.together import VARIATIONS, Results, together


@pytest.fixture(scope="session")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Undisturbed, as fast as it goes."""
    return together(tmp_path_factory.mktemp("at-once"), "at-once", timeout_s=150)["at-once"]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, at_once: Results) -> Mapping[str, Results]:
    """In each variation; two at a time, since all of them wait most of the time."""
    others = [name for name in VARIATIONS if name != "at-once"]
    folder = tmp_path_factory.mktemp("together")
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda names: together(folder, *names, timeout_s=280), (others[::2], others[1::2]))
        return {"at-once": at_once} | {name: results for lane in found for name, results in lane.items()}

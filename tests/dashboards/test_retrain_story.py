"""A retraining from the button to what serves then, in a browser, with the program's own features agent and trainer.

The data is a small world whose catalogue turns over after its champion was trained: EASE trained anew is better there,
and the trainer finds so. Ratings are published up to a moment, so that each step waits for the one before it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Page

from dashboards.feature_importance import importances, window_of
from dashboards.panels import day
from featurestore.reader import FeatureReader
from models.registry import Registry, Version
from models.side_features import SideFeatures
from streams.events import DAY_S, RETRAIN
from streams.retrain import RetrainRequested
from streams.run import RunFolder
from tests.dashboards.browser import command, dashboard, figure, keep, show, until, worker
from tests.dashboards.runs import finished, make_run, ratings_of, replay, values
from tests.loop.small_world import PARTITIONS, prepare

ASKED_DAY, TRAINED_DAY, SERVES_DAY = 42, 44, 47
"""Of the data: what is asked for on the first is trained once features have closed it, and serves from the last on."""
WHY = "the spring catalogue is missing from every list"


@dataclass
class World:
    """A run whose ratings are published up to some day of its data."""

    var: Path
    run: RunFolder
    published: int = 0

    def day(self, number: int) -> int:
        return int(ratings_of(self.run).timestamp[0]) // DAY_S * DAY_S + number * DAY_S

    def publish_until(self, number: int) -> None:
        """All before that day, and the first rating of it, with which it begins."""
        last = int(np.searchsorted(ratings_of(self.run).timestamp, self.day(number))) + 1
        finished(replay(self.run, self.published, last))
        self.published = last

    @property
    def registry(self) -> Registry:
        return Registry(self.run.path / "models")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("STREAMLENS_LOOP_TRAIN_DELAY_DAYS", str(SERVES_DAY - ASKED_DAY))
    prepare(tmp_path)
    run = make_run(
        tmp_path / "var", str(tmp_path / "data"), start="2010-01-01", week=5, partitions=PARTITIONS
    )  # the champion learns before day 28, and from day 34 on everybody rates other movies
    return World(tmp_path / "var", run)


Program = subprocess.Popen[bytes]


@pytest.fixture
def started(world: World, tmp_path: Path) -> Iterator[tuple[str, Program]]:
    """The pages' address, and a trainer; the features agent is at work."""
    world.publish_until(ASKED_DAY)
    with (
        worker(world.var),
        worker(world.var, "trainer") as trainer,
        dashboard(world.var, tmp_path / "pages.log") as address,
    ):
        yield address, trainer


def importance_of(world: World, version: Version) -> tuple[int, float]:
    """Users and NDCG@10, as the log and the registry have them."""
    validation = version.manifest.validation
    assert validation is not None
    with FeatureReader(world.run.store_url) as reader:
        histories = [reader.history(user) for user in reader.sample_users(1_000, before=validation.start)]
        features = SideFeatures.of_catalogue(reader.catalogue)
    window = window_of(histories, validation.start, version.manifest.as_of)
    return len(window), importances(version.load(), window, features)[0]


def test_a_retraining_is_asked_for_decided_by_the_trainer_and_serves_when_it_is_to(
    page: Page, started: tuple[str, Program], world: World
) -> None:
    address, trainer = started
    show(page, address, "engineering")
    until(lambda: figure(page, "champion") == "ease", "the first champion")
    trainer.kill()
    before = world.registry.champion()
    assert before is not None

    send, why = page.get_by_role("button", name="Ask for retraining"), page.get_by_label(re.compile("Justification"))
    send.click()
    page.get_by_text("expected a reason of 10 letters").wait_for(timeout=20_000)
    assert finished(values(world.run, RETRAIN)) == []
    why.fill(WHY)
    why.blur()
    send.click()
    until(lambda: len(finished(values(world.run, RETRAIN))) == 1, "the event")
    event = msgspec.json.decode(finished(values(world.run, RETRAIN))[0], type=RetrainRequested)
    assert (event.subject, event.data.justification, event.data.severity) == ("ease", WHY, "schedule")
    assert event.time.timestamp() == world.day(ASKED_DAY)
    row = page.locator(f'[data-request="{event.id}"]')
    until(lambda: row.get_attribute("data-outcome") == "open", "the request on the page")
    page.get_by_text("No trainer is at work").wait_for(timeout=20_000)

    with worker(world.var, "trainer"):
        page.get_by_text("No trainer is at work").wait_for(state="detached", timeout=20_000)
        world.publish_until(TRAINED_DAY)
        until(lambda: row.get_attribute("data-outcome") == "promoted", "the promotion")
    new = world.registry.champion()
    assert new is not None
    assert new.version_id != before.version_id
    until(lambda: figure(page, "to_come") == day(world.day(SERVES_DAY)), "when it is to serve")
    assert page.get_by_text(f"serves from {day(world.day(SERVES_DAY))}").count() == 1
    tile = page.locator(".sl-tile", has=page.locator('[data-figure="champion"]'))
    assert before.version_id in tile.inner_text(), "until then the other one serves"
    keep(page, "engineering-to-come-1280-light", 1280)

    world.publish_until(SERVES_DAY + 1)
    until(lambda: new.version_id in tile.inner_text(), "the new champion")
    assert figure(page, "to_come") == "-"

    first, second = json.loads(command(world.var, "models", "audit", "--json"))
    assert (first["version_id"], second["version_id"]) == (before.version_id, new.version_id)
    assert (second["action"], second["request"]) == ("promoted", event.id)
    assert second["effective"] == world.day(SERVES_DAY)
    assert WHY in second["why"]
    assert WHY not in first["why"]
    until(lambda: page.locator('[class*="st-key-panel_audit"]').get_by_text(WHY).count() == 1, "the reason on the page")

    page.get_by_role("button", name="Measure now").click()
    n_users, ndcg = importance_of(world, new)
    until(lambda: page.locator('[data-figure="importance_users"]').count() == 1, "the importance of its inputs")
    assert (figure(page, "importance_users"), figure(page, "importance_ndcg")) == (str(n_users), f"{ndcg:.3f}")
    assert n_users > 5
    page.locator('[class*="st-key-panel_importance"] .marks').first.wait_for(timeout=20_000)
    keep(page, "engineering-promoted-1280-light", 1280)

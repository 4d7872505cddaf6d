"""What the pages say where there is nothing to show, or something is away; and that they go on by themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Browser, Page

from featurestore.sqlite import database_path
from models.registry import Registry
from streams.events import DAY_S
from streams.run import RunFolder
from tests.dashboards.browser import WIDE, dashboard, faults, keep, show
from tests.dashboards.runs import add_version, finished, make_run, replay, work_until

N = 600


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("states") / "var")


@pytest.fixture(scope="module")
def address(run: RunFolder, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    with dashboard(run.var, tmp_path_factory.mktemp("states-log") / "log") as found:
        yield found


def says(page: Page, text: str) -> None:
    page.get_by_text(text).first.wait_for(timeout=30_000)


def kept_and_sound(page: Page, name: str) -> None:
    keep(page, name, WIDE[0])
    assert faults(page) == []


def test_what_is_missing_is_told_until_it_comes(page: Page, address: str, run: RunFolder) -> None:
    """A run without a log, then without features, then without a champion: one page, which is never loaded again."""
    show(page, address, "recommendations")
    page.locator("[data-standing=bad]").wait_for(timeout=20_000)
    says(page, "bus away")
    says(page, "No feature store yet")
    kept_and_sound(page, "state-bus-away")
    finished(replay(run, 0, N))
    says(page, "no features yet")
    kept_and_sound(page, "state-no-features")
    finished(work_until(run, N))
    says(page, "No champion yet")
    kept_and_sound(page, "state-no-champion")
    assert run.info.split is not None
    version = add_version(run, "popularity", as_of=run.info.split.cutoff - DAY_S)
    Registry(run.path / "models").promote(version, by="test", why="the first")
    page.locator(".sl-shelf .sl-movie").first.wait_for(timeout=30_000)
    assert page.get_by_text("No champion yet").count() == 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A writer that lets nobody else in, not even readers."""
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = exclusive")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("CREATE TABLE held (x)")
        yield
        connection.execute("ROLLBACK")


def test_a_store_that_a_writer_has_locked_is_told_and_comes_back(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "var")
    finished(replay(run, 0, N))
    finished(work_until(run, N))
    with ExitStack() as lock:
        lock.enter_context(locked(database_path(run.store_url)))
        with dashboard(run.var, tmp_path / "log") as address:
            show(page, address, "recommendations")
            says(page, "store away")
            says(page, "The store cannot be read for now")
            assert page.locator('[data-testid="stException"]').count() == 0
            kept_and_sound(page, "state-store-locked-recommendations")
            show(page, address)
            says(page, "store: ")
            kept_and_sound(page, "state-store-locked")
            lock.close()
            page.locator('[data-panel="lag"][data-state="fresh"]').wait_for(timeout=30_000)
            assert page.get_by_text("store away").count() == 0


def test_a_store_that_goes_away_while_lists_are_shown_is_told_and_they_come_back(page: Page, tmp_path: Path) -> None:
    run = make_run(tmp_path / "var")
    finished(replay(run, 0, N))
    finished(work_until(run, N))
    assert run.info.split is not None
    version = add_version(run, "popularity", as_of=run.info.split.cutoff - DAY_S)
    Registry(run.path / "models").promote(version, by="test", why="the first")
    with dashboard(run.var, tmp_path / "log") as address:
        show(page, address, "recommendations")
        page.locator('[data-panel="lists"][data-state="fresh"]').wait_for(timeout=30_000)
        files = list(run.path.glob("features.db*"))
        for path in files:
            path.rename(path.with_name(f"away-{path.name}"))
        page.locator('[data-panel="lists"][data-state="stale"]').wait_for(timeout=30_000)
        page.get_by_text("Me, as someone new").click()
        says(page, "No feature store yet")
        assert page.locator('[data-testid="stException"]').count() == 0
        for path in files:
            path.with_name(f"away-{path.name}").rename(path)
        page.locator('[data-panel="lists"]').wait_for(timeout=30_000)
        assert page.get_by_text("No feature store yet").count() == 0

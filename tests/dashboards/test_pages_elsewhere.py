"""The pages of a run that lies on a real broker and a real PostgreSQL: all of them, and what they say without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Browser, Page

from models.registry import Registry
from streams.events import RATINGS
from streams.run import RunFolder
from tests.dashboards.browser import PAGES, dashboard, figure, keep, show, state, until
from tests.dashboards.runs import add_version, finished, make_run, replay, values, work_until
from tests.dashboards.told import N_LETTERS, inject, tell
from tests.stores import PostgresStores

pytestmark = pytest.mark.broker

N = 3_800


@pytest.fixture(scope="module")
def elsewhere(
    tmp_path_factory: pytest.TempPathFactory, streamlens_broker: str, postgres: PostgresStores, browser: Browser
) -> RunFolder:
    """A run of which ratings were published and applied there, with a champion, and all else that agents tell."""
    var = tmp_path_factory.mktemp("elsewhere") / "var"
    info = make_run(var).info
    bus_url = f"kafka://{streamlens_broker}/{info.run_id}"
    run = RunFolder(var, msgspec.structs.replace(info, bus_url=bus_url, store_url=postgres.empty()))
    run.write("run.json", msgspec.json.encode(run.info))

    async def fill() -> None:
        await replay(run, 0, N)
        await work_until(run, N)

    finished(fill())
    assert run.info.split is not None
    version = add_version(run, "ease", as_of=run.info.split.cutoff)
    Registry(run.path / "models").promote(version, by="test", why="the first")
    inject(run)
    tell(run)
    return run


@pytest.fixture(scope="module")
def address(elsewhere: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(elsewhere.var, tmp_path_factory.mktemp("elsewhere-log") / "log") as found:
        yield found


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_what_is_there(page: Page, address: str, name: str) -> None:
    show(page, address, name)
    page.locator("[data-panel], .sl-shelf").first.wait_for(timeout=30_000)
    until(lambda: page.locator('[data-testid="stVegaLiteChart"] svg.marks').count() >= 1, "a chart")
    assert page.locator('[data-testid="stException"]').count() == 0
    keep(page, f"elsewhere-{name}", 1280)


def test_figures_are_those_of_log_and_store(page: Page, address: str) -> None:
    show(page, address)
    until(lambda: figure(page, "applied") == f"{N:,}", "the ratings that were applied")
    until(lambda: state(page, "lag") == "fresh", "a look at broker and store")
    rows = [row.locator("td").all_inner_texts() for row in page.locator('[aria-label^="Lag by"] tbody tr').all()]
    assert [row[3] for row in rows] == ["0"] * 4
    page.get_by_text(f"{N_LETTERS} in all").wait_for(timeout=30_000)


def test_ratings_given_here_reach_the_broker(page: Page, address: str, elsewhere: RunFolder) -> None:
    show(page, address, "recommendations")
    page.get_by_text("Me, as someone new").first.click()
    cells = page.locator('[class*="st-key-rate_"]')
    cells.first.wait_for(timeout=30_000)
    for i in range(5):
        cells.nth(i).locator("button").nth(3).click()
        expected = f"{4 - i} more to go" if i < 4 else "Publish, and see my list"
        page.get_by_role("button", name=expected).wait_for(timeout=30_000)
    page.get_by_role("button", name="Publish, and see my list").click()
    page.locator(".sl-shelf .sl-movie").first.wait_for(timeout=30_000)
    published = [value for value in finished(values(elsewhere, RATINGS)) if b'"source":"pages/' in value]
    assert len(published) == 5


def test_a_database_that_is_away_is_told_and_comes_back(
    page: Page, elsewhere: RunFolder, postgres: PostgresStores, tmp_path: Path
) -> None:
    """Of a run whose database does not exist until later."""
    name = f"late_{elsewhere.run_id}"
    server, _, _ = postgres.server.rpartition("/")
    run = make_run(tmp_path / "var")
    moved = msgspec.structs.replace(run.info, bus_url=elsewhere.bus_url, store_url=f"{server}/{name}?schema=run")
    run.write("run.json", msgspec.json.encode(moved))
    with psycopg.connect(postgres.server, autocommit=True) as admin, dashboard(run.var, tmp_path / "log") as address:
        show(page, address, "recommendations")
        page.get_by_text("store away").wait_for(timeout=30_000)
        page.get_by_text("The store cannot be read for now").wait_for(timeout=30_000)
        keep(page, "state-postgres-away", 1280)
        assert page.locator('[data-testid="stException"]').count() == 0
        admin.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        try:
            page.get_by_text("No feature store yet").wait_for(timeout=30_000)
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[arg-type]

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from dashboards.live import close_live
from models.registry import Registry, Version
from streams.run import RunFolder
from tests.dashboards.browser import WIDE, chromium
from tests.dashboards.runs import add_version, finished, make_run, replay, work_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

N_PUBLISHED = 3_800


@dataclass(frozen=True)
class Prepared:
    """A run of which ``n`` ratings were published and applied, with a champion and a challenger."""

    var: Path
    run: RunFolder
    n: int
    champion: Version
    challenger: Version


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    var = tmp_path_factory.mktemp("pages") / "var"
    run = make_run(var)

    async def fill() -> None:
        await replay(run, 0, N_PUBLISHED)
        await work_until(run, N_PUBLISHED)

    finished(fill())
    assert run.info.split is not None
    cutoff = run.info.split.cutoff
    champion = add_version(run, "ease", as_of=cutoff)
    champion = Registry(run.path / "models").promote(champion, by="test", why="the first")
    challenger = add_version(run, "popularity", as_of=cutoff)
    return Prepared(var, run, N_PUBLISHED, champion, challenger)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a module: Playwright keeps an event loop in the tests' thread, where others want theirs."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install --group dev")
    pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")
    path = chromium()
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> BrowserContext:
    """Of all pages of a module, so that Streamlit's megabytes come out of the browser's cache."""
    return browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Of pages that ran in this process: no thread that watches a run, and no logs as the command line has them.

    Streamlit makes each script it runs the main module, which processes that are spawned later would run again.
    """
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before
    close_live()
    structlog.reset_defaults()
    deadline = time.monotonic() + 60  # of a run that another took the place of, threads end by themselves
    while watching := [thread for thread in threading.enumerate() if thread.name.startswith("pages-")]:
        assert time.monotonic() < deadline, "".join(
            f"{thread.name} goes on:\n{''.join(traceback.format_stack(frame))}"
            for thread in watching
            if thread.ident is not None and (frame := sys._current_frames().get(thread.ident))
        )
        time.sleep(0.01)

"""The live pages as a person has them: in Chromium, beside a replay, a worker and the program that serves them.

Everything runs as it does for a user, as commands of this program on a run of its own; figures are taken from the
browser's page and from the system's account of the serving process.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from streamlens.bench.page_figures import SETTLE_S, open_pages, ready, rerank, visible
from streamlens.bench.pages_beside import address_of, chromium, command, make_champion, started, until, until_live
from streamlens.bench.processes import in_fresh_process
from streams.run import current_run

__all__ = ["run"]

_RATES = (1_000, 50_000)
_LIVE_SHARE = 0.4
"""Of a world's ratings: those before are published at once, as what there is to learn from."""


def run(events: int = 2_000_000, soak_minutes: float = 0.0) -> dict[str, Any]:
    """``p95_s``: from a rating's publishing to its being counted on the page in the browser, at 1,000 events/s;
    ``p95_at_50k_s`` likewise at 50,000 a second. ``ready_s``: from asking for a page to its figures, warm, the median.
    ``rerank_server_ms``, ``rerank_browser_ms``: p95 from a slider's move to another list. ``rss_mib``, ``cpu_cores``:
    of the serving process with five pages open at 1,000 events/s.

    soak_minutes: five pages stay open so long; ``soak_growth_mib`` is how much the process grew in the last two thirds.
    Raises ConfigError without Playwright, Chromium or Streamlit.
    """
    browser_path = chromium()
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as name, ExitStack() as stack:
        var = Path(name) / "var"
        n = events + round(60 * soak_minutes * _RATES[0] / _LIVE_SHARE)
        world = f"synthetic:ratings={n},movies=4000,users={max(1_000, n // 150)},seed=0"
        paced = ("--rate", str(_RATES[0]), "--arrival", "steady", "--week", "1")
        replayer = stack.enter_context(started(var, "replay", "--data", world, *paced, "--quiet"))
        until(lambda: current_run(var) is not None, "a run", replayer)
        found = current_run(var)
        assert found is not None
        stack.enter_context(started(var, "worker", "--quiet"))
        pages = stack.enter_context(started(var, "dashboard", "--no-browser", "--port", "0"))
        address = address_of(var)
        in_fresh_process(make_champion, found, world)
        from playwright.sync_api import sync_playwright

        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        stack.callback(browser.close)
        figures: dict[str, Any] = {"chromium": browser.version}
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector('[data-figure="applied"]', timeout=60_000)
        until_live(var, replayer)
        time.sleep(SETTLE_S)
        figures |= visible(page, found)
        figures |= ready(page, address)
        figures |= rerank(page, address)
        figures |= open_pages(browser, address, pages.pid, soak_minutes)
        page.goto(address)
        page.wait_for_selector('[data-figure="applied"]', timeout=60_000)
        command(var, "control", "speed", str(_RATES[1]))
        time.sleep(SETTLE_S)
        figures |= visible(page, found, "_at_50k", seconds=8.0)
        return figures

"""Take the pictures of the live pages in docs/images/ from a real run: ``make screenshots``.

A demo is started and the pages are taken while it runs; Chromium and Playwright must be there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from streamlens.bench.pages_beside import address_of, chromium, started

IMAGES = Path(__file__).parent / "images"
PAGES = {"production": ""} | {name: name for name in ("recommendations", "engineering", "experiments")}
WIDTH, HEIGHT = 1280, 1000
PATIENCE_S = 180.0


def main() -> None:
    path = chromium()
    with tempfile.TemporaryDirectory(prefix="streamlens-pictures-") as name, sync_playwright() as playwright:
        var = Path(name) / "var"
        with started(var, "demo"), started(var, "dashboard", "--no-browser", "--port", "0"):
            address = address_of(var)
            page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page(
                viewport={"width": WIDTH, "height": HEIGHT}
            )
            page.goto(f"{address}/experiments")  # there is feedback to show from the live part on
            page.wait_for_selector('[data-figure^="ctr_"]', timeout=1_000 * PATIENCE_S)
            page.wait_for_timeout(8_000)
            for name_of_page, part in PAGES.items():
                page.goto(f"{address}/{part}")
                page.wait_for_selector("[data-panel], .sl-shelf", timeout=60_000)
                page.wait_for_timeout(4_000)
                page.screenshot(path=IMAGES / f"{name_of_page}.png")


if __name__ == "__main__":
    main()

"""Take the pictures of the live pages in docs/images/ from a real run: ``make screenshots``.

A demo is started and the pages are taken while it runs; Chromium and Playwright must be there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
PAGES = {"production": ""} | {name: name for name in ("recommendations", "engineering", "experiments")}
WIDTH, HEIGHT = 1280, 1000
PATIENCE_S = 180.0


def chromium() -> str:
    """Where Chromium is."""
    found = os.environ.get("STREAMLENS_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        sys.exit("expected Chromium on PATH, found none: apt install chromium, or set STREAMLENS_TEST_CHROMIUM")
    return found


def command(folder: Path, log: str, *arguments: str) -> subprocess.Popen[bytes]:
    """A command of StreamLens in ``folder``, whose words go to ``log`` there."""
    with (folder / log).open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "streamlens", *arguments],
            cwd=folder,
            stdout=said,
            stderr=said,
            env={**os.environ, "STREAMLENS_VAR": str(folder / "var"), "PYTHONUNBUFFERED": "1"},
        )


def address_of(log: Path) -> str:
    """The pages' address, once they answer."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        address = log.read_text().partition("pages at ")[2].partition(";")[0]
        try:
            if address:
                with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                    return address
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"the pages did not start: {log.read_text()}")


def main() -> None:
    path = chromium()
    with tempfile.TemporaryDirectory(prefix="streamlens-pictures-") as name, sync_playwright() as playwright:
        folder = Path(name)
        demo = command(folder, "demo.log", "demo")
        pages = command(folder, "pages.log", "dashboard", "--no-browser", "--port", "0")
        try:
            address = address_of(folder / "pages.log")
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
        finally:
            for process in (pages, demo):
                process.terminate()
                process.wait(60)


if __name__ == "__main__":
    main()

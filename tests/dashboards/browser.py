"""The pages in a real Chromium: Debian's, or the one that STREAMLENS_TEST_CHROMIUM names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from streamlens.bench.pages_beside import find_chromium
from tests.dashboards.runs import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = [
    "ARTIFACTS",
    "PAGES",
    "PHONE",
    "WIDE",
    "choose",
    "chromium",
    "command",
    "dashboard",
    "faults",
    "figure",
    "keep",
    "rows",
    "show",
    "standing",
    "state",
    "until",
    "worker",
]

ARTIFACTS = Path(os.environ.get("STREAMLENS_TEST_ARTIFACTS", ROOT / "build" / "pages"))
"""Where screenshots are kept, to be looked at."""

PAGES = {
    "production": "",
    "recommendations": "recommendations",
    "engineering": "engineering",
    "experiments": "experiments",
}
WIDE, PHONE = (1280, 900), (390, 844)


def chromium() -> str:
    """The program's path; skips where there is none, and fails where there must be one."""
    found = find_chromium()
    if found and Path(found).exists():
        return found
    how = "expected Chromium; install it (Debian, Ubuntu: apt install chromium) or set STREAMLENS_TEST_CHROMIUM to it"
    if os.environ.get("STREAMLENS_TEST_CHROMIUM_REQUIRED"):
        pytest.fail(how)
    pytest.skip(how)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _environment(var: Path) -> dict[str, str]:
    return {**os.environ, "STREAMLENS_VAR": str(var), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@contextmanager
def dashboard(var: Path, log: Path) -> Iterator[str]:
    """The address of pages that follow the runs in ``var``."""
    command = [sys.executable, "-m", "streamlens", "dashboard", "--no-browser", "--port", "0"]
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=_environment(var), stdout=said, stderr=said, cwd=var.parent)
    try:
        until(lambda: "pages at " in log.read_text() or process.poll() is not None, "the address")
        assert process.poll() is None, log.read_text()
        address = log.read_text().partition("pages at ")[2].partition(";")[0]
        until(lambda: _answers(address), "the pages to answer")
        yield address
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def worker(var: Path, role: str = "features") -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the current run, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlens", "worker", "--role", role, "--quiet"], env=_environment(var), cwd=var.parent
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def until(true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for a condition; fails naming ``what`` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.05)


def command(var: Path, *arguments: str) -> str:
    """What a command of the program on the current run prints."""
    done = subprocess.run(
        [sys.executable, "-m", "streamlens", *arguments],
        env=_environment(var), cwd=var.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def show(page: Page, address: str, name: str = "production") -> Page:
    page.goto(f"{address}/{PAGES[name]}")
    page.wait_for_selector("[data-standing]", timeout=20_000)
    return page


def choose(page: Page, key: str, text: str) -> None:
    """Choose ``text`` in the box of that key."""
    page.locator(f".st-key-{key} input").click()
    page.get_by_role("option", name=text, exact=True).click()


def rows(page: Page, label: str) -> list[list[str]]:
    """Cells of a table's body."""
    table = page.locator(f'[aria-label="{label}"] tbody tr')
    table.first.wait_for(timeout=20_000)
    # At once: row by row, the table may be drawn anew meanwhile.
    cells: list[list[str]] = table.evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.innerText))"
    )
    return cells


def faults(page: Page) -> list[dict[str, Any]]:
    """What axe finds that keeps somebody from using the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context={"exclude": [[".stAppHeader"]]}).response["violations"]
    return [
        {"id": one["id"], "impact": one["impact"], "where": [node["html"][:300] for node in one["nodes"][:3]]}
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def figure(page: Page, name: str) -> str:
    return page.locator(f'[data-figure="{name}"]').first.inner_text(timeout=20_000)


def state(page: Page, panel: str) -> str:
    """Of a panel: fresh, stale or none."""
    return page.locator(f'[data-panel="{panel}"]').get_attribute("data-state", timeout=20_000) or ""


def standing(page: Page) -> str:
    """How the run stands, in a word, as the line on top of the page has it."""
    return page.locator("[data-standing] .sl-pill").first.inner_text(timeout=20_000)


def keep(page: Page, name: str, width: int) -> None:
    """A screenshot of the whole page."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    inner = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(max(int(inner), 600), 6_000)})
    page.wait_for_timeout(300)
    page.screenshot(path=ARTIFACTS / f"{name}.png")

"""The pages in a real Chromium: Debian's, or the one that STREAMLENS_TEST_CHROMIUM names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dashboards.runs import ROOT

__all__ = ["ARTIFACTS", "chromium", "dashboard", "until", "worker"]

ARTIFACTS = Path(os.environ.get("STREAMLENS_TEST_ARTIFACTS", ROOT / "build" / "pages"))
"""Where screenshots are kept, to be looked at."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str:
    """The program's path; skips where there is none, and fails where there must be one."""
    named = os.environ.get("STREAMLENS_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
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
def worker(var: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A features worker of the current run, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlens", "worker", "--quiet"], env=_environment(var), cwd=var.parent
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

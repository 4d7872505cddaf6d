"""What runs beside the browser in ``bench dashboard``: commands of this program on a run of its own, as for a user."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from streams.errors import ConfigError, StreamLensError
from streams.run import RunFolder, current_run

__all__ = ["address_of", "chromium", "command", "find_chromium", "make_champion", "started", "until", "until_live"]

_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """The program's path: that which STREAMLENS_TEST_CHROMIUM names, or the first on PATH."""
    named = os.environ.get("STREAMLENS_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, _CHROMIUM)), None)


def chromium() -> str:
    """The program's path. Raises ConfigError without it, Playwright or Streamlit."""
    from dashboards.launch import is_installed

    if not is_installed():
        raise ConfigError("bench dashboard: expected Streamlit, found none; pip install 'streamlens[pages]'")
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("bench dashboard: expected Playwright, found none; pip install playwright") from None
    path = find_chromium()
    if path is None:
        raise ConfigError("bench dashboard: expected Chromium on PATH, found none; apt install chromium")
    return path


@contextmanager
def started(var: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of this program on the runs in ``var``, ended as Ctrl-C ends it; what it says goes to a file."""
    var.mkdir(parents=True, exist_ok=True)
    with (var.parent / f"{command[0]}.log").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamlens", *command],
            env={**os.environ, "STREAMLENS_VAR": str(var), "PYTHONUNBUFFERED": "1"},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command(var: Path, *arguments: str) -> None:
    """A command that ends by itself. Raises ConfigError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "streamlens", *arguments],
        env={**os.environ, "STREAMLENS_VAR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"bench dashboard: {' '.join(arguments)} failed: {done.stderr.strip()}")


def until(
    true: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None, timeout_s: float = 120.0
) -> None:
    """Wait for it. Raises ConfigError where it does not come, or ``process`` ends."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise ConfigError(f"bench dashboard: waited for {what}, which did not come")
        time.sleep(0.1)


def address_of(var: Path) -> str:
    """Of the pages, once they answer."""
    log = var.parent / "dashboard.log"
    until(lambda: "pages at " in log.read_text(), "the address of the pages")
    address = log.read_text().partition("pages at ")[2].partition(";")[0]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return True
        except OSError:
            return False

    until(answers, "the pages to answer")
    return address


def until_live(var: Path, replayer: subprocess.Popen[bytes]) -> None:
    """The training part, which is not paced, is over and applied."""
    from featurestore.reader import FeatureReader

    run = current_run(var)
    assert run is not None
    assert run.info.split is not None
    n = run.info.split.n_training

    def live() -> bool:
        try:
            with FeatureReader(run.store_url) as reader:
                return sum(row.ratings for row in reader.applied()) > n
        except StreamLensError:
            return False

    until(live, "the live part", replayer)


def make_champion(run: RunFolder, world: str) -> None:
    """EASE with random weights of the world's size serves: what a list costs does not depend on how good it is."""
    from datetime import UTC, datetime

    from models.kinds import load_model
    from models.registry import Registry
    from models.versions import Manifest, new_version_id, write_manifest
    from streamlens.bench.sized_models import sized_model
    from streams.dataset import open_movies

    movie_ids = np.array(sorted(open_movies(world)), np.int64)
    registry = Registry(run.path / "models")
    with registry.draft() as draft:
        folder = draft / "version"
        sized_model("ease", movie_ids, np.ones(len(movie_ids), np.float32), folder)
        model = load_model(folder)
        made = Manifest(
            version_id=new_version_id("ease", 1),
            kind="ease",
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            as_of=1,
            seed=0,
            hyperparameters=model.hyperparameters,
            n_ratings=1,
            n_users=1,
            n_movies=len(movie_ids),
        )
        write_manifest(folder, made)
        registry.promote(registry.add(folder), by="bench", why="to be measured")

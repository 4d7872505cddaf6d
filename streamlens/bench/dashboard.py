"""The live pages as a person has them: in Chromium, beside a replay, a worker and the program that serves them.

Everything runs as it does for a user, as commands of this program on a run of its own; figures are taken from the
browser's page and from the system's account of the serving process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from streamlens.bench.processes import in_fresh_process
from streams.errors import ConfigError, StreamLensError
from streams.run import RunFolder, current_run

__all__ = ["run"]

_RATES = (1_000, 50_000)
_WATCHED_S = 20.0
_SETTLE_S = 4.0
_PAGES = 5
_MOVES = 20
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
_WATCH = """() => {
  const seen = window.seen = [];
  const look = () => {
    const at = document.querySelector('[data-figure="applied"]');
    const value = at ? Number(at.textContent.replaceAll(',', '')) : 0;
    if (value && (!seen.length || seen[seen.length - 1][1] !== value)) seen.push([Date.now(), value]);
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
  look();
}"""
_LISTED = (
    "[...document.querySelectorAll('.sl-shelf')[0].querySelectorAll('.sl-movie')].map(e => e.dataset.movie).join()"
)


def run(events: int = 1_100_000, soak_minutes: float = 0.0) -> dict[str, Any]:
    """``p95_s``: from a rating's publishing to its being counted on the page in the browser, at 1,000 events/s;
    ``p95_at_50k_s`` likewise at 50,000 a second. ``ready_s``: from asking for a page to its figures, warm, the median.
    ``rerank_server_ms``, ``rerank_browser_ms``: p95 from a slider's move to another list. ``rss_mib``, ``cpu_cores``:
    of the serving process with five pages open at 1,000 events/s.

    soak_minutes: five pages stay open so long; ``soak_growth_mib`` is how much the process grew in the last two thirds.
    Raises ConfigError without Playwright, Chromium or Streamlit.
    """
    browser_path = _chromium()
    with tempfile.TemporaryDirectory(prefix="streamlens-bench-") as name, ExitStack() as stack:
        var = Path(name) / "var"
        world = f"synthetic:ratings={events},movies=4000,users={max(1_000, events // 150)},seed=0"
        started = _started(var, "replay", "--data", world, "--rate", str(_RATES[0]), "--week", "1", "--quiet")
        replayer = stack.enter_context(started)
        _wait(lambda: current_run(var) is not None, "a run", replayer)
        found = current_run(var)
        assert found is not None
        stack.enter_context(_started(var, "worker", "--quiet"))
        pages = stack.enter_context(_started(var, "dashboard", "--no-browser", "--port", "0"))
        address = _address(var)
        in_fresh_process(_make_champion, found, world)
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
        _wait_for_live(var, replayer)
        figures |= _visible(page, found)
        figures |= _ready(page, address)
        figures |= _rerank(page, address)
        figures |= _open_pages(browser, address, pages.pid, soak_minutes)
        page.goto(address)
        page.wait_for_selector('[data-figure="applied"]', timeout=60_000)
        _command(var, "control", "speed", str(_RATES[1]))
        time.sleep(_SETTLE_S)
        figures |= _visible(page, found, "_at_50k", seconds=8.0)
        return figures


def _chromium() -> str:
    from dashboards.launch import is_installed

    if not is_installed():
        raise ConfigError("bench dashboard: expected Streamlit, found none; pip install 'streamlens[pages]'")
    try:
        import playwright.sync_api  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("bench dashboard: expected Playwright, found none; pip install playwright") from None
    named = os.environ.get("STREAMLENS_TEST_CHROMIUM")
    path = named or next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if path is None:
        raise ConfigError("bench dashboard: expected Chromium on PATH, found none; apt install chromium")
    return path


@contextmanager
def _started(var: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
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


def _command(var: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamlens", *command],
        env={**os.environ, "STREAMLENS_VAR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"bench dashboard: {' '.join(command)} failed: {done.stderr.strip()}")


def _wait(true: Any, what: str, process: subprocess.Popen[bytes] | None = None, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise ConfigError(f"bench dashboard: waited for {what}, which did not come")
        time.sleep(0.1)


def _address(var: Path) -> str:
    log = var.parent / "dashboard.log"
    _wait(lambda: "pages at " in log.read_text(), "the address of the pages")
    address = log.read_text().partition("pages at ")[2].partition(";")[0]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):
                return True
        except OSError:
            return False

    _wait(answers, "the pages to answer")
    return address


def _wait_for_live(var: Path, replayer: subprocess.Popen[bytes]) -> None:
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

    _wait(live, "the live part", replayer)
    time.sleep(_SETTLE_S)


def _make_champion(run: RunFolder, world: str) -> None:
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


def _visible(page: Any, run: RunFolder, at: str = "", *, seconds: float = _WATCHED_S) -> dict[str, float]:
    """Seconds from publishing to the page's showing a count that includes it, over all ratings counted meanwhile."""
    page.evaluate(_WATCH)
    page.wait_for_timeout(seconds * 1_000)
    seen = np.array(page.evaluate("window.seen"), float)
    if len(seen) < 2:
        raise ConfigError("bench dashboard: expected the count on the page to move, it stood still; give more --events")
    published_ms = in_fresh_process(_published, run)
    counts, at_ms = seen[:, 1].astype(int), seen[:, 0]
    first, last = counts[0], min(counts[-1], len(published_ms))
    ordinals = np.arange(first + 1, last + 1)  # the k-th to be published, which is visible once k are counted
    waited_s = (at_ms[np.searchsorted(counts, ordinals)] - published_ms[ordinals - 1]) / 1_000
    rate = (last - first) / ((at_ms[-1] - at_ms[0]) / 1_000)
    return {
        f"p50{at}_s": round(float(np.quantile(waited_s, 0.5)), 3),
        f"p95{at}_s": round(float(np.quantile(waited_s, 0.95)), 3),
        f"events_per_s{at}": round(float(rate)),
    }


def _published(run: RunFolder) -> np.ndarray:
    """When each rating was published, in that order: ms since the epoch."""
    import asyncio

    from streams.batch import decode_ratings
    from streams.bus import open_bus
    from streams.events import RATINGS

    async def read() -> np.ndarray:
        found = []
        async with open_bus(run.bus_url) as bus:
            ends = {tp: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
            async with await bus.consumer(RATINGS) as consumer:
                while unread := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
                    for batch in await consumer.fetch(partitions=unread):
                        n = len(decode_ratings(batch).user_id)
                        found.append(batch.timestamps_ms[:n])  # of ticks there are few, and a batch has one time
        return np.sort(np.concatenate(found))

    return asyncio.run(read())


def _ready(page: Any, address: str) -> dict[str, float]:
    took = []
    for _ in range(5):
        began = time.monotonic()
        page.goto(address)
        page.wait_for_selector('[data-figure="applied"]', timeout=60_000)
        took.append(time.monotonic() - began)
    return {"ready_s": round(float(np.median(took[1:])), 3)}


def _rerank(page: Any, address: str) -> dict[str, float]:
    page.goto(f"{address}/recommendations")
    page.wait_for_selector(".sl-movie", timeout=60_000)
    diversity, recency = (page.get_by_role("slider", name=name) for name in ("Diversity", "Recency of taste"))
    diversity.wait_for()
    server, browser = [], []
    for i in range(_MOVES):
        recency.press("ArrowRight")  # so that no answer comes from the cache
        page.wait_for_timeout(800)
        before = page.evaluate(_LISTED)
        began = time.monotonic()
        diversity.press("Home" if i % 2 else "End")
        page.wait_for_function(f"before => {_LISTED} !== before", arg=before, timeout=30_000)
        browser.append((time.monotonic() - began) * 1_000)
        server.append(float(page.locator('[data-figure="request_ms"]').inner_text().replace(",", "")))
    return {
        "rerank_server_ms": round(float(np.quantile(server, 0.95)), 1),
        "rerank_browser_ms": round(float(np.quantile(browser, 0.95)), 1),
    }


def _open_pages(browser: Any, address: str, pid: int, soak_minutes: float) -> dict[str, float]:
    opened = []
    for path in ("", "", "recommendations", "engineering", "experiments")[:_PAGES]:
        opened.append(browser.new_page())
        opened[-1].goto(f"{address}/{path}", wait_until="commit")
        opened[-1].wait_for_selector("[data-standing]", timeout=60_000)
    time.sleep(_SETTLE_S)
    cpu, began = _cpu_s(pid), time.monotonic()
    time.sleep(_WATCHED_S / 2)
    figures: dict[str, float] = {
        "cpu_cores": round((_cpu_s(pid) - cpu) / (time.monotonic() - began), 3),
        "rss_mib": round(_rss_mib(pid)),
    }
    if soak_minutes:
        sizes = []
        deadline = time.monotonic() + 60 * soak_minutes
        while time.monotonic() < deadline:
            time.sleep(min(10.0, 6 * soak_minutes))
            sizes.append(_rss_mib(pid))
        figures |= {
            "soak_minutes": soak_minutes,
            "soak_growth_mib": round(max(sizes[-3:]) - max(sizes[: max(1, len(sizes) // 3)]), 1),
        }
    for page in opened:
        page.close()
    return figures


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

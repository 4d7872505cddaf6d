"""What ``bench dashboard`` measures in the browser's pages and of the process that serves them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamlens.bench.processes import in_fresh_process
from streams.errors import ConfigError
from streams.records import Int64s, RecordBatch
from streams.run import RunFolder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["SETTLE_S", "WATCHED_S", "open_pages", "published_ms", "ready", "rerank", "visible"]

WATCHED_S = 20.0
SETTLE_S = 4.0
_PAGES = ("", "", "recommendations", "engineering", "experiments")
_MOVES = 20
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


def visible(page: Page, run: RunFolder, at: str = "", *, seconds: float = WATCHED_S) -> dict[str, float]:
    """Seconds from publishing to the page's showing a count that includes it, over all ratings counted meanwhile."""
    page.evaluate(_WATCH)
    page.wait_for_timeout(seconds * 1_000)
    seen = np.array(page.evaluate("window.seen"), float)
    if len(seen) < 2:
        raise ConfigError("bench dashboard: expected the count on the page to move, it stood still; give more --events")
    published = in_fresh_process(_published, run)
    counts, at_ms = seen[:, 1].astype(int), seen[:, 0]
    first, last = counts[0], min(counts[-1], len(published))
    ordinals = np.arange(first + 1, last + 1)  # the k-th to be published, which is visible once k are counted
    waited_s = (at_ms[np.searchsorted(counts, ordinals)] - published[ordinals - 1]) / 1_000
    rate = (last - first) / ((at_ms[-1] - at_ms[0]) / 1_000)
    return {
        f"p50{at}_s": round(float(np.quantile(waited_s, 0.5)), 3),
        f"p95{at}_s": round(float(np.quantile(waited_s, 0.95)), 3),
        f"events_per_s{at}": round(float(rate)),
    }


def published_ms(batch: RecordBatch) -> Int64s:
    """When each rating of a batch was published, ms since the epoch; not the ticks that lie between them.

    At 1,000 ratings a second there is a heartbeat to sixty of them on a partition: to take the first records of a fetch
    for its ratings would have the last ones published half a second early.
    """
    from streams.batch import decode_ratings

    found: Int64s = batch.timestamps_ms[np.searchsorted(batch.offsets, decode_ratings(batch).offset)]
    return found


def _published(run: RunFolder) -> Int64s:
    """When each rating was published, in that order: ms since the epoch."""
    import asyncio

    from streams.bus import open_bus
    from streams.events import RATINGS

    async def read() -> Int64s:
        found: list[Int64s] = []
        async with open_bus(run.bus_url) as bus:
            ends = {tp: held.end for tp, held in (await bus.offsets(RATINGS)).items()}
            async with await bus.consumer(RATINGS) as consumer:
                while unread := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
                    found += [published_ms(batch) for batch in await consumer.fetch(partitions=unread)]
        return np.sort(np.concatenate(found))

    return asyncio.run(read())


def ready(page: Page, address: str) -> dict[str, float]:
    """From asking for a page to its figures, warm, the median."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        page.goto(address)
        page.wait_for_selector('[data-figure="applied"]', timeout=60_000)
        took.append(time.monotonic() - began)
    return {"ready_s": round(float(np.median(took[1:])), 3)}


def rerank(page: Page, address: str) -> dict[str, float]:
    """p95 from a slider's move to another list, as the server tells it and in the browser."""
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


def open_pages(browser: Browser, address: str, pid: int, soak_minutes: float) -> dict[str, float]:
    """What five open pages cost the process ``pid``, which serves them, and how much it grows meanwhile."""
    opened = []
    for path in _PAGES:
        opened.append(browser.new_page())
        opened[-1].goto(f"{address}/{path}", wait_until="commit")
        opened[-1].wait_for_selector("[data-standing]", timeout=60_000)
    time.sleep(SETTLE_S)
    cpu, began = _cpu_s(pid), time.monotonic()
    time.sleep(WATCHED_S / 2)
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

"""What the pages say while things come, stop, go away and come back, in a browser; and who is told: everybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Browser, Page

from streams.events import ALERTS, FEEDBACK, Alert, Feedback
from tests.dashboards.browser import PHONE, WIDE, dashboard, figure, keep, show, standing, state, until, worker
from tests.dashboards.runs import finished, make_run, publish, replay, work_until


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs: each test begins one of its own, which the pages follow to."""
    var = tmp_path_factory.mktemp("liveness") / "var"
    var.mkdir()
    return var


@pytest.fixture(scope="module")
def address(var: Path, browser: Browser) -> Iterator[str]:
    with dashboard(var, var.with_name("pages.log")) as found:
        yield found


def run_shown(page: Page) -> str:
    return page.locator("[data-standing] b").first.inner_text(timeout=20_000)


def test_the_pages_wait_for_a_run_and_follow_to_the_next(page: Page, address: str, var: Path) -> None:
    (var / "current").unlink(missing_ok=True)
    page.goto(address)
    page.get_by_role("heading", name="No run yet").wait_for(timeout=20_000)
    keep(page, "no-run-1280-light", WIDE[0])
    run = make_run(var)
    until(lambda: standing(page) == "bus away", "a run without a log")
    keep(page, "bus-away-1280-light", WIDE[0])
    finished(replay(run, 0, 50))
    until(lambda: standing(page) == "no features yet", "a log without features")
    finished(work_until(run, 50))
    until(lambda: (run_shown(page), figure(page, "applied")) == (run.run_id, "50"), "the figures of the run")
    following = make_run(var)
    finished(replay(following, 0, 70))
    finished(work_until(following, 70))
    until(lambda: (run_shown(page), figure(page, "applied")) == (following.run_id, "70"), "those of the next")
    until(lambda: standing(page) in ("live", "worker silent"), "the log of the next")


def test_figures_move_turn_stale_and_come_back_for_everybody(browser: Browser, address: str, var: Path) -> None:
    run = make_run(var)
    finished(replay(run, 0, 300))
    contexts = [browser.new_context(viewport={"width": width, "height": 900}) for width in (WIDE[0], PHONE[0])]
    pages = [show(context.new_page(), address) for context in contexts]
    with worker(var) as at_work:
        until(lambda: all(state(one, "overview") == "fresh" for one in pages), "fresh figures")
        finished(replay(run, 300, 700))
        until(lambda: all(figure(one, "applied") == "700" for one in pages), "the new ratings")
        at_work.kill()
        until(lambda: all(state(one, "overview") == "stale" for one in pages), "stale figures")
        until(lambda: all(standing(one) == "worker silent" for one in pages), "the warning")
        assert [figure(one, "applied") for one in pages] == ["700", "700"]
        processes = pages[0].locator('[class*="st-key-panel_processes"]')
        until(lambda: "silent" in processes.inner_text(), "the process that is gone")
        assert state(pages[0], "trending") == "fresh", "the store is there"
    finished(replay(run, 700, 900))
    with worker(var):
        until(lambda: all(state(one, "overview") == "fresh" for one in pages), "figures that come back")
        until(lambda: all(figure(one, "applied") == "900" for one in pages), "what came meanwhile")
        until(lambda: all(standing(one) == "live" for one in pages), "the word for it")
    for context in contexts:
        context.close()


def test_a_bus_that_goes_away_shows_on_every_page_until_it_is_back(browser: Browser, address: str, var: Path) -> None:
    run = make_run(var)
    finished(replay(run, 0, 100))
    publish(run, ALERTS, [Alert("ctr", "critical", "threshold", {}, 86_400)])
    slate = Feedback("s1", "s", 7, "champion", "v", 10, [1], 5, 60, 86_400, source="loop", event_id=1)
    publish(run, FEEDBACK, [slate])
    panels = {"production": "alerts", "engineering": "requests", "experiments": "variants", "recommendations": None}
    context = browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    opened = {name: show(context.new_page(), address, name) for name in panels}

    def states() -> list[str]:
        return [state(opened[name], panel) for name, panel in panels.items() if panel]

    until(lambda: states() == ["fresh", "none", "fresh"], "what was published")
    files = list(run.path.glob("bus.db*"))
    for path in files:
        path.rename(path.with_name(f"away-{path.name}"))
    until(lambda: all(standing(one) == "bus away" for one in opened.values()), "the word on every page")
    until(lambda: states() == ["stale", "stale", "stale"], "stale panels")
    for path in files:
        path.with_name(f"away-{path.name}").rename(path)
    until(lambda: states() == ["fresh", "none", "fresh"], "panels that come back")
    assert all(standing(one) == "no features yet" for one in opened.values())
    context.close()

"""What a person sees and does on the pages, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.registry import Registry
from streams.bus import open_bus
from streams.events import CONTROL, DAY_S, FEEDBACK, MODELS, RATINGS, RETRAIN, Feedback, ModelEvent
from streams.retrain import RetrainRequested
from tests.dashboards.browser import ARTIFACTS, chromium, dashboard, until, worker
from tests.dashboards.conftest import Prepared
from tests.dashboards.runs import finished, make_run, publish, replay

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PAGES = {
    "production": "",
    "recommendations": "recommendations",
    "engineering": "engineering",
    "experiments": "experiments",
}
WIDE, PHONE = (1280, 900), (390, 844)
_NOISE = re.compile(r"_stcore|/(component|media)/|status of 404")
"""Streamlit asks for its own endpoints below the page's path first, and is told 404."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    slates = [
        Feedback(
            f"s{i}", "s", i % 37, "champion" if i % 2 else "challenger", "v", 10, [1] * (i % 3), 5, 60, 86_400 * i,
            source="loop", event_id=i + 1,
        )
        for i in range(1, 241)
    ]  # fmt: skip
    publish(prepared.run, FEEDBACK, slates)
    with dashboard(prepared.var, tmp_path_factory.mktemp("pages-log") / "log") as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    yield context.new_page()
    context.close()


def show(page: Page, address: str, name: str = "production") -> Page:
    page.goto(f"{address}/{PAGES[name]}")
    page.wait_for_selector("[data-standing]", timeout=20_000)
    return page


def figure(page: Page, name: str) -> str:
    return page.locator(f'[data-figure="{name}"]').first.inner_text(timeout=20_000)


def state(page: Page, panel: str) -> str:
    return page.locator(f'[data-panel="{panel}"]').get_attribute("data-state", timeout=20_000) or ""


async def values(prepared: Prepared, topic: str) -> list[bytes]:
    async with open_bus(prepared.run.bus_url) as bus:
        ends = {tp: held.end for tp, held in (await bus.offsets(topic)).items()}
        found: list[bytes] = []
        async with await bus.consumer(topic) as consumer:
            while unread := [tp for tp, end in ends.items() if consumer.position(tp) < end]:
                for batch in await consumer.fetch(partitions=unread):
                    found += batch.values
        return found


def test_figures_are_those_of_the_log(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address)
    until(lambda: figure(page, "applied") == f"{prepared.n:,}", "the ratings that were applied")
    until(lambda: page.locator('[data-panel="lag"]').count() == 1, "the lag panel")
    ratings = sum(b'"type":"tick"' not in value for value in finished(values(prepared, RATINGS)))
    assert ratings == prepared.n
    show(page, address, "experiments")
    slates = [msgspec.json.decode(value, type=Feedback) for value in finished(values(prepared, FEEDBACK))]
    for variant in ("champion", "challenger"):
        mine = [one for one in slates if one.variant == variant]
        rate = 100 * sum(len(one.clicked) for one in mine) / sum(one.n_shown for one in mine)
        until(lambda: figure(page, f"ctr_{variant}") == f"{rate:.2f}", f"the click rate of {variant}")  # noqa: B023


def test_a_slider_makes_another_list_at_once(page: Page, address: str) -> None:
    show(page, address, "recommendations")
    shelf = page.locator(".sl-shelf").first
    shelf.wait_for(timeout=20_000)

    def listed() -> list[str | None]:
        return [one.get_attribute("data-movie") for one in shelf.locator(".sl-movie").all()]

    before = listed()
    assert len(before) == 10
    page.get_by_role("slider", name="Diversity").press("End")
    until(lambda: listed() != before and len(listed()) == 10, "another list")
    assert listed()[0] == before[0]  # the best stays the best


def test_ratings_given_here_are_published_and_make_a_list(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address, "recommendations")
    page.get_by_role("radio", name="Me, as someone new").or_(page.get_by_text("Me, as someone new")).first.click()
    page.locator('[class*="st-key-rate_"]').first.wait_for(timeout=20_000)
    cells = page.locator('[class*="st-key-rate_"]')
    for i in range(5):
        cells.nth(i).locator("button").nth(4 - i % 2).click()
        until(lambda i=i: page.get_by_text(f"{4 - i} more to go").count() == 1 or i == 4, "the count of stars")  # type: ignore[misc]
    page.get_by_role("button", name="Publish, and see my list").click()
    page.locator(".sl-shelf .sl-movie").first.wait_for(timeout=20_000)
    given = [
        fields
        for fields in map(msgspec.json.decode, finished(values(prepared, RATINGS)))
        if str(fields.get("source", "")).startswith("pages/")
    ]
    assert [fields["event_id"] for fields in sorted(given, key=lambda one: one["event_id"])] == [1, 2, 3, 4, 5]
    assert {fields["rating"] for fields in given} == {4.0, 5.0}
    assert len({fields["user_id"] for fields in given}) == 1
    assert all(fields["timestamp"] % DAY_S == 0 or fields["timestamp"] > 0 for fields in given)
    assert figure(page, "known") == "5"


def test_the_replayer_is_asked_to_pause(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address)
    page.get_by_role("button", name="Pause replay").click()
    until(lambda: len(finished(values(prepared, CONTROL))) == 1, "the request")
    (request,) = map(msgspec.json.decode, finished(values(prepared, CONTROL)))
    assert (request["run"], request["action"]) == (prepared.run.run_id, "pause")


def test_a_retraining_is_asked_for_and_followed_to_promotion(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address, "engineering")
    send = page.get_by_role("button", name="Ask for retraining")
    send.click()
    page.get_by_text("expected a reason of 10 letters").wait_for(timeout=20_000)
    assert finished(values(prepared, RETRAIN)) == []
    page.get_by_label(re.compile("Justification")).fill("the autumn films are missing from every list")
    page.get_by_label(re.compile("Justification")).blur()
    send.click()
    until(lambda: len(finished(values(prepared, RETRAIN))) == 1, "the event")
    event = msgspec.json.decode(finished(values(prepared, RETRAIN))[0], type=RetrainRequested)
    assert event.data.justification == "the autumn films are missing from every list"
    assert event.subject == "ease"
    row = page.locator(f'[data-request="{event.id}"]')
    until(lambda: row.get_attribute("data-outcome") == "open", "the request on the page")
    new = prepared.challenger  # what a trainer would do
    Registry(prepared.run.path / "models").promote(new, by="trainer", why="better")
    answers = [
        ModelEvent(kind, "popularity", new.version_id, 86_400, why, request=event.id, source="trainer", event_id=i)
        for i, (kind, why) in enumerate((("trained", "challenger"), ("promoted", "better: CTR +0.0051")), 1)
    ]  # fmt: skip
    publish(prepared.run, MODELS, answers)
    until(lambda: row.get_attribute("data-outcome") == "promoted", "the promotion")
    until(lambda: figure(page, "champion") == "popularity", "the new champion")


def test_figures_move_turn_stale_and_come_back_for_everybody(
    browser: Browser, address: str, prepared: Prepared
) -> None:
    contexts = [browser.new_context(viewport={"width": width, "height": 900}) for width in (WIDE[0], PHONE[0])]
    pages = [show(context.new_page(), address) for context in contexts]
    given = 5  # on the page, by an earlier test
    with worker(prepared.var):
        until(lambda: all(state(one, "overview") == "fresh" for one in pages), "fresh figures")
        n = prepared.n + 400
        finished(replay(prepared.run, prepared.n, n))
        shown = {f"{n:,}", f"{n + given:,}"}
        until(lambda: all(figure(one, "applied") in shown for one in pages), "the new ratings")
    until(lambda: all(state(one, "overview") == "stale" for one in pages), "stale figures")
    until(lambda: pages[0].locator("[data-standing]").get_attribute("data-standing") == "warn", "the warning")
    assert figure(pages[0], "applied") == figure(pages[1], "applied")
    with worker(prepared.var):
        until(lambda: all(state(one, "overview") == "fresh" for one in pages), "figures that come back")
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound_readable_and_quiet(page: Page, address: str, name: str) -> None:
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    for (width, height), scheme in ((WIDE, "light"), (WIDE, "dark"), (PHONE, "light")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        show(page, address, name)
        page.locator("[data-panel], .sl-shelf").first.wait_for(timeout=20_000)
        page.wait_for_timeout(1_000)  # charts are drawn after everything else
        assert page.locator('[data-testid="stException"]').count() == 0
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} at {width} px is wider than the screen"
        if (width, height) == WIDE:
            assert [fault for fault in _faults(page) if fault["impact"] in ("serious", "critical")] == []
        keep(page, f"{name}-{width}-{scheme}", width)
    assert [text for text in errors if not _NOISE.search(text)] == []
    assert [url for url in asked if not url.startswith((address, "ws", "data:", "blob:"))] == []


def _faults(page: Page) -> list[dict[str, Any]]:
    found = Axe().run(page, context={"exclude": [[".stAppHeader"]]}).response["violations"]
    return [
        {"id": one["id"], "impact": one["impact"], "where": [node["html"][:300] for node in one["nodes"][:3]]}
        for one in found
    ]


def keep(page: Page, name: str, width: int) -> None:
    """A screenshot of the whole page."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    inner = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(max(int(inner), 600), 6_000)})
    page.wait_for_timeout(700)
    page.screenshot(path=ARTIFACTS / f"{name}.png")


def test_without_a_run_the_pages_wait_for_one(page: Page, tmp_path: Path) -> None:
    var = tmp_path / "var"
    var.mkdir()
    with dashboard(var, tmp_path / "log") as found:
        page.goto(found)
        page.get_by_role("heading", name="No run yet").wait_for(timeout=20_000)
        keep(page, "no-run-1280-light", WIDE[0])
        run = make_run(var)
        page.locator("[data-standing=bad]").wait_for(timeout=20_000)  # a run without a log
        keep(page, "bus-away-1280-light", WIDE[0])
        finished(replay(run, 0, 50))
        page.locator("[data-standing=idle]").wait_for(timeout=20_000)  # and then without features

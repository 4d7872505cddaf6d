"""What a person sees and does on the pages, in a real Chromium."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from dashboards.store_probe import TREND_DAYS
from streams.bus import open_bus
from streams.events import CONTROL, DAY_S, DEADLETTER, FEEDBACK, RATINGS, Control, DeadLetter, Feedback, Rating
from streams.run import RunFolder
from tests.dashboards.browser import choose, dashboard, figure, rows, show, until
from tests.dashboards.conftest import Prepared
from tests.dashboards.runs import finished, publish, values

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Browser, Page


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


async def _ends(run: RunFolder) -> list[int]:
    """Of each partition of the ratings."""
    async with open_bus(run.bus_url) as bus:
        return [held.end for _, held in sorted((await bus.offsets(RATINGS)).items())]


def test_figures_are_those_of_the_log(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address)
    until(lambda: figure(page, "applied") == f"{prepared.n:,}", "the ratings that were applied")
    until(lambda: page.locator('[data-panel="lag"]').count() == 1, "the lag panel")
    log = [value for value in finished(values(prepared.run, RATINGS)) if b'"type":"tick"' not in value]
    assert len(log) == prepared.n
    lag = rows(page, "Lag by partition, in records")
    ends = finished(_ends(prepared.run))
    assert [row[1:4] for row in lag] == [[f"{end:,}", f"{end:,}", "0"] for end in ends]
    ratings = [msgspec.json.decode(value, type=Rating) for value in log]
    until_day = max(one.timestamp for one in ratings) // DAY_S * DAY_S + DAY_S
    recent = Counter(one.movie_id for one in ratings if one.timestamp >= until_day - TREND_DAYS * DAY_S)
    until(
        lambda: [int(row[2]) for row in rows(page, "Trending movies")] == [n for _, n in recent.most_common(8)],
        "the movies that were rated most",
    )
    show(page, address, "experiments")
    slates = [msgspec.json.decode(value, type=Feedback) for value in finished(values(prepared.run, FEEDBACK))]
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
    page.get_by_role("slider", name="Diversity").press("Home")
    until(lambda: listed() == before, "the list as scored")
    page.get_by_role("slider", name="Recency of taste").press("ArrowRight")
    until(lambda: listed() != before and len(listed()) == 10, "a list by what was rated last")
    choose(page, "genre", "Comedy")
    page.get_by_role("slider", name="Genre weight").press("End")

    def of_the_genre() -> int:
        return sum("Comedy" in text for text in shelf.locator(".sl-genres").all_inner_texts())

    until(lambda: of_the_genre() >= 5, "a list of that genre")
    why = page.locator(".st-key-panel_why")
    why.locator('[data-testid="stVegaLiteChart"]').or_(why.get_by_text("No single reason")).first.wait_for()


def test_the_replayer_is_asked_to_pause_to_resume_and_for_another_speed(
    page: Page, address: str, prepared: Prepared
) -> None:
    show(page, address)
    page.get_by_text("no replayer heard").wait_for(timeout=20_000)

    def asked() -> list[tuple[str, str, float | None]]:
        found = [msgspec.json.decode(value, type=Control) for value in finished(values(prepared.run, CONTROL))]
        return [(one.run, one.action, one.speed) for one in found]

    page.get_by_role("button", name="Pause replay").click()
    page.get_by_text("Published, but nobody is there to take it").first.wait_for(timeout=20_000)
    until(lambda: len(asked()) == 1, "the first request")
    page.get_by_role("button", name="Resume").click()
    until(lambda: len(asked()) == 2, "the second request")
    speed = page.get_by_label("Speed (unit of the run")
    speed.fill("5000")
    speed.press("Enter")
    page.get_by_role("button", name="Set speed").click()
    until(lambda: len(asked()) == 3, "the third request")
    run = prepared.run.run_id
    assert sorted(asked(), key=str) == [(run, "pause", None), (run, "resume", None), (run, "speed", 5000.0)]


def test_all_dead_letters_can_be_paged_through_and_one_is_replayed(
    page: Page, address: str, prepared: Prepared
) -> None:
    payload = '{"source":"other","event_id":%d,"user_id":77,"movie_id":3,"rating":4.5,"timestamp":1200000000}'
    letters = [
        DeadLetter(RATINGS, 0, i, "rating: was refused", payload % i, source="run/features", event_id=i + 1)
        for i in range(23)
    ]
    publish(prepared.run, DEADLETTER, letters)
    show(page, address)
    page.get_by_text("23 in all").wait_for(timeout=30_000)
    label = "Dead letters, newest first"
    assert [row[1] for row in rows(page, label)] == [f"ratings/0/{i}" for i in range(22, 12, -1)]
    page.get_by_label("Page of 3").fill("3")
    page.get_by_label("Page of 3").press("Enter")
    until(lambda: [row[1] for row in rows(page, label)] == [f"ratings/0/{i}" for i in (2, 1, 0)], "the last page")
    choose(page, "letter", "ratings/0/1")
    page.get_by_text('"event_id":1').first.wait_for(timeout=20_000)
    page.get_by_role("button", name="Replay this record").click()
    said = page.get_by_text("ratings/0/1: published")
    said.wait_for(timeout=20_000)
    age = page.locator('[data-panel="deadletters"] .sl-age')
    before = age.inner_text()
    until(lambda: age.inner_text() != before, "the panel, drawn anew")
    assert said.count() == 1
    replayed = [value for value in finished(values(prepared.run, RATINGS)) if b'"dlq/ratings/0/1"' in value]
    assert len(replayed) == 1

"""What a person sees and does on the pages, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from streams.events import CONTROL, DAY_S, FEEDBACK, RATINGS, Feedback
from tests.dashboards.browser import dashboard, figure, show, until
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


def test_figures_are_those_of_the_log(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address)
    until(lambda: figure(page, "applied") == f"{prepared.n:,}", "the ratings that were applied")
    until(lambda: page.locator('[data-panel="lag"]').count() == 1, "the lag panel")
    ratings = sum(b'"type":"tick"' not in value for value in finished(values(prepared.run, RATINGS)))
    assert ratings == prepared.n
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
        for fields in map(msgspec.json.decode, finished(values(prepared.run, RATINGS)))
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
    until(lambda: len(finished(values(prepared.run, CONTROL))) == 1, "the request")
    (request,) = map(msgspec.json.decode, finished(values(prepared.run, CONTROL)))
    assert (request["run"], request["action"]) == (prepared.run.run_id, "pause")

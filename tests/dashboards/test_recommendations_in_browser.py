"""The recommendations page as a person uses it: what came next, latency, and somebody new."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Browser, Page

from featurestore.reader import FeatureReader
from streams.events import RATINGS
from tests.dashboards.browser import choose, dashboard, figure, rows, show, until, worker
from tests.dashboards.conftest import Prepared
from tests.dashboards.runs import finished, values


@pytest.fixture(scope="module")
def address(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    with dashboard(prepared.var, tmp_path_factory.mktemp("recommendations-log") / "log") as found:
        yield found


def test_what_a_user_really_rated_next_is_shown_on_demand(page: Page, address: str, prepared: Prepared) -> None:
    with FeatureReader(prepared.run.store_url) as reader:
        stored = reader.history(1)
        titles = {m: movie.title for m, movie in reader.catalogue.movies.items()}
    show(page, address, "recommendations")
    says = page.get_by_text("What they rated next can be shown of an earlier moment.")
    says.wait_for(timeout=20_000)
    choose(page, "moment", "before the last 5 ratings")
    switch = page.get_by_text(re.compile(r"Show what they really rated next"))
    switch.wait_for(timeout=20_000)
    assert page.locator('[aria-label="Really rated next"]').count() == 0  # not before it is asked for
    n_next = int(re.findall(r"\((\d+) ratings\)", switch.inner_text())[0])
    assert n_next >= 5
    switch.click()
    shown = rows(page, "Really rated next")
    assert [row[1] for row in shown] == [titles[m] for m in stored.movie_id[-n_next:].tolist()][:20]
    assert [float(row[2]) for row in shown] == stored.rating[-n_next:].tolist()[:20]
    assert figure(page, "known") == str(len(set(stored.movie_id[:-n_next].tolist())))
    listed = [one.get_attribute("data-movie") for one in page.locator(".sl-shelf").first.locator(".sl-movie").all()]
    hits = {int(m or 0) for m in listed} & set(stored.movie_id[-n_next:].tolist())
    assert page.locator(".sl-shelf").first.locator(".sl-hit").count() == len(hits)
    page.get_by_text(f"Really rated next: {len(hits)} of the first 10 listed").wait_for(timeout=20_000)


def test_latency_is_told_of_each_variant_that_answered(page: Page, address: str, prepared: Prepared) -> None:
    show(page, address, "recommendations")
    page.locator(".sl-shelf").first.wait_for(timeout=20_000)
    choose(page, "variant", prepared.challenger.version_id)
    until(lambda: len(rows(page, "Latency by variant")) == 2, "a row of each variant")
    by_variant = {row[0]: row for row in rows(page, "Latency by variant")}
    assert by_variant["champion"][1] == prepared.champion.version_id
    assert by_variant[prepared.challenger.version_id][1] == prepared.challenger.version_id
    for row in by_variant.values():
        p50, p95, p99 = map(float, row[4:])
        assert 0 <= p50 <= p95 <= p99
        assert int(row[2]) >= 1
    assert float(figure(page, "request_ms")) < 300


def test_somebody_new_is_stored_like_everybody_else(page: Page, address: str, prepared: Prepared) -> None:
    """Five ratings: published at the run's event time under the pages' own source, applied, and a list made of them."""
    with FeatureReader(prepared.run.store_url) as reader:
        clock = reader.clock()
    show(page, address, "recommendations")
    page.get_by_text("Me, as someone new").first.click()
    cells = page.locator('[class*="st-key-rate_"]')
    cells.first.wait_for(timeout=20_000)
    assert page.get_by_role("button", name="5 more to go").is_disabled()
    for i in range(5):
        cells.nth(i).locator("button").nth(4 - i % 2).click()
        expected = f"{4 - i} more to go" if i < 4 else "Publish, and see my list"
        page.get_by_role("button", name=expected).wait_for(timeout=20_000)
    page.get_by_role("button", name="Publish, and see my list").click()
    page.locator(".sl-shelf .sl-movie").first.wait_for(timeout=20_000)
    given = [
        fields
        for fields in map(msgspec.json.decode, finished(values(prepared.run, RATINGS)))
        if str(fields.get("source", "")).startswith("pages/")
    ]
    assert {fields["timestamp"] for fields in given} == {clock}
    assert len({fields["source"] for fields in given}) == 1
    (user_id,) = {fields["user_id"] for fields in given}
    assert figure(page, "known") == "5"
    listed = {one.get_attribute("data-movie") for one in page.locator(".sl-shelf .sl-movie").all()}
    assert listed.isdisjoint({str(fields["movie_id"]) for fields in given})
    with worker(prepared.var), FeatureReader(prepared.run.store_url) as reader:
        until(lambda: len(reader.history(user_id)) == 5, "the ratings in the store")
    assert sorted(reader_movies(prepared, user_id)) == sorted(fields["movie_id"] for fields in given)


def reader_movies(prepared: Prepared, user_id: int) -> list[int]:
    with FeatureReader(prepared.run.store_url) as reader:
        return reader.history(user_id).movie_id.tolist()

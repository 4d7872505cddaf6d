"""How the pages look: sound, legible and quiet on a screen and a phone, in light and dark, with every panel filled.

Each leaves its screenshot in ``build/pages``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="pip install --group dev")
pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from playwright.sync_api import Browser, Page

from tests.dashboards.browser import PAGES, PHONE, WIDE, dashboard, faults, keep, show, until
from tests.dashboards.conftest import Prepared
from tests.dashboards.told import going_on, inject, tell

_OWN_ENDPOINTS = re.compile(r"/[a-z]+/(_stcore|component|media)/")
"""Streamlit asks for its own endpoints below the page's path first, and is told 404."""
_REFUSED = "Failed to load resource"
"""What the console says of each answer that is an error: those are looked at themselves."""
_DRAWN = '[data-testid="stVegaLiteChart"] :is(canvas, svg.marks)'
_CHARTS = {"production": 6, "recommendations": 1, "engineering": 4, "experiments": 2}
"""At least so many are drawn."""


@pytest.fixture(scope="module")
def address(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    inject(prepared.run)
    tell(prepared.run)
    with going_on(prepared.run), dashboard(prepared.var, tmp_path_factory.mktemp("look-log") / "log") as found:
        yield found


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["screen", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound_readable_and_quiet(page: Page, address: str, name: str, size: tuple[int, int]) -> None:
    width, height = size
    errors: list[str] = []
    asked: list[str] = []
    refused: list[str] = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    page.on("response", lambda one: refused.append(f"{one.status} {one.url}") if one.status >= 400 else None)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": width, "height": height})
    show(page, address, name)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        page.set_viewport_size({"width": width, "height": height})
        if scheme == "dark":
            show(page, address, name)
        until(lambda: page.locator(_DRAWN).count() >= _CHARTS[name], "the charts", 20)
        assert page.locator('[data-testid="stException"]').count() == 0
        assert page.locator('[data-state="stale"]').count() == 0
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} at {width} px is wider than the screen"
        assert page.evaluate(_CLIPPED) == []
        assert page.evaluate(_TRAPS) == []
        keep(page, f"{name}-{width}-{scheme}", width)
        assert faults(page) == []
    assert [text for text in errors if not text.startswith(_REFUSED)] == []
    assert [one for one in refused if not (one.startswith("404") and _OWN_ENDPOINTS.search(one))] == []
    assert [url for url in asked if not url.startswith((address, "ws", "data:", "blob:"))] == []


_CLIPPED = """() => [...document.querySelectorAll('.sl-tile div, .sl-head h3, .sl-pill, .sl-age, .sl-row-title')]
    .filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline')
    .map(one => one.innerText)"""
"""Titles and figures of which a part cannot be seen."""
_TRAPS = """() => [...document.querySelectorAll('.block-container *')]
    .filter(one => /auto|scroll/.test(getComputedStyle(one).overflowY) && one.scrollHeight > one.clientHeight + 2
        && one.clientHeight > 0 && !/textarea|pre/i.test(one.tagName))
    .map(one => one.className + ' ' + one.innerText.slice(0, 40))"""
"""Parts that scroll by themselves on the way down: a finger on them does not move the page."""

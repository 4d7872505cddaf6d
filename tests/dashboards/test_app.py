"""What the pages say where there is nothing to show, and refuse: their logic, without a browser."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboards.launch import APP, streamlit_arguments
from dashboards.live import Live, NoRun, current_live
from dashboards.recommender import Recommending, merged
from dashboards.run_target import ENVIRONMENT, Pointer, find_run
from models.rules import Rules
from streamlens.cli.app import run as streamlens
from streams.run import RunFolder
from tests.dashboards.conftest import Prepared
from tests.dashboards.runs import finished, make_run, pointer_to, replay


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of another test's run is kept, and none of this machine's is found."""
    st.cache_resource.clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT, pointer_to(tmp_path / "var"))


def html(app: AppTest) -> str:
    return " ".join(str(element.proto.body) for element in app.get("html"))


def shown(app: AppTest, true: Callable[[AppTest], bool]) -> AppTest:
    """The app once it shows what it read in the background."""
    deadline = time.monotonic() + 20
    while not true(app.run(timeout=20)):
        assert time.monotonic() < deadline, html(app)
        time.sleep(0.1)
    return app


def page(name: str) -> AppTest:
    def script(name: str) -> None:
        from importlib import import_module

        getattr(import_module(f"dashboards.{name}_page"), f"{name}_page")()

    return AppTest.from_function(script, args=(name,))


def stored(prepared: Prepared) -> tuple[str, Path]:
    return prepared.run.store_url, prepared.run.path / "models"


def run_in(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "var")


def test_no_run_yet_is_told_with_what_starts_one() -> None:
    app = AppTest.from_file(str(APP)).run(timeout=20)
    assert not app.exception
    assert "No run yet" in html(app)
    assert "streamlens replay" in html(app)


def test_a_run_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, '{"var":"var","run":"abc123"}')
    app = AppTest.from_file(str(APP)).run(timeout=20)
    assert "no such run" in html(app)


def test_a_bus_that_is_away_is_told(tmp_path: Path) -> None:
    run_in(tmp_path)
    app = shown(AppTest.from_file(str(APP)), lambda app: "nothing is at sqlite" in html(app))
    assert "bus away" in html(app)
    assert not app.exception


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("recommendations", "No feature store yet"),
        ("engineering", "No version yet"),
        ("experiments", "No feedback yet"),
        ("production", "Nothing judged yet"),
    ],
)
def test_a_page_without_its_data_says_what_would_bring_it(name: str, says: str, tmp_path: Path) -> None:
    finished(replay(run_in(tmp_path), 0, 10))
    app = page(name).run(timeout=20)
    assert not app.exception
    assert says in html(app)


def test_a_request_without_a_reason_is_refused(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, pointer_to(prepared.var))
    app = shown(page("engineering"), lambda app: "ease" in html(app))
    app.text_area[0].set_value("why not")
    app.button[0].click().run(timeout=20)
    assert "expected a reason of 10 letters or more" in app.error[0].value


def test_an_unknown_user_gets_what_is_popular(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, pointer_to(prepared.var))
    recommending = Recommending(*stored(prepared))
    assert recommending.variants() == {
        "champion": prepared.champion.version_id,
        prepared.challenger.version_id: prepared.challenger.version_id,
    }
    assert len(recommending.history(987_654_321)) == 0
    listed = recommending.recommend(987_654_321, merged(recommending.history(987_654_321), [], 0), rules=Rules())
    assert listed.answer.cold
    assert recommending.explain(listed, int(listed.answer.movie_ids[0])) is None
    recommending.close()


def test_a_user_of_the_run_gets_shelves(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, pointer_to(prepared.var))
    app = page("recommendations").run(timeout=20)
    assert not app.exception
    assert "Top picks" in html(app)
    app.selectbox[1].select(app.selectbox[1].options[2]).run(timeout=20)
    assert not app.exception
    app.toggle[0].set_value(True).run(timeout=20)
    assert "Really rated next" in html(app)


def test_pages_follow_the_run_that_is_started_last(tmp_path: Path) -> None:
    pointer = Pointer(str(tmp_path / "var"))
    assert find_run(pointer) is None
    run = run_in(tmp_path)
    target = find_run(pointer)
    assert target is not None
    assert (target.run_id, target.bus_url) == (run.run_id, run.bus_url)
    elsewhere = find_run(Pointer(pointer.var, bus="kafka://there:9092", store="postgresql://u@there/db"))
    assert elsewhere is not None
    assert elsewhere.bus_url == f"kafka://there:9092/{run.run_id}"


def test_it_listens_on_loopback_unless_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("streamlit.web.cli.main", lambda arguments, **_: started.append(list(arguments)))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", os.environ.get("OPENBLAS_NUM_THREADS", "1"))
    assert streamlens(["dashboard", "--no-browser", "--port", "0"]) == 0
    assert "--server.address=127.0.0.1" in started[0]
    assert "pages at http://127.0.0.1:" in capsys.readouterr().out
    assert "--server.headless=false" in streamlit_arguments("0.0.0.0", 1, browser=True)
    assert streamlens(["dashboard", "--run", "nothere"]) == 2
    assert "no such run" in capsys.readouterr().err


def test_without_streamlit_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboards.launch.find_spec", lambda name: None)
    assert streamlens(["dashboard"]) == 2
    assert "pip install 'streamlens[pages]'" in capsys.readouterr().err


def test_all_sessions_watch_the_run_that_is_current_with_one_subscriber(tmp_path: Path) -> None:
    assert isinstance(current_live(), NoRun)
    first_run = run_in(tmp_path)
    first = current_live()
    assert isinstance(first, Live)
    assert first.target.run_id == first_run.run_id
    assert current_live() is first
    assert (first.next_id(), first.next_id()) == (1, 2)
    second_run = run_in(tmp_path)
    second = current_live()
    assert isinstance(second, Live)
    assert second.target.run_id == second_run.run_id != first_run.run_id
    assert second.source != first.source
    watching = {"pages-subscriber": 1, "pages-store": 1}
    deadline = time.monotonic() + 20
    while Counter(t.name for t in threading.enumerate() if t.name in watching) != watching:
        assert time.monotonic() < deadline, sorted(t.name for t in threading.enumerate())
        time.sleep(0.02)

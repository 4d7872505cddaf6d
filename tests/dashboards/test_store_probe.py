"""The look at the store: what it finds, what it keeps while the store is away, and that it rests when nobody looks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards import store_probe
from dashboards.recommender import Recommending
from dashboards.store_probe import StoreProbe
from featurestore.reader import FeatureReader
from streams.errors import StoreMissing
from streams.run import RunFolder
from tests.dashboards.runs import finished, make_run, ratings_of, replay, work_until
from tests.dashboards.test_subscriber import until

N = 400


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_probe, "_EVERY_S", 0.02)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "var")


@pytest.fixture
def probe(run: RunFolder) -> Iterator[StoreProbe]:
    made = StoreProbe(run.store_url, run.path)
    yield made
    made.close()


def work(run: RunFolder) -> None:
    async def fill() -> None:
        await replay(run, 0, N)
        await work_until(run, N)

    finished(fill())


def test_it_waits_for_a_store_and_tells_what_is_in_it(run: RunFolder, probe: StoreProbe) -> None:
    probe.start()
    until(lambda: probe.view.state == "missing", "says that there is none")
    work(run)
    until(lambda: sum(row.ratings for row in probe.view.applied) == N, "what was applied")
    view, ratings = probe.view, ratings_of(run)
    assert (view.state, view.ended) == ("there", False)
    assert view.clock == int(ratings.timestamp[N - 1]) // 86_400 * 86_400
    assert time.time() - view.at < 10
    assert set(view.files) >= {"bus", "features"}
    until(lambda: bool(probe.view.popular), "what is popular")


def test_what_was_seen_last_stays_while_the_store_is_away(run: RunFolder, probe: StoreProbe) -> None:
    work(run)
    probe.start()
    until(lambda: probe.view.state == "there", "the store")
    for path in run.path.glob("features.db*"):
        path.rename(path.with_name(f"away-{path.name}"))
    until(lambda: probe.view.state in ("away", "missing"), "says that it is away")
    away = probe.view
    assert away.problem
    assert sum(row.ratings for row in away.applied) == N
    for path in run.path.glob("away-*"):
        path.rename(path.with_name(path.name.removeprefix("away-")))
    until(lambda: probe.view.state == "there" and probe.view.at > away.at, "found again")


def test_lists_are_made_of_a_store_that_was_built_anew(run: RunFolder) -> None:
    work(run)
    user = int(ratings_of(run).user_id[0])
    recommending = Recommending(run.store_url, run.path / "models")
    try:
        before = recommending.history(user)
        assert len(before) > 0
        for path in run.path.glob("features.db*"):
            path.unlink()
        with pytest.raises(StoreMissing):
            recommending.history(user)
        finished(work_until(run, N))
        assert recommending.history(user).movie_id.tolist() == before.movie_id.tolist()
    finally:
        recommending.close()


def test_it_rests_while_nobody_looks(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    work(run)
    looked = threading.Semaphore(0)

    class Counting(StoreProbe):
        def look(self, reader: FeatureReader, *, with_trends: bool = True) -> store_probe.StoreView:
            looked.release()
            return super().look(reader, with_trends=with_trends)

    monkeypatch.setattr(store_probe, "_WATCHED_FOR_S", 0.0)
    probe = Counting(run.store_url, run.path).start()
    try:
        assert not looked.acquire(timeout=0.3)
        monkeypatch.setattr(store_probe, "_WATCHED_FOR_S", 60.0)
        assert looked.acquire(timeout=10)
    finally:
        probe.close()
    assert not probe._thread.is_alive()


def test_trends_compare_a_stretch_with_the_one_before(run: RunFolder, probe: StoreProbe) -> None:
    work(run)
    with FeatureReader(run.store_url) as reader:
        first = probe.look(reader, with_trends=False)
        assert (first.popular, first.popular_before) == ((), ())
        view = probe.look(reader)
        today = view.clock + 86_400
        stretch = store_probe.TREND_DAYS * 86_400
        ratings = ratings_of(run)
        times = ratings.timestamp[:N]
        for popular, end in ((view.popular, today), (view.popular_before, today - stretch)):
            within = (times >= end - stretch) & (times < end)
            counts = Counter(ratings.movie_id[:N][within].tolist())
            assert popular
            assert [item.n_ratings for item in popular] == sorted(counts.values(), reverse=True)[: len(popular)]

"""What people do on the pages, as it reaches the bus."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("streamlit", reason="pip install 'streamlens[pages]'")

from dashboards.live import Live
from dashboards.publishing import ask_replayer, publish_ratings, replay_letter
from dashboards.run_target import Pointer, find_run
from featurestore.reader import FeatureReader
from streams.bus import Bus
from streams.deadletter_replay import Outcome
from streams.deadletters import letters_page
from streams.errors import ConfigError, StoreMissing
from streams.events import CONTROL, DEADLETTER, RATINGS, DeadLetter, Rating
from streams.run import RunFolder
from tests.dashboards.runs import finished, make_run, publish, replay, values, work_until
from tests.dashboards.test_subscriber import until

N = 300


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = make_run(tmp_path / "var")
    finished(replay(made, 0, N))
    return made


@pytest.fixture
def live(run: RunFolder) -> Iterator[Live]:
    target = find_run(Pointer(str(run.var)))
    assert target is not None
    live = Live(target)
    until(lambda: live.subscriber.connection.connected, "the bus")
    yield live
    live.close()


def given_here(run: RunFolder) -> list[Rating]:
    found = [value for value in finished(values(run, RATINGS)) if b'"source":"pages/' in value]
    return [msgspec.json.decode(value, type=Rating) for value in found]


def test_ratings_carry_the_runs_event_time_and_wait_for_it(run: RunFolder, live: Live) -> None:
    with pytest.raises(ConfigError, match="expected the run's event time"):
        publish_ratings(live, 7, [(1, 4.0)])
    finished(work_until(run, N))
    until(lambda: live.event_time > 0, "the run's event time")
    with FeatureReader(run.store_url) as reader:
        clock = reader.clock()
    publish_ratings(live, 7, [(1, 4.0), (2, 5.0)])
    first, second = given_here(run)
    assert (first.timestamp, first.user_id, first.movie_id, first.rating) == (clock, 7, 1, 4.0)
    assert (first.source, second.source) == (live.source, live.source)
    assert second.event_id == (first.event_id or 0) + 1


def test_ratings_of_two_at_once_go_out_in_the_order_of_their_ids(
    run: RunFolder, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever overtook another of its source on a partition would make it a duplicate: nothing may be lost."""
    finished(work_until(run, N))
    until(lambda: live.event_time > 0, "the run's event time")
    submit, second_is_out, calls = live.subscriber.submit, threading.Event(), count()

    def first_is_slow(work: Callable[[Bus], Awaitable[Any]]) -> Any:
        if next(calls) == 0:
            second_is_out.wait(0.5)  # for as long as the other one may overtake
            return submit(work)
        done = submit(work)
        second_is_out.set()
        return done

    monkeypatch.setattr(live.subscriber, "submit", first_is_slow)
    people = [threading.Thread(target=publish_ratings, args=(live, 1_000_000, [(m, 4.0)])) for m in range(2)]
    for one in people:
        one.start()
    for one in people:
        one.join(30)
    assert [rating.event_id for rating in given_here(run)] == [1, 2]
    finished(work_until(run, N + 2))
    with FeatureReader(run.store_url) as reader:
        assert len(reader.history(1_000_000)) == 2


def test_ratings_are_numbered_while_a_locked_store_is_being_opened(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, unlocked = threading.Event(), threading.Event()

    def locked(*_: object, **__: object) -> None:
        opening.set()
        assert unlocked.wait(20)
        raise StoreMissing("given up")

    monkeypatch.setattr("dashboards.live.Recommending", locked)
    with ThreadPoolExecutor(2) as threads:
        opened = threads.submit(live.recommending)
        assert opening.wait(20)
        try:
            assert threads.submit(live.next_id).result(20) > 0
        finally:
            unlocked.set()
        assert isinstance(opened.exception(20), StoreMissing)


def test_one_dead_letter_is_replayed_and_no_other(run: RunFolder, live: Live) -> None:
    """Also where another topic has a letter of the same place and reason."""
    letter = '{"source":"other","event_id":1,"user_id":77,"movie_id":3,"rating":4.5,"timestamp":1200000000}'
    places = ((CONTROL, 0, 5), (RATINGS, 0, 5), (RATINGS, 0, 6))
    letters = [DeadLetter(*place, "refused", letter, source="run", event_id=i) for i, place in enumerate(places, 1)]
    publish(run, DEADLETTER, letters)
    page = live.subscriber.submit(lambda bus: letters_page(bus, 0, 10))
    done = replay_letter(live, page.letters[1])
    assert (done.outcome, done.placed.origin) == (Outcome.PUBLISHED, "ratings/0/5")
    again = [value for value in finished(values(run, RATINGS)) if b'"dlq/' in value]
    assert [b'"dlq/ratings/0/5"' in value for value in again] == [True]
    assert finished(values(run, CONTROL)) == []


def test_the_replayer_is_asked_for_its_own_run_only(run: RunFolder, live: Live) -> None:
    ask_replayer(live, "speed", 86_400)
    (request,) = map(msgspec.json.decode, finished(values(run, CONTROL)))
    assert (request["run"], request["action"], request["speed"]) == (run.run_id, "speed", 86_400)
    with pytest.raises(ConfigError, match="speed: expected a number above 0"):
        ask_replayer(live, "speed", -1.0)

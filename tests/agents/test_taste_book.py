"""Whether what a user rates today is still of the genres that the user rated before."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from agents.detectors import Detector
from agents.monitor import Monitor
from agents.monitor_columns import RatingColumns, unpack
from agents.taste_book import TasteBook, TasteBookState, turned
from agents.thresholds import default_thresholds
from featurestore.catalogue import EMPTY_CATALOGUE, Catalogue
from streams.dataset import Movie
from streams.errors import StateOutdated

CATALOGUE = Catalogue(
    [Movie(m, f"Movie {m}", 2000, ("Action",) if m <= 10 else ("Romance",)) for m in range(1, 21)]
    + [Movie(30, "Both", 2000, ("Action", "Romance")), Movie(31, "Neither", 2000, ())]
    + [Movie(32, "All", 2000, ("Action", "Romance", "War"))]
)


def day(*rated: tuple[int, int]) -> RatingColumns:
    """(user, movie) each."""
    n = len(rated)
    user_id, movie_id = np.array(rated, np.int64).reshape(-1, 2).T
    return RatingColumns(
        timestamp=np.arange(n),
        user_id=user_id,
        source=np.full(n, -1),
        event_id=np.arange(n),
        movie_id=movie_id,
        half_stars=np.full(n, 8),
        predicted=np.full(n, np.nan, np.float32),
    )


ACTION, ROMANCE = range(1, 11), range(11, 21)
EVEN = np.array([0.5, 0.5])


def known_users() -> TasteBook:
    """1 has rated ten action movies, 2 ten romances."""
    book = TasteBook(CATALOGUE)
    book.add(day(*((1, movie) for movie in ACTION), *((2, movie) for movie in ROMANCE)))
    return book


def test_another_genre_speaks_for_a_taste_that_turned_and_the_same_against_it() -> None:
    other, same = known_users().add(day(*((1, movie) for movie in ROMANCE), *((2, movie) for movie in ROMANCE)))
    assert other > 3
    assert math.log(0.5) < same < -0.5


def test_of_whom_nothing_is_known_nothing_is_told() -> None:
    assert np.isnan(known_users().add(day((1, 31), (2, 999), (3, 1)))).all()  # no genre, no movie, no past
    book = known_users()
    book.add(day((7, 31), (8, 999)))  # rated, but no genre known
    assert np.isnan(book.add(day((7, 1), (8, 1)))).all()


def test_the_numbers() -> None:
    """Two romances: somebody unknown draws them from an urn of 10, user 1 from one with ten action movies beside."""
    romance = 10 * (10 + 1) / (20 + 3)  # as everybody, with one more of each of three genres
    fresh = romance / 10 * (romance + 1) / 11
    held = romance / 20 * (romance + 1) / 21
    found = known_users().add(day((1, 11), (1, 12)))
    assert found.tolist() == pytest.approx([math.log(0.5 + 0.5 * fresh / held)])


def test_the_genres_of_one_movie_count_one_together() -> None:
    book = known_users()
    book.add(day((5, 30), (6, 32)))
    counts = unpack(book.state().counts)[2:]  # of 5 and 6, who came last
    assert counts.tolist() == [[0.5, 0.5, 0], pytest.approx([1 / 3] * 3)]


def test_the_longer_past_and_day_the_more_they_tell_up_to_forty() -> None:
    past, new = np.array([1.0, 0]), np.array([0, 1.0])
    by_past = [turned(10 * new[None], n * past[None], EVEN)[0] for n in (0, 1, 5, 20, 40, 400)]
    by_day = [turned(n * new[None], 20 * past[None], EVEN)[0] for n in (0, 1, 5, 20, 40, 400)]
    for told in (by_past, by_day):
        assert told[0] == pytest.approx(0, abs=1e-12)
        assert told[:5] == sorted(set(told[:5]))
        assert told[5] == pytest.approx(told[4])


def test_a_day_is_held_against_the_days_before_alone() -> None:
    today = day(*((1, movie) for movie in ROMANCE), (2, 1))
    with_others = day(*((1, movie) for movie in ROMANCE), (2, 1), *((9, movie) for movie in ROMANCE))
    backwards = today.take(np.arange(len(today))[::-1])
    told = [known_users().add(one)[:2].tolist() for one in (today, with_others, backwards)]
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(("part", "found"), [(0.0, False), (0.01, False), (0.4, True)])
def test_the_detector_fires_where_many_tastes_turn_and_not_where_hardly_any_does(part: float, found: bool) -> None:
    """300 users, 20 of them a day; each picks four in five movies by taste. 60 days, then 20 after the turn."""
    random = np.random.default_rng(7)
    book, detector = TasteBook(CATALOGUE), Detector(default_thresholds().detectors["taste_drift"])
    taste = random.integers(0, 2, 300)
    fired = [0, 0]
    for number in range(80):
        if number == 60:
            taste = np.where(random.uniform(size=300) < part, 1 - taste, taste)
        users = np.repeat(np.sort(random.choice(300, 20, replace=False)), 8)
        genre = np.where(random.uniform(size=160) < 0.8, taste[users], 1 - taste[users])
        told = book.add(day(*zip(users.tolist(), (genre * 10 + random.integers(1, 11, 160)).tolist(), strict=True)))
        fired[number >= 60] += detector.feed(told[np.isfinite(told)])
    assert fired[0] == 0
    assert (fired[1] > 0) == found


def test_goes_on_from_its_state_as_if_there_had_been_no_break() -> None:
    book, rest = known_users(), day((1, 3), (5, 32), (2, 4), (7, 12), (2, 32))
    held = msgspec.json.decode(msgspec.json.encode(book.state()), type=TasteBookState)
    again = TasteBook.of(held, CATALOGUE)
    for _ in range(4):
        np.testing.assert_array_equal(book.add(rest), again.add(rest))


def test_without_genres_nothing_is_told() -> None:
    assert np.isnan(TasteBook(EMPTY_CATALOGUE).add(day((1, 1), (1, 2)))).all()


def test_a_state_over_other_genres_is_refused() -> None:
    held = Monitor(default_thresholds(), 0, CATALOGUE).to_json()
    with pytest.raises(StateOutdated, match="genres, found"):
        Monitor.from_json(held, default_thresholds())

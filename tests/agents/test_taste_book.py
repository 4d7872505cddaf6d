"""How well what a user rates fits the genres that the user rated before."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from agents.monitor import Monitor
from agents.monitor_columns import RatingColumns
from agents.taste_book import TasteBook, TasteBookState
from agents.thresholds import default_thresholds
from featurestore.catalogue import EMPTY_CATALOGUE, Catalogue
from streams.dataset import Movie
from streams.errors import StateOutdated

CATALOGUE = Catalogue(
    [Movie(m, f"Movie {m}", 2000, ("Action",) if m <= 10 else ("Romance",)) for m in range(1, 21)]
    + [Movie(30, "Both", 2000, ("Action", "Romance")), Movie(31, "Neither", 2000, ())]
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


def known_users() -> TasteBook:
    """1 has rated ten action movies, 2 ten romances; and what was usual has been told."""
    book = TasteBook(CATALOGUE)
    book.add(day(*((1, movie) for movie in range(1, 11)), *((2, movie) for movie in range(11, 21))))
    book.add(day((1, 1), (2, 11), (1, 11), (2, 1)))
    return book


def test_a_movie_fits_whom_it_is_like_and_only_those_of_whom_enough_is_known() -> None:
    fit = known_users().add(day((1, 2), (1, 12), (3, 2), (1, 31), (1, 999)))
    assert fit[0] > 0 > fit[1]
    assert np.isnan(fit[2:]).all()


def test_the_numbers() -> None:
    """User 1: 11 of 12 action, half of all are; 10 more are taken to be as usual: 16 of 22."""
    fit = known_users().add(day((1, 2), (1, 12)))
    before = [math.log(15 / 20 * 2), math.log(5 / 20 * 2)] * 2  # of the day before: 10 of 10, and the same ten
    assert fit.tolist() == pytest.approx([math.log(f / 22 * 2) - np.mean(before) for f in (16, 6)])


def test_a_movie_of_both_genres_tells_nothing() -> None:
    assert known_users().add(day((1, 30)))[0] == pytest.approx(-np.mean([math.log(1.5), math.log(0.5)]))


def test_the_first_days_tell_nothing_yet() -> None:
    book = TasteBook(CATALOGUE)
    assert np.isnan(book.add(day(*((1, movie) for movie in range(1, 11))))).all()
    assert np.isnan(book.add(day((1, 2)))).all()
    assert np.isfinite(book.add(day((1, 2)))).all()


def test_goes_on_from_its_state_as_if_there_had_been_no_break() -> None:
    book, rest = known_users(), day((1, 3), (5, 3), (2, 4), (7, 12))
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

"""MovieLens folders: total order, titles, fingerprints, and one clear line for each way a folder can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streams.dataset import Movie, Ratings, open_dataset, open_movies
from streams.errors import DataError
from streams.movielens import MovieLensFolder, find_bundled
from streams.summary import concatenate

HEADER = "userId,movieId,rating,timestamp"
ROWS = ["1,31,2.5,1260759144", "1,1029,3.0,1260759179", "2,10,4.0,835355493"]
MOVIES = 'movieId,title,genres\n31,Dangerous Minds (1995),Drama\n11,"American President, The (1995)",Comedy|Drama\n'


def write_folder(path: Path, rows: list[str] = ROWS, *, header: str = HEADER, movies: str = MOVIES) -> Path:
    path.mkdir(exist_ok=True)
    (path / "ratings.csv").write_text("".join(f"{line}\n" for line in [header, *rows]), encoding="utf-8")
    (path / "movies.csv").write_text(movies, encoding="utf-8")
    return path


def rows_of(ratings: Ratings) -> list[tuple[int, int, float, int]]:
    columns = (ratings.user_id, ratings.movie_id, ratings.rating, ratings.timestamp)
    return list(zip(*(c.tolist() for c in columns), strict=True))


@pytest.fixture(scope="module")
def bundled() -> MovieLensFolder:
    return MovieLensFolder(find_bundled())


def test_bundled_ratings_are_those_of_the_file_in_the_total_order(bundled: MovieLensFolder) -> None:
    table = np.loadtxt(find_bundled() / "ratings.csv", delimiter=",", skiprows=1)
    user, movie, stars, timestamp = table.T
    order = np.lexsort((movie, user, timestamp))
    ratings = concatenate(bundled.chunks(size=7_001))
    assert len(ratings) == bundled.n_ratings == 100_836
    assert np.array_equal(np.stack([ratings.user_id, ratings.movie_id, ratings.timestamp]), table[order].T[[0, 1, 3]])
    assert np.array_equal(ratings.rating, stars[order])
    assert ratings.user_id.dtype == ratings.movie_id.dtype == ratings.timestamp.dtype == np.int64


def test_positions_and_timestamps_are_each_others_inverse(bundled: MovieLensFolder) -> None:
    assert (bundled.first_timestamp, bundled.last_timestamp) == (828_124_615, 1_537_799_250)
    assert bundled.timestamp_at(0) == bundled.first_timestamp
    assert bundled.timestamp_at(bundled.n_ratings - 1) == bundled.last_timestamp
    assert bundled.position_of(bundled.first_timestamp) == 0
    assert bundled.position_of(bundled.last_timestamp + 1) == bundled.n_ratings
    with pytest.raises(IndexError, match="expected 0 to 100835, found -1"):
        bundled.timestamp_at(-1)


def test_bundled_movies_have_titles_years_and_genres(bundled: MovieLensFolder) -> None:
    movies = bundled.movies()
    assert len(movies) == 9_742
    assert movies[1] == Movie(1, "Toy Story (1995)", 1995, ("Adventure", "Animation", "Children", "Comedy", "Fantasy"))
    assert movies[11].title == "American President, The (1995)"
    assert movies[171749].year == 2006  # two years are joined by a dash
    assert movies[40697].year is None  # Babylon 5
    assert movies[156605].genres == ()


def test_movies_are_read_without_the_ratings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    movies = open_dataset(str(folder)).movies()
    (folder / "ratings.csv").unlink()
    assert open_movies(str(folder)) == movies
    with pytest.raises(DataError, match="expected a MovieLens folder"):
        open_movies(str(tmp_path / "nowhere"))


def test_equal_timestamps_are_ordered_by_user_then_movie(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["9,5,1.0,900000000", "2,7,2.0,900000000", "2,3,3.0,900000000", "3,1,5,899999999"])
    ratings = concatenate(MovieLensFolder(folder).chunks())
    assert [row[:2] for row in rows_of(ratings)] == [(3, 1), (2, 3), (2, 7), (9, 5)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_and_a_byte_order_mark_do_not_matter(tmp_path: Path, ending: str) -> None:
    folder = write_folder(tmp_path)
    text = "\ufeff" + ending.join([HEADER, *ROWS]) + ending
    (folder / "ratings.csv").write_bytes(text.encode())
    assert len(concatenate(MovieLensFolder(folder).chunks())) == 3


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    one = MovieLensFolder(write_folder(tmp_path / "one")).fingerprint
    assert MovieLensFolder(write_folder(tmp_path / "two")).fingerprint == one
    assert MovieLensFolder(write_folder(tmp_path / "three", ROWS[:2])).fingerprint != one
    assert MovieLensFolder(write_folder(tmp_path / "four", movies=MOVIES.replace("Drama", "War"))).fingerprint != one


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("3,17", "4 values"),
        ("3,17,4.", "4 values"),
        ("3,17,4.0,12607", "a timestamp from 631152000"),
        ("3,17,4.0,1260759199,extra", "4 values"),
        ("3,17,4.25,1260759199", "a rating from 0.5 to 5.0 in half stars"),
        ("3,17,5.5,1260759199", "a rating from 0.5 to 5.0 in half stars"),
        ("3,17,0.0,1260759199", "a rating from 0.5 to 5.0 in half stars"),
        ("3,17,nan,1260759199", "a rating from 0.5 to 5.0 in half stars"),
        ("-3,17,4.0,1260759199", "a userId from 0"),
        ("3.7,17,4.0,1260759199", "a userId from 0"),
        ("3,17.5,4.0,1260759199", "a movieId from 0"),
        ("3,17,4.0,1260759199.5", "a timestamp from 631152000"),
        ("3e10,17,4.0,1260759199", "a userId from 0"),
        ("3,x17,4.0,1260759199", "a movieId from 0"),
        ("3,17,,1260759199", "a rating from 0.5 to 5.0 in half stars"),
        ("3,17,4.0,", "a timestamp from 631152000"),
        ("3,17,4.0,12607591990", "a timestamp from 631152000"),
        ("\x00\x00\x00\x00", "4 values"),
        ("3,17,4.0,\x001260759199", "a timestamp from 631152000"),
        ('3,17,"4.0,1260759199', "4 values"),
    ],
)
def test_a_bad_row_is_refused_with_file_and_line(tmp_path: Path, row: str, expected: str) -> None:
    folder = write_folder(tmp_path, [*ROWS, row])
    with pytest.raises(DataError) as error:
        MovieLensFolder(folder)
    message = str(error.value)
    assert f"{folder / 'ratings.csv'} line 5: expected {expected}" in message
    assert "found" in message
    assert "\n" not in message


def test_a_bad_row_in_the_middle_is_found_by_its_line(tmp_path: Path) -> None:
    rows = [f"{n},1,3.5,{900_000_000 + n}" for n in range(1, 50_001)]
    rows[30_000] = "30001;1;3.5;900030001"
    with pytest.raises(DataError, match=r"ratings\.csv line 30002: expected 4 values.*found '30001;1;3\.5;900030001'"):
        MovieLensFolder(write_folder(tmp_path, rows))


def test_a_ratings_file_of_bytes_that_are_not_text_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    with (folder / "ratings.csv").open("ab") as file:
        file.write(b"3,17,\xff\xfe,1260759199\n")
    with pytest.raises(DataError, match="line 5: expected a rating"):
        MovieLensFolder(folder)


def test_empty_lines_are_skipped(tmp_path: Path) -> None:
    dataset = MovieLensFolder(write_folder(tmp_path, [*ROWS[:2], "", *ROWS[2:], ""], movies=MOVIES + "\n"))
    assert (dataset.n_ratings, len(dataset.movies())) == (3, 2)


def test_a_header_alone_is_a_truncated_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ratings\.csv line 2: expected ratings.*found the end of the file"):
        MovieLensFolder(write_folder(tmp_path, []))


@pytest.mark.parametrize("header", ["user,item,rating,timestamp", "1,31,2.5,1260759144", ""])
def test_other_columns_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=rf"line 1: expected the columns {HEADER}, found .*MovieLens folder\?"):
        MovieLensFolder(write_folder(tmp_path, header=header))


def test_a_missing_folder_says_where_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected a MovieLens folder, found nothing; .*grouplens"):
        open_dataset(str(tmp_path / "nowhere"))


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(HEADER)
    with pytest.raises(DataError, match="expected a MovieLens folder, found a file"):
        open_dataset(str(tmp_path / "ratings.csv"))


@pytest.mark.parametrize("missing", ["ratings.csv", "movies.csv"])
def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path, missing: str) -> None:
    folder = write_folder(tmp_path)
    (folder / missing).unlink()
    left = "movies.csv" if missing == "ratings.csv" else "ratings.csv"
    with pytest.raises(DataError, match=rf"{missing}: expected this file of .*, found {left}"):
        MovieLensFolder(folder)


@pytest.mark.parametrize("row", ["32,No genres", "x,Title (1990),Drama", '32,"Open quote (1990),Drama'])
def test_a_bad_movie_row_is_refused_with_file_and_line(tmp_path: Path, row: str) -> None:
    dataset = MovieLensFolder(write_folder(tmp_path, movies=MOVIES + row + "\n"))
    with pytest.raises(DataError, match=r"movies\.csv line 4: expected movieId,title,genres"):
        dataset.movies()


def test_the_default_dataset_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    write_folder(tmp_path / "data" / "ml-latest-small")
    monkeypatch.chdir(tmp_path)
    assert open_dataset().n_ratings == 3


def test_the_default_dataset_is_found_in_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_dataset().n_ratings == 100_836


def test_an_installed_package_says_how_to_get_the_default_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    installed = tmp_path / "site-packages" / "streams" / "movielens" / "folder.py"
    monkeypatch.setattr("streams.movielens.folder.__file__", str(installed))
    with pytest.raises(DataError, match=r"ml-latest-small\.zip from https://grouplens.*'synthetic'"):
        open_dataset()

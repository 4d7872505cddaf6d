"""Every MovieLens format, written from one set of ratings: all load to the same columns and the same movies."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from streams.dataset import Movie, Ratings, open_dataset, open_movies
from streams.errors import DataError
from streams.movielens import RELEASES
from streams.summary import concatenate

# Whole stars, since 1M and 100K know no others; unsorted, with equal timestamps.
RATINGS = [
    (3, 50, 4, 881_250_949),
    (1, 242, 3, 881_250_949),
    (1, 50, 5, 881_250_949),
    (2, 267, 1, 789_652_009),
    (2, 1, 2, 1_046_454_590),
    (9, 242, 5, 789_652_010),
]
IN_ORDER = sorted(RATINGS, key=lambda row: (row[3], row[0], row[1]))
MOVIES = {
    movie.movie_id: movie
    for movie in (
        Movie(1, "Toy Story (1995)", 1995, ("Animation", "Children's", "Comedy")),
        Movie(50, "Misérables, Les (1995)", 1995, ("Drama", "Musical")),
        Movie(242, 'Kolya "Kolja" (1996)', 1996, ("Comedy",)),
        Movie(267, "unknown", None, ()),
    )
}
GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


def csv_files(encoding: str = "utf-8") -> dict[str, bytes]:
    ratings = ["userId,movieId,rating,timestamp", *(f"{u},{m},{s}.0,{t}" for u, m, s, t in RATINGS)]
    movies = ["movieId,title,genres"]
    for movie in MOVIES.values():
        title = movie.title.replace('"', '""')
        movies.append(f'{movie.movie_id},"{title}",{"|".join(movie.genres) or "(no genres listed)"}')
    return {"ratings.csv": text(ratings), "movies.csv": text(movies, encoding)}


def dat_files(encoding: str = "utf-8") -> dict[str, bytes]:
    ratings = [f"{u}::{m}::{s}::{t}" for u, m, s, t in RATINGS]
    movies = [f"{m.movie_id}::{m.title}::{'|'.join(m.genres) or '(no genres listed)'}" for m in MOVIES.values()]
    return {"ratings.dat": text(ratings), "movies.dat": text(movies, encoding)}


def files_of_1m() -> dict[str, bytes]:
    return {**dat_files("latin-1"), "users.dat": b"1::F::1::10::48067\n"}


def tab_files(encoding: str = "latin-1") -> dict[str, bytes]:
    ratings = [f"{u}\t{m}\t{s}\t{t}" for u, m, s, t in RATINGS]
    items = []
    for movie in MOVIES.values():
        genres = movie.genres or ("unknown",)
        flags = "|".join("1" if name in genres else "0" for name in GENRES)
        released = "" if movie.year is None else f"01-Jan-{movie.year}"
        items.append(f"{movie.movie_id}|{movie.title}|{released}|||{flags}")
    names = [f"{name}|{n}" for n, name in enumerate(GENRES)]
    return {"u.data": text(ratings), "u.item": text(items, encoding), "u.genre": text([*names, ""])}


def text(lines: list[str], encoding: str = "utf-8") -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(encoding)


Files = Callable[[], dict[str, bytes]]
FORMATS: dict[str, Files] = {"csv": csv_files, "10M": dat_files, "1M": files_of_1m, "100K": tab_files}
every_format = pytest.mark.parametrize("files", FORMATS.values(), ids=FORMATS)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def rows_of(ratings: Ratings) -> list[tuple[int, int, float, int]]:
    columns = (ratings.user_id, ratings.movie_id, ratings.rating, ratings.timestamp)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def ratings_file(files: dict[str, bytes]) -> str:
    return next(iter(files))


def refusal(folder: Path) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(DataError) as error:
        open_dataset(str(folder))
    message = str(error.value)
    assert "\n" not in message
    assert "expected" in message
    assert "found" in message
    return message


@every_format
def test_every_format_gives_the_same_ratings_and_movies(tmp_path: Path, files: Files) -> None:
    dataset = open_dataset(str(write(tmp_path / "some", files())))
    ratings = concatenate(dataset.chunks(size=4))
    assert rows_of(ratings) == IN_ORDER
    assert [c.dtype for c in (ratings.user_id, ratings.movie_id, ratings.rating, ratings.timestamp)] == [
        np.int64,
        np.int64,
        np.float64,
        np.int64,
    ]
    assert dataset.movies() == MOVIES == open_movies(str(tmp_path / "some"))
    assert (dataset.name, dataset.n_ratings) == ("some", 6)


@every_format
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_windows_line_ends_and_a_byte_order_mark_just_work(
    tmp_path: Path, files: Files, bom: bytes, end: bytes
) -> None:
    written = {name: bom + content.replace(b"\n", end) for name, content in files().items()}
    dataset = open_dataset(str(write(tmp_path, written)))
    assert rows_of(concatenate(dataset.chunks())) == IN_ORDER
    assert dataset.movies() == MOVIES


@every_format
def test_the_last_line_needs_no_end_and_empty_lines_are_skipped(tmp_path: Path, files: Files) -> None:
    written = {name: content.replace(b"\n", b"\n\n").rstrip() for name, content in files().items()}
    dataset = open_dataset(str(write(tmp_path, written)))
    assert rows_of(concatenate(dataset.chunks())) == IN_ORDER
    assert dataset.movies() == MOVIES


@every_format
def test_the_fingerprint_follows_each_file_that_is_read(tmp_path: Path, files: Files) -> None:
    written = files()
    dataset = open_dataset(str(write(tmp_path / "one", written)))
    assert open_dataset(str(write(tmp_path / "two", {**written, "README": b"?"}))).fingerprint == dataset.fingerprint
    for name in written.keys() - {"users.dat"}:
        changed = {**written, name: written[name] + b"\n"}
        assert open_dataset(str(write(tmp_path / name, changed))).fingerprint != dataset.fingerprint


def test_half_stars_of_10m_are_kept(tmp_path: Path) -> None:
    files = {**dat_files(), "ratings.dat": b"1::1::0.5::838985046\n1::50::4.5::838983525\n"}
    dataset = open_dataset(str(write(tmp_path, files)))
    assert concatenate(dataset.chunks()).rating.tolist() == [4.5, 0.5]


def test_a_title_of_movies_dat_may_hold_the_separator(tmp_path: Path) -> None:
    files = {**dat_files(), "movies.dat": b"7::Alien::Resurrection (1997)::Horror|Sci-Fi\n"}
    movies = open_movies(str(write(tmp_path, files)))
    assert movies[7] == Movie(7, "Alien::Resurrection (1997)", 1997, ("Horror", "Sci-Fi"))


def test_100k_takes_the_year_from_the_title_and_else_from_the_release(tmp_path: Path) -> None:
    no_genre = "|".join("0" * len(GENRES))
    items = [
        f"1|In the title (1994)|08-Mar-1996|||{no_genre}",
        f"2|On video (1995) (V)|04-Feb-1995|||{no_genre}",
        f"3|Nowhere||||{no_genre}",
        f"4|Not a date|soon|||{no_genre}",
    ]
    movies = open_movies(str(write(tmp_path, {**tab_files(), "u.item": text(items)})))
    assert [movie.year for movie in movies.values()] == [1994, 1995, None, None]
    assert {movie.genres for movie in movies.values()} == {()}


@every_format
def test_a_bad_row_in_the_middle_is_named_with_file_and_line(tmp_path: Path, files: Files) -> None:
    written = files()
    name = ratings_file(written)
    lines = written[name].splitlines(keepends=True)
    header = 1 if name == "ratings.csv" else 0
    lines[3 + header] = lines[3 + header].replace(b"789652009", b"yesterday")
    message = refusal(write(tmp_path, {**written, name: b"".join(lines)}))
    assert f"{tmp_path / name} line {4 + header}: expected a timestamp from 631152000" in message
    assert "yesterday" in message


@every_format
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (0, b"-3", "a userId from 0"),
        (1, b"x17", "a movieId from 0"),
        (1, b"\xe9", "a movieId from 0"),
        (2, b"6", "a rating from 0.5 to 5.0 in half stars"),
        (2, b"0", "a rating from 0.5 to 5.0 in half stars"),
        (2, b"3.2", "a rating from 0.5 to 5.0 in half stars"),
        (3, b"631151999", "a timestamp from 631152000"),
        (3, b"9" * 5_000, "a timestamp from 631152000"),
        (3, b"1" * 300_000, "a timestamp from 631152000"),
    ],
)
def test_a_value_that_no_rating_has_is_refused(
    tmp_path: Path, files: Files, field: int, value: bytes, expected: str
) -> None:
    written = files()
    name = ratings_file(written)
    separator = {"ratings.csv": b",", "ratings.dat": b"::", "u.data": b"\t"}[name]
    row = [b"1", b"50", b"4", b"881250949"]
    row[field] = value
    message = refusal(write(tmp_path, {**written, name: written[name] + separator.join(row) + b"\n"}))
    assert f"line {written[name].count(bytes([10])) + 1}: expected {expected}" in message
    assert "truncated?" in message
    assert len(message) < 500


@every_format
def test_a_row_cut_short_at_the_end_is_a_truncated_file(tmp_path: Path, files: Files) -> None:
    written = files()
    name = ratings_file(written)
    for missing in (2, 11):
        message = refusal(write(tmp_path, {**written, name: written[name][:-missing]}))
        assert f"line {written[name].count(bytes([10]))}: expected" in message
        assert "truncated?" in message


@every_format
def test_no_ratings_at_all_are_a_truncated_file(tmp_path: Path, files: Files) -> None:
    written = files()
    name = ratings_file(written)
    message = refusal(write(tmp_path, {**written, name: b""}))
    assert f"{name} line 1: expected" in message
    assert ("found nothing" if name == "ratings.csv" else "found the end of the file") in message


@pytest.mark.parametrize("name", ["ratings.dat", "u.data"])
def test_another_separator_is_told_by_the_columns_expected(tmp_path: Path, name: str) -> None:
    files = dat_files() if name == "ratings.dat" else tab_files()
    message = refusal(write(tmp_path, {**files, name: b"1,50,4,881250949\n"}))
    columns = "userId::movieId::rating::timestamp" if name == "ratings.dat" else "userId movieId rating timestamp"
    assert f"{name} line 1: expected 4 values ({columns}), found '1,50,4,881250949'" in message


def test_mixed_line_ends_are_named(tmp_path: Path) -> None:
    rows = b"1\t50\t4\t881250949\r\n2\t50\t4\t881250949\n3\t50\t4\t881250949\r\n"
    message = refusal(write(tmp_path, {**tab_files(), "u.data": rows}))
    assert r"u.data: expected one kind of line end, found '\n' and '\r\n'" in message


@pytest.mark.parametrize(
    ("files", "name", "row", "expected"),
    [
        (csv_files, "movies.csv", b"8,Title (1990)", "movieId,title,genres"),
        (csv_files, "movies.csv", b'8,"Open (1990),' + b"x" * 200_000, "movieId,title,genres"),
        (csv_files, "movies.csv", b"8,Mis\xe9rables (1995),Drama", "UTF-8, found the byte 0xe9"),
        (dat_files, "movies.dat", b"8::Title (1990)", "movieId::title::genres"),
        (dat_files, "movies.dat", b"x::Title (1990)::Drama", "movieId::title::genres"),
        (tab_files, "u.item", b"8|Title (1990)|01-Jan-1990|||0|0|1", "id|title|date|video date|address and 19 flags"),
        (tab_files, "u.item", b"8|Title|||" + b"|2" * 19, "id|title|date|video date|address and 19 flags"),
        (tab_files, "u.item", b"", "genre|19"),
    ],
)
def test_a_bad_movie_is_named_with_file_and_line(
    tmp_path: Path, files: Files, name: str, row: bytes, expected: str
) -> None:
    written = files()
    if not row:
        name, row = "u.genre", b"Bollywood|21"
    content = written[name].rstrip(b"\n") + b"\n"
    write(tmp_path, {**written, name: content + row + b"\n"})
    with pytest.raises(DataError) as error:
        open_movies(str(tmp_path))
    assert f"{tmp_path / name} line {content.count(bytes([10])) + 1}: expected {expected}" in str(error.value)


def test_an_open_quote_among_many_movies_is_named_where_it_begins(tmp_path: Path) -> None:
    rows = [f"{n},Title {n} (1990),Drama" for n in range(20_000)]
    rows[500] = '500,"Title 500 (1990),Drama'
    write(tmp_path, {**csv_files(), "movies.csv": text(["movieId,title,genres", *rows])})
    with pytest.raises(DataError, match=r"movies\.csv line 502: expected movieId,title,genres"):
        open_movies(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "name", "left"),
    [(csv_files, "movies.csv", b"movieId,title,genres\n"), (dat_files, "movies.dat", b""), (tab_files, "u.item", b"")],
)
def test_a_file_without_movies_is_refused(tmp_path: Path, files: Files, name: str, left: bytes) -> None:
    with pytest.raises(DataError, match=rf"{name}: expected movies, found none; is the file truncated"):
        open_movies(str(write(tmp_path, {**files(), name: left})))


def test_an_empty_genre_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"u\.genre line 1: expected genres, found the end"):
        open_movies(str(write(tmp_path, {**tab_files(), "u.genre": b""})))


@pytest.mark.parametrize(
    ("files", "missing", "releases"),
    [
        (csv_files, "ratings.csv", "25M or 32M"),
        (dat_files, "ratings.dat", "10M or 1M"),
        (dat_files, "movies.dat", "10M or 1M"),
        (tab_files, "u.data", "100K"),
        (tab_files, "u.item", "100K"),
        (tab_files, "u.genre", "100K"),
    ],
)
def test_a_missing_file_is_named_with_its_releases(tmp_path: Path, files: Files, missing: str, releases: str) -> None:
    written = files()
    del written[missing]
    message = refusal(write(tmp_path, written))
    assert f"{tmp_path / missing}: expected this file of " in message
    assert releases in message
    assert f"found {', '.join(sorted(written))};" in message


@pytest.mark.parametrize("files", [dat_files, tab_files, csv_files])
def test_movies_need_no_ratings(tmp_path: Path, files: Files) -> None:
    written = files()
    del written[ratings_file(written)]
    assert open_movies(str(write(tmp_path, written))) == MOVIES


def test_two_datasets_in_one_folder_are_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, {**csv_files(), **tab_files()}))
    assert "expected one dataset, found ratings.csv and u.data" in message


def test_a_zip_archive_is_not_a_folder_yet(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", files_of_1m()["ratings.dat"])
    for name in ("ml-1m.zip", ""):  # the archive itself, or the folder it was put into
        message = refusal(tmp_path / name)
        assert "unpack it" in message
        assert "`streamlens data download ml-1m`" in message


@every_format
def test_a_folder_one_level_too_high_names_the_right_one(tmp_path: Path, files: Files) -> None:
    write(tmp_path / "data" / "ml-some", files())
    message = refusal(tmp_path / "data")
    assert "one level too high: it holds ml-some/; name " in message
    assert message.endswith(str(tmp_path / "data" / "ml-some"))


def test_an_empty_folder_and_another_folder_say_what_is_missing(tmp_path: Path) -> None:
    assert "expected ratings.csv, ratings.dat, u.data of a MovieLens archive, found an empty folder" in refusal(
        tmp_path
    )
    (tmp_path / "notes.txt").write_text("?")
    assert "found notes.txt" in refusal(tmp_path)


def test_a_release_is_found_by_its_name_in_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"expected ml-1m in .*data/ml-1m.*`streamlens data download ml-1m`"):
        open_dataset("ml-1m")
    write(tmp_path / "data" / "ml-1m", files_of_1m())
    assert open_dataset("ml-1m").n_ratings == 6
    assert open_movies("ml-1m") == MOVIES


def test_the_releases_are_those_of_the_formats() -> None:
    assert list(RELEASES) == ["ml-latest-small", "ml-latest", "ml-32m", "ml-25m", "ml-10m", "ml-1m", "ml-100k"]

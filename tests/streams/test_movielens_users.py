"""Who the users of MovieLens 1M and 100K are, and that the other releases say nothing of theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.dataset import open_dataset, open_user_groups
from streams.errors import DataError


def folder(tmp_path: Path, **files: str) -> Path:
    for name, content in files.items():
        (tmp_path / name.replace("_", ".")).write_text(content, "latin-1")
    return tmp_path


def one_million(tmp_path: Path, **more: str) -> Path:
    return folder(tmp_path, ratings_dat="1::7::5::978300760\n", movies_dat="7::Heat (1995)::Crime\n", **more)


def test_a_million(tmp_path: Path) -> None:
    users = "1::F::1::10::48067\n2::M::56::16::70072\r\n3::F::25::15::55117\n"
    path = one_million(tmp_path, users_dat=users)
    assert open_user_groups(str(path)) == {1: "F under 18", 2: "M 56+", 3: "F 25-34"}
    assert open_dataset(str(path)).n_ratings == 1


def test_a_hundred_thousand_tells_years(tmp_path: Path) -> None:
    path = folder(
        tmp_path,
        u_data="1\t7\t5\t978300760\n",
        u_item="7|Heat (1995)|01-Jan-1995||http://us.imdb.com/|0\n",
        u_genre="unknown|0\n",
        u_user="1|24|M|technician|85711\n2|7|F|student|V1G4L\n3|49|M|writer|05201\n4|73|F|retired|10309\n",
    )
    assert open_user_groups(str(path)) == {1: "M 18-24", 2: "F under 18", 3: "M 45-49", 4: "F 56+"}


def test_releases_without_users_have_no_groups(tmp_path: Path) -> None:
    assert open_user_groups(str(one_million(tmp_path))) == {}
    assert open_user_groups("ml-latest-small") == open_user_groups("synthetic") == {}


@pytest.mark.parametrize("line", ["2::X::25::1::0", "2::F::25::1", "two::F::25::1::0", "2::F::young::1::0"])
def test_a_row_that_is_no_user_is_named(tmp_path: Path, line: str) -> None:
    path = one_million(tmp_path, users_dat=f"1::F::25::1::0\n{line}\n")
    with pytest.raises(DataError, match=r"users\.dat line 2: expected UserID"):
        open_user_groups(str(path))

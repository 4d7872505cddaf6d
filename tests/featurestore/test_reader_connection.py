from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from featurestore.catalogue import Catalogue
from featurestore.database import open_reader, open_writer
from featurestore.view_settings import ViewSettings
from streams.errors import StoreError, StoreMissing


def test_a_store_that_nobody_made_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="start `streamlens worker`"):
        open_reader(f"sqlite:///{tmp_path}/features.db")


def test_a_store_whose_tables_are_still_to_come_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "features.db"
    path.touch()

    with pytest.raises(StoreMissing):
        open_reader(f"sqlite:///{path}")

    open_writer(f"sqlite:///{path}", ViewSettings(), Catalogue()).close()
    open_reader(f"sqlite:///{path}").close()


def test_another_database_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "features.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE something (n)")
    other.close()

    with pytest.raises(StoreError, match="expected schema version") as caught:
        open_reader(f"sqlite:///{path}")
    assert not isinstance(caught.value, StoreMissing)

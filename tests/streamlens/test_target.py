"""What a command knows of the data where it has the run's folder, and where only settings name a bus and a store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from featurestore.writer import FeatureWriter
from streamlens.replay_run import prepare_run
from streamlens.settings import load_settings
from streamlens.target import find_target
from streamlens.waiting import NothingYet
from streams.errors import DataError

DATA = "synthetic:ratings=2000,users=50"


def test_a_machine_without_the_run_knows_its_data_by_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_REPLAY_DATA", DATA)
    monkeypatch.setenv("STREAMLENS_REPLAY_WEEK", "12")
    apart = find_target(None, bus="memory://", store="sqlite:///features.db")
    assert apart.run is None
    prepare_run(load_settings())
    beside = find_target(None)
    assert beside.run is not None
    movies, expected = apart.catalogue(), beside.catalogue()
    assert movies is not None
    assert expected is not None
    assert movies.fingerprint == expected.fingerprint
    assert apart.training_end() == beside.training_end() is not None


def test_without_any_name_the_movies_are_those_of_the_store() -> None:
    """One that is not there yet is not begun without any: it would never have them."""
    target = find_target(None, bus="memory://", store="sqlite:///features.db")
    assert (target.data, target.training_end()) == (None, None)
    with pytest.raises(NothingYet, match="set STREAMLENS_REPLAY_DATA"):
        target.catalogue()
    FeatureWriter("sqlite:///features.db", agent="features", topic="ratings").close()
    assert target.catalogue() is None
    with pytest.raises(NothingYet, match="set STREAMLENS_REPLAY_DATA"):
        target.catalogue(new_store=True)


def test_the_data_of_a_run_that_is_gone_is_needed_for_a_new_store_only(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "data" / "ml-latest-small", tmp_path / "data")
    prepare_run(load_settings({"replay": {"data": str(tmp_path / "data")}}))
    shutil.rmtree(tmp_path / "data")
    target = find_target(None)
    with pytest.raises(DataError, match="data"):
        target.catalogue()
    FeatureWriter(target.store_url, agent="features", topic="ratings").close()
    assert target.catalogue() is None


def test_data_that_settings_name_and_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_REPLAY_DATA", "nowhere/ml-latest-small")
    with pytest.raises(DataError, match="nowhere"):
        find_target(None, bus="memory://", store="sqlite:///features.db").catalogue()

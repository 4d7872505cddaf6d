"""The command line on PostgreSQL: a run has a schema of its own, which every command finds; no password is told."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from streamlens.cli.app import run
from streams.run import current_run
from streams.testing import unique_prefix
from tests.stores import PostgresStores

SECRET = "s3cret"  # the server asks for none


def streamlens(capsys: pytest.CaptureFixture[str], *arguments: str, expected: int = 0) -> str:
    code = run(list(arguments))
    out, err = capsys.readouterr()
    assert code == expected, err
    assert SECRET not in out + err
    return out if expected == 0 else err


def test_a_run_on_postgresql(
    postgres: PostgresStores, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = postgres.server
    login, at, rest = server.rpartition("@")
    with_password = f"{login}:{SECRET}{at}{rest}"
    # Another seed than other runs in this database have: the run's id names its schema.
    seed = str(int(unique_prefix()[-6:], 16))
    data = ("--data", "synthetic:ratings=2000", "--speed", "max", "--seed", seed)
    streamlens(capsys, "replay", *data, "--store", with_password, "--quiet")
    found = current_run(Path("var"))
    assert found is not None
    assert SECRET not in (found.path / "run.json").read_text()
    url = f"{server}?schema=run_{found.run_id}"
    assert found.store_url == url
    try:
        assert "not there yet" in streamlens(capsys, "features", "user", "1", expected=2)
        streamlens(capsys, "worker", "--until-end", "--quiet")
        status = json.loads(streamlens(capsys, "status", "--json"))
        assert (status["store"], status["features"]["ratings"]) == (url, 2_000)
        monkeypatch.setenv("STREAMLENS_STORE", with_password)  # the run's schema also where the URL is named again
        assert "verify passed" in streamlens(capsys, "verify")
        assert json.loads(streamlens(capsys, "status", "--json"))["store"] == url
        assert json.loads(streamlens(capsys, "features", "top", "--json"))
        streamlens(capsys, "snapshot", "--out", str(tmp_path / "snapshot"))
        streamlens(capsys, "worker", "--rebuild", "--until-end", "--quiet")
        assert "verify passed" in streamlens(capsys, "verify")
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS run_{found.run_id} CASCADE")  # type: ignore[arg-type]


def test_a_server_that_is_away_is_one_line_and_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    said = streamlens(capsys, "status", "--store", f"postgresql://ann:{SECRET}@127.0.0.1:1/db", expected=2)
    assert said.count("\n") == 1
    said = streamlens(
        capsys, "features", "user", "1", "--store", f"postgresql://ann:{SECRET}@127.0.0.1:1/db", expected=3
    )
    assert said.startswith("streamlens: feature store postgresql://ann@127.0.0.1:1/db: cannot be reached")
    assert said.count("\n") == 1

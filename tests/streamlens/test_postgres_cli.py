"""The command line on PostgreSQL: a run has a schema of its own, which every command finds; no password is told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from featurestore.verify import verify
from streamlens.children import running
from streamlens.cli.app import run
from streams.bus import open_bus
from streams.run import current_run
from streams.testing import unique_prefix
from tests.local_postgres import LocalPostgres
from tests.stores import PostgresStores

PROGRAM = (sys.executable, "-m", "streamlens")
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


async def test_a_worker_whose_server_stays_away_ends_with_exit_code_3_and_the_next_one_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = LocalPostgres()
    try:
        monkeypatch.setenv("STREAMLENS_FEATURES_STORE_PATIENCE_S", "2")
        data = ("--data", "synthetic:ratings=4000", "--week", "1", "--start", "1990-01-01", "--rate", "400")
        async with asyncio.timeout(120), running("replay", tmp_path / "replay.log", "replay", *data) as replayer:
            while not (found := current_run(Path("var"))):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            # Ratings have to come once the server is away: a worker without any would not notice.
            await asyncio.to_thread(subprocess.run, [*PROGRAM, "control", "pause"], check=True)
            store_url = f"{server.url}?schema=run_{found.run_id}"
            async with running("worker", tmp_path / "worker.log", "worker", "--store", store_url) as worker:
                while "ratings" not in worker.log.read_text():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(subprocess.run, [*PROGRAM, "control", "resume"], check=True)
                assert await worker.process.wait() == 3
            last = worker.log.read_text().splitlines()[-1]
            assert last.startswith(f"streamlens: feature store {store_url}: "), last
            assert "is PostgreSQL up" in last
            await asyncio.to_thread(server.start)
            async with running("worker", tmp_path / "next.log", "worker", "--store", store_url, "--until-end") as after:
                await after.process.wait()
                assert after.finished(), after.log.read_text()
            assert replayer.finished()
        async with open_bus(found.bus_url) as bus:
            report = await verify(bus, store_url)
        assert report.ok, report.as_dict()
        assert report.events > 4_000  # and ticks
    finally:
        server.remove()


def test_a_server_that_is_away_is_one_line_and_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    said = streamlens(capsys, "status", "--store", f"postgresql://ann:{SECRET}@127.0.0.1:1/db", expected=2)
    assert said.count("\n") == 1
    said = streamlens(
        capsys, "features", "user", "1", "--store", f"postgresql://ann:{SECRET}@127.0.0.1:1/db", expected=3
    )
    assert said.startswith("streamlens: feature store postgresql://ann@127.0.0.1:1/db: cannot be reached")
    assert said.count("\n") == 1

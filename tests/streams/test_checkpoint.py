"""The write-ahead log stays small, beside the appends and whoever reads meanwhile."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from streams import checkpoint
from streams.bus import TopicSpec
from streams.checkpoint import Checkpointer
from streams.log import EmbeddedLog
from streams.records import TopicPartition
from streams.stored_batch import Pending

TP = TopicPartition("t", 0)
DEADLINE_S = 20
KIB = 1 << 10


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of the real sizes or so."""
    monkeypatch.setattr(checkpoint, "_EVERY_BYTES", 64 * KIB)
    monkeypatch.setattr(checkpoint, "MAX_WAL_BYTES", 256 * KIB)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def log_in(folder: Path) -> EmbeddedLog:
    log = EmbeddedLog(folder / "bus.db")
    log.create_topics([TopicSpec("t", 1)])
    return log


def append(log: EmbeddedLog, n_bytes: int) -> int:
    log.append({TP: [Pending.record(b"v" * n_bytes, None, 1)]})
    return n_bytes


def in_database(folder: Path) -> int:
    """Bytes in the database file itself, without its write-ahead log."""
    return (folder / "bus.db").stat().st_size


def test_records_move_into_the_database_once_enough_were_appended(tmp_path: Path) -> None:
    with closing(log_in(tmp_path)) as log, closing(Checkpointer(tmp_path / "bus.db")) as checkpointer:
        checkpointer.appended(append(log, 40 * KIB))
        assert in_database(tmp_path) < 40 * KIB
        checkpointer.appended(append(log, 40 * KIB))
        eventually(lambda: in_database(tmp_path) > 80 * KIB)
        assert not checkpointer.overgrown


def test_a_write_ahead_log_that_cannot_begin_anew_is_called_overgrown_until_it_does(tmp_path: Path) -> None:
    wal = tmp_path / "bus.db-wal"
    with closing(log_in(tmp_path)) as log, closing(Checkpointer(tmp_path / "bus.db")) as checkpointer:
        with closing(sqlite3.connect(tmp_path / "bus.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM record_batches").fetchone()
            checkpointer.appended(append(log, 400 * KIB))
            eventually(lambda: checkpointer.overgrown)
            reader.execute("ROLLBACK")
        log.restart_wal()
        before = wal.stat().st_size
        append(log, 100 * KIB)
        assert wal.stat().st_size == before  # it was begun anew, not lengthened


def test_a_reader_in_the_way_does_not_hold_appends_up_for_long(tmp_path: Path) -> None:
    """A stopped process may stay in the middle of a read for ever."""
    with closing(log_in(tmp_path)) as log:
        append(log, 100 * KIB)
        with closing(sqlite3.connect(tmp_path / "bus.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM record_batches").fetchone()
            append(log, 100 * KIB)
            began = time.monotonic()
            log.restart_wal()
            assert time.monotonic() - began < 10
            (timeout_ms,) = log._writer.execute("PRAGMA busy_timeout").fetchone()
            assert timeout_ms == 30_000  # as patient as before with other writers


def test_a_checkpoint_that_fails_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect, failures = checkpoint.connect, [sqlite3.OperationalError("disk I/O error")]

    def failing(path: Path | None, busy_timeout_s: float) -> sqlite3.Connection:
        if failures:
            raise failures.pop()
        return connect(path, busy_timeout_s)

    monkeypatch.setattr(checkpoint, "connect", failing)
    with (
        caplog.at_level(logging.WARNING),
        closing(log_in(tmp_path)) as log,
        closing(Checkpointer(tmp_path / "bus.db")) as checkpointer,
    ):
        checkpointer.appended(append(log, 100 * KIB))
        eventually(lambda: "checkpoint failed" in caplog.text)
        checkpointer.appended(append(log, 100 * KIB))
        eventually(lambda: in_database(tmp_path) > 200 * KIB)


def test_closing_ends_the_thread(tmp_path: Path) -> None:
    with closing(log_in(tmp_path)) as log:
        before = set(threading.enumerate())
        checkpointer = Checkpointer(tmp_path / "bus.db")
        checkpointer.appended(append(log, 100 * KIB))
        assert set(threading.enumerate()) > before
        checkpointer.close()
        assert set(threading.enumerate()) == before
    Checkpointer(tmp_path / "bus.db").close()  # one that never had anything to do

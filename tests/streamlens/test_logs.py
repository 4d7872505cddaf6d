"""Logs go where stderr is when they are written, not where it was when they were set up."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import structlog

from streamlens.logs import configure_logs


def test_a_stderr_that_was_closed_since_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a command ran in a test, whose capture is gone."""
    before = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", before)
        configure_logs("warning")
        structlog.get_logger("ours").warning("early", n=1)
    assert "early" in before.getvalue()
    before.close()
    after = io.StringIO()
    monkeypatch.setattr(sys, "stderr", after)
    structlog.get_logger("ours").warning("late", n=2)
    logging.getLogger("theirs").warning("late too")
    assert [line.split()[-2:] for line in after.getvalue().splitlines()] == [["late", "n=2"], ["late", "too"]]
    structlog.get_logger("ours").info("not asked for")
    assert "not asked for" not in after.getvalue()


def test_the_test_after_a_command_has_the_logs_as_they_were() -> None:
    assert not structlog.is_configured()
    assert logging.getLogger().level == logging.WARNING

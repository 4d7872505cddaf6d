from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no settings from the machine that runs the tests."""
    for variable in list(os.environ):
        told_to_tests = variable.upper().startswith("STREAMLENS_TEST_")  # as where a broker is
        if variable.upper().startswith("STREAMLENS_") and not told_to_tests:
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path

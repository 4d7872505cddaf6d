"""What a manifest says of the code that made it."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from models import provenance
from models.provenance import code_commit, library_versions


def test_names_the_libraries_that_are_there() -> None:
    assert library_versions()["numpy"] == version("numpy")


def test_names_the_commit_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "checkout" / "models" / "provenance.py"))
    assert code_commit() is None
    module = tmp_path / "checkout" / "models" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("1")
    git = ["git", "-C", str(tmp_path / "checkout"), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "1"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert code_commit() == head
    module.write_text("2")
    assert code_commit() == f"{head}-dirty"

"""By which code and libraries something was made."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["code_commit", "library_versions"]

_LIBRARIES = ("numpy", "scipy", "torch", "optuna", "streamlens")


def library_versions() -> dict[str, str]:
    """Of the libraries that results depend on, where they are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_commit() -> str | None:
    """The commit of the checkout that runs, "-dirty" behind it where files were changed since; None outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # installed: a repository further up would be somebody else's
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

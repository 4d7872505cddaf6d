"""Each example project passes its tests as its reader runs them: pytest in its folder, with its settings.

On embedded buses only: pytest here runs the same tests on all buses, since ``docs/examples`` is one of its paths.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted(path.parent for path in (Path(__file__).parent.parent / "docs" / "examples").glob("*/pyproject.toml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_its_tests(example: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "streamlens.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", "not kafka"], cwd=example, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

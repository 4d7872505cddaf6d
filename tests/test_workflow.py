"""The workflow on GitHub: bounded, with few rights, and of files that are there. Its schema: `make check`."""

from __future__ import annotations

import re
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
WORKFLOW = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_may_only_read_and_ends() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in WORKFLOW["jobs"].values())


def test_actions_are_pinned() -> None:
    """To a commit: a tag may be moved to another."""
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]) for step in STEPS if "uses" in step)


def test_it_runs_files_that_are_there() -> None:
    run = [step["run"] for step in STEPS if "run" in step]
    assert run == ["bash .ci/run", "bash .ci/compose"]
    assert all((ROOT / line.split()[1]).is_file() for line in run)

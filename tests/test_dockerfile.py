"""The image: pinned, in two stages, not root, with all packages and nothing of the data. Its syntax: `make check`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


INSTRUCTIONS = instructions()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LAST = max(at for at, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
FINAL = INSTRUCTIONS[LAST:]


def test_both_stages_are_of_one_pinned_python() -> None:
    build, final = (rest for name, rest in INSTRUCTIONS if name == "FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", final)
    assert build == f"{final} AS build"


def test_it_is_built_from_all_packages_and_nothing_else() -> None:
    copied = [rest.split() for name, rest in INSTRUCTIONS[:LAST] if name == "COPY"]
    sources = [source for *sources, _ in copied for source in sources]
    packages = {pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert {source for source in sources if (ROOT / source).is_dir()} == packages
    assert {"pyproject.toml", "requirements.lock", "LICENSE", "NOTICE"} <= set(sources)
    ignored, *allowed = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith(("#", "**/"))
    ]
    assert ignored == "*"
    assert sorted(f"!{source}" for source in sources) == sorted(allowed)
    assert all((ROOT / source).exists() for source in sources)


def test_what_is_installed_is_pinned_and_has_extras_that_there_are() -> None:
    (install,) = (rest for name, rest in INSTRUCTIONS if name == "RUN" and "pip install" in rest)
    assert "--constraint requirements.lock" in install
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", install)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    assert "train" not in extras  # torch


def test_the_last_stage_takes_the_environment_only_and_runs_as_nobody_in_particular() -> None:
    assert [rest for name, rest in FINAL if name in ("COPY", "ADD")] == ["--from=build /opt/venv /opt/venv"]
    (user,) = (rest for name, rest in FINAL if name == "USER")
    assert re.fullmatch(r"(?!0)\d+:(?!0)\d+", user)
    assert f"--uid {user.split(':')[0]} " in next(rest for name, rest in FINAL if name == "RUN")
    assert [name for name, _ in FINAL].index("USER") < [name for name, _ in FINAL].index("ENTRYPOINT")
    assert ("ENTRYPOINT", '["streamlens"]') in FINAL
    assert ("WORKDIR", "/var/lib/streamlens") in FINAL

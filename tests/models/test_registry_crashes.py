"""The registry killed at each step, and several who decide at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models.registry import Registry, Version
from streams.errors import ModelError
from tests.models.registered import add_version, scores_of

WHO = {"by": "somebody", "why": "because"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def champion(registry: Registry) -> str | None:
    found = registry.champion()
    return found.version_id if found else None


DIES_AT_A_LINE = """
import os, shutil, signal, sys
from pathlib import Path
from models import registry, versions
from streams import durable

folder = Path(sys.argv[1])
traced = {module.__file__ for module in (registry, versions, durable)}
reg = registry.Registry(folder)


def die_before_line(number):
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if frame.f_code.co_filename not in traced:
            return None
        if event == "line":
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def killed_at(number, work):
    child = os.fork()
    if not child:
        die_before_line(number)
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0
"""

PROMOTES = """
old, new = sys.argv[2:]
decisions = (folder / "registry.json").read_bytes()
number = decided = 0
killed = True
while killed:
    number += 1
    (folder / "registry.json").write_bytes(decisions)  # each time anew, or there would be ever more lines
    killed = killed_at(number, lambda: reg.promote(reg.get(new), by="child", why=str(number)))
    trail = [entry.version_id for entry in reg.audit()]
    assert trail in ([old], [old, new]), (number, trail)
    assert reg.champion().version_id == trail[-1]
    reg.champion().load()
    decided += killed and len(trail) == 2
print(number, decided)
"""

ADDS = """
trained, version_id = Path(sys.argv[2]), sys.argv[3]


def add():
    with reg.draft() as draft:
        shutil.copytree(trained, draft / "version")
        reg.add(draft / "version")


number = added = 0
killed = True
while killed:
    number += 1
    shutil.rmtree(folder / version_id, ignore_errors=True)
    killed = killed_at(number, add)
    assert reg.damaged() == {}, number
    found = reg.versions()
    assert [version.version_id for version in found] in ([], [version_id]), number
    for version in found:
        version.load()
        assert version.status == "challenger"
    assert reg.audit() == [] and reg.champion() is None
    added += killed and len(found)
assert len(found) == 1
print(number, added)
"""


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


@pytest.mark.slow
def test_killed_at_any_line_a_promotion_is_there_whole_or_not_at_all(registry: Registry) -> None:
    old, new = add_version(registry), add_version(registry)
    registry.promote(old, **WHO)
    child = run_python(DIES_AT_A_LINE + PROMOTES, registry.folder, old.version_id, new.version_id)
    told, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    lines, decided = map(int, told.split())
    assert lines > 40
    assert 0 < decided < lines / 2, "killed on both sides of the decision"
    with registry.draft():
        left = {path.name for path in registry.folder.iterdir() if path.name.startswith(".registry")}
    assert left == set(), "what killed processes left was not cleared away"


@pytest.mark.slow
def test_killed_at_any_line_a_version_is_there_whole_or_not_at_all(registry: Registry, tmp_path: Path) -> None:
    version = add_version(registry)
    trained = version.folder.rename(tmp_path / "trained")
    child = run_python(DIES_AT_A_LINE + ADDS, registry.folder, trained, version.version_id)
    told, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    lines, added = map(int, told.split())
    assert lines > 40
    assert 0 < added < lines / 2, "killed on both sides of the rename"
    with registry.draft():
        left = [path.name for path in registry.folder.glob(".draft-*")]
    assert len(left) == 1, "what killed processes left was not cleared away"


def test_a_disk_that_fails_at_any_step_leaves_a_whole_version_or_none(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file operation in its turn; afterwards the same draft is taken in, unless it is there."""
    version = add_version(registry)
    trained = version.folder.rename(tmp_path / "trained")
    operations = [(os, "open"), (os, "fsync"), (Path, "rename"), (Path, "mkdir")]
    seen: list[list[str]] = []
    failed = True
    while failed:
        with registry.draft() as folder:
            draft = shutil.copytree(trained, folder / "version")
            failed, said = fails_at(len(seen), operations, lambda at=draft: registry.add(at), monkeypatch)  # type: ignore[misc]
            assert failed == ("the version cannot be put there (no luck)" in said)
            assert registry.damaged() == {}
            seen.append([one.version_id for one in registry.versions()])
            if draft.exists():
                registry.add(draft)
            (added,) = registry.versions()
            assert scores_of(added) == [1.0, -float("inf")]
            shutil.rmtree(added.folder)
    assert len(seen) > 4
    assert seen[0] == []
    assert seen[-2:] == [[version.version_id]] * 2, "the last that fails is the sync after the rename"


def fails_at(
    number: int, operations: list[tuple[Any, str]], call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[bool, str]:
    """Whether the operation of that number was reached, and so failed, and what was said."""
    left = [number]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                raise OSError("no luck")
            return real(*given, **named)

        return operation

    with monkeypatch.context() as patched:
        for owner, name in operations:
            patched.setattr(owner, name, failing(getattr(owner, name)))
        try:
            call()
        except ModelError as error:
            return True, str(error)
    return left[0] < 0, ""


BACK_AND_FORTH = """
import sys
from pathlib import Path
from models.registry import Registry
from streams.errors import ModelError

registry, name, count = Registry(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
mine = [registry.get(version_id) for version_id in sys.argv[4:]]
print("ready", flush=True)
done = 0
while done < count:
    registry.promote(mine[done % 2], by=name, why=str(done))
    done += 1
    print(done, flush=True)
"""


def wait_for_line(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"


@pytest.mark.slow
def test_killed_at_random_moments_the_trail_is_whole(registry: Registry) -> None:
    versions = [add_version(registry) for _ in range(2)]
    moments, seen = random.Random(0), 0
    for _ in range(6):
        child = run_python(
            BACK_AND_FORTH, registry.folder, "child", 10**9, *(v.version_id for v in order(registry, versions))
        )
        wait_for_line(child)
        time.sleep(moments.uniform(0.0, 0.1))  # the random moment
        child.send_signal(signal.SIGKILL)
        told, _ = child.communicate()
        acknowledged = len(told.splitlines())
        entries = registry.audit()
        assert len(entries) - seen in (acknowledged, acknowledged + 1)
        seen = len(entries)
        assert champion(registry) == (entries[-1].version_id if entries else None)
    assert seen > 6, "nothing was proven"
    assert all(b.previous == a.version_id for a, b in pairwise(registry.audit()))


def order(registry: Registry, versions: list[Version]) -> list[Version]:
    """Those who are not the champion first."""
    return sorted(versions, key=lambda version: version.version_id == champion(registry))


def test_two_who_promote_at_once_take_turns(registry: Registry) -> None:
    each = 40
    versions = [add_version(registry) for _ in range(4)]
    children = [
        run_python(BACK_AND_FORTH, registry.folder, f"child {n}", each, *(v.version_id for v in versions[n::2]))
        for n in range(2)
    ]
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    entries = registry.audit()
    for n in range(2):
        assert [e.why for e in entries if e.by == f"child {n}"] == [str(i) for i in range(each)], "one was lost"
    assert all(b.previous == a.version_id for a, b in pairwise(entries)), "one did not see the other's"
    assert champion(registry) == entries[-1].version_id


def test_a_draft_in_use_is_left_alone_and_one_of_a_killed_process_is_not(registry: Registry) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from models.registry import Registry
with Registry(Path(sys.argv[1])).draft() as draft:
    (draft / "half").write_text("written")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    child = run_python(code, registry.folder)
    child.communicate(timeout=60)
    (left,) = registry.folder.glob(".draft-*")
    with registry.draft() as mine:
        assert not left.exists()
        with registry.draft() as other:
            assert mine.exists()
            assert other != mine
    assert list(registry.folder.glob(".draft-*")) == []

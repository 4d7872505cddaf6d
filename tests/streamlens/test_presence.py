from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from streamlens.presence import announced, holder

HOLD = """
import sys, pathlib
from streamlens.presence import announced
with announced(pathlib.Path(sys.argv[1]), "worker"):
    print("here", flush=True)
    sys.stdin.read()
"""


def test_nobody_is_at_work_in_a_new_run(tmp_path: Path) -> None:
    assert holder(tmp_path, "worker") is None


def test_who_announced_itself_is_found_while_it_is_there(tmp_path: Path) -> None:
    with announced(tmp_path, "worker"):
        assert holder(tmp_path, "worker") == os.getpid()
        assert holder(tmp_path, "replayer") is None
    assert holder(tmp_path, "worker") is None


def test_the_first_one_stays_the_one_that_is_found(tmp_path: Path) -> None:
    with announced(tmp_path, "worker"):
        with announced(tmp_path, "worker"):
            pass
        assert holder(tmp_path, "worker") == os.getpid()


def test_a_killed_process_is_gone_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert holder(tmp_path, "worker") == process.pid
        process.kill()
        process.wait()
        assert holder(tmp_path, "worker") is None

from __future__ import annotations

import os
from pathlib import Path

from streamlens.heartbeat import Heartbeat


def test_a_beat_makes_the_file_young_again_once_a_second(tmp_path: Path) -> None:
    now = 0.0
    heartbeat = Heartbeat(tmp_path / "var", "worker", monotonic=lambda: now)
    heartbeat.beat()
    assert heartbeat.path == tmp_path / "var" / "worker.alive"
    os.utime(heartbeat.path, (0, 0))
    now = 0.9
    heartbeat.beat()
    assert heartbeat.path.stat().st_mtime == 0
    now = 1.0
    heartbeat.beat()
    assert heartbeat.path.stat().st_mtime > 0


def test_a_beat_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    Heartbeat(tmp_path / "var", "worker").beat()

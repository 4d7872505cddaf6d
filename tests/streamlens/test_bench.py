"""What the benchmarks measure themselves with."""

from __future__ import annotations

from streamlens.bench.processes import in_fresh_process, max_rss_mb


def test_a_fresh_process_answers_for_its_own_memory_alone() -> None:
    ballast = bytes(b"\1" * (300 << 20))
    assert in_fresh_process(max_rss_mb) < 250
    assert max_rss_mb() > 300
    del ballast

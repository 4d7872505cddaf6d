"""What the benchmarks measure themselves with."""

from __future__ import annotations

import msgspec
import numpy as np

from streamlens.bench.page_figures import published_ms
from streamlens.bench.processes import in_fresh_process, max_rss_mb
from streams.events import Rating, Tick
from streams.records import RecordBatch


def test_a_fresh_process_answers_for_its_own_memory_alone() -> None:
    ballast = bytes(b"\1" * (300 << 20))
    assert in_fresh_process(max_rss_mb) < 250
    assert max_rss_mb() > 300
    del ballast


def test_ratings_were_published_when_they_were_whatever_ticks_lie_between() -> None:
    records = [
        Tick(86_400 * 9_000),
        Rating(1, 1, 4.0, 800_000_000),
        Tick(86_400 * 9_001),
        Rating(1, 2, 4.0, 800_000_009),
    ]
    at_ms = 10**12 + np.array([0, 250, 500, 750])
    lines = [msgspec.json.encode(record) for record in records]
    batch = RecordBatch("ratings", 0, np.array([5, 6, 7, 9]), at_ms, 10, None, _values=lines)
    assert (published_ms(batch) - 10**12).tolist() == [250, 750]

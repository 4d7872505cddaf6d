"""How far the features are, by the log and by their store."""

from __future__ import annotations

from typing import Any

import pytest

from featurestore.reader import AppliedOffset
from streamlens.run_status import progress
from streams.bus import OffsetRange
from streams.events import RATINGS
from streams.records import TopicPartition


def applied(partition: int, next_offset: int) -> AppliedOffset:
    fields: dict[str, Any] = dict.fromkeys(AppliedOffset.__dataclass_fields__, 0)
    return AppliedOffset(**fields | {"topic": RATINGS, "partition": partition, "next_offset": next_offset})


@pytest.mark.parametrize(("offsets", "lag"), [((3, 10), 7), ((10, 10), 0), ((14, 10), 0), ((14, 3), 7)])
def test_what_was_applied_since_the_log_was_looked_at_is_no_lag(offsets: tuple[int, int], lag: int) -> None:
    """The store is read after the log, and may be further by then: that counts for nobody."""
    held = {TopicPartition(RATINGS, p): OffsetRange(0, 10) for p in range(2)}
    found = progress([applied(p, offset) for p, offset in enumerate(offsets)], held, 0.0)
    assert found["lag"] == lag
    assert [row["applied"] for row in found["partitions"]] == list(offsets)

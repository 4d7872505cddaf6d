"""What a step tells as records, and what each variant gains by it."""

from __future__ import annotations

import msgspec

from agents.sessions import Boundary, LiveRatings, PartitionSessions
from agents.slate_records import records_of
from agents.tally import Tally
from streams.events import FEEDBACK, IMPRESSIONS, Feedback, Slate, Tick

T0 = 1_000_000_000


def test_a_short_list_counts_as_long_as_it_is() -> None:
    """Few movies are left to show to who has rated most."""
    step = PartitionSessions().begin(LiveRatings([7, 7], [2, 5], [T0, T0 + 60], [(2, Boundary(T0 + 90_000, True))]))
    step.due[0].variant, step.due[0].movie_ids = "a", [1, 2, 3]
    step.finish()
    lines, emitted, gained = records_of(step, "run/loop/ratings/0", 4)
    told = {
        one.topic: [msgspec.json.decode(line, type=Slate | Feedback | Tick) for line in one.lines.split(b"\n")]
        for one in lines
    }
    assert gained == {"a": Tally(slates=1, shown=3, clicks=1)}
    slate, feedback = told[IMPRESSIONS][0], told[FEEDBACK][0]
    assert isinstance(slate, Slate)
    assert isinstance(feedback, Feedback)
    assert (slate.movie_ids, feedback.n_shown, feedback.clicked) == ([1, 2, 3], 3, [2])
    assert (slate.event_id, feedback.event_id, told[IMPRESSIONS][1].event_id, told[FEEDBACK][1].event_id) == (
        5,
        6,
        7,
        8,
    )
    assert emitted == 8

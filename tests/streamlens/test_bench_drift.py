"""The world of `bench drift` stays as it is, and what is put into it is found."""

from __future__ import annotations

import numpy as np
import pytest

from agents.thresholds import default_thresholds
from streamlens.bench.drift import KINDS, _Run
from streamlens.bench.drift_world import EVENTS_PER_DAY, make_ratings


def test_the_world_does_not_change_by_itself() -> None:
    ratings = make_ratings(40_000, seed=3).ratings
    days = (ratings.timestamp - ratings.timestamp[0]) // 86_400
    early, late = (ratings.take(np.flatnonzero(half)) for half in (days < 40, days >= 40))
    assert len(ratings) == pytest.approx(80 * EVENTS_PER_DAY, rel=0.1)
    assert len(early) == pytest.approx(len(late), rel=0.15)
    assert early.rating.mean() == pytest.approx(late.rating.mean(), abs=0.1)
    assert np.median(early.movie_id) == pytest.approx(np.median(late.movie_id), rel=0.1)


def test_strong_drift_of_every_kind_is_found() -> None:
    run = _Run(make_ratings(104 * EVENTS_PER_DAY, seed=0), 0, default_thresholds())
    run.clean(41)
    for kind in KINDS:
        found = run.drifted(kind, "high")
        assert found is not None
        assert found.events <= 5_000

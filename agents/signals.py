"""The signals of a day that detectors are fed with: a value per unit, in event order.

A unit is a user's day, a session or a day where ratings of one user hang together: fed one by one, a single session
of a harsh user would look like drift. Errors of predictions hardly do, so there each rating counts.
"""

from __future__ import annotations

import numpy as np

from agents.day_sums import BINS
from agents.monitor_columns import FeedbackColumns, RatingColumns
from models.metrics import Floats
from streams.records import Int64s

__all__ = ["signals_of"]

_MOST_SILENT_DAYS = 7
"""Days without a rating that count as such: a longer silence is a pause of the source."""


def signals_of(
    ratings: RatingColumns,
    feedback: FeedbackColumns,
    *,
    new_users: frozenset[int],
    decile: Int64s | None,
    turned: Floats,
    silent_days: int,
) -> dict[str, Floats]:
    """Of a day, its columns in order, by the names in :data:`agents.thresholds.SIGNALS`.

    - rating, popularity: a user's mean of the day: stars, decile of the movie (0 for the most rated ones, 1 the least)
    - taste: of a user's day ``turned`` (u,), by rising user: how much what was rated speaks for another taste than that
      of the user's days before (:mod:`agents.taste_book`)
    - abs_error: of each rating, how far the predicted stars were off
    - new_user: 1 for a user who was never seen before, else 0
    - volume: log(1 + ratings) of the day, and of each of the ``silent_days`` before it
    - ctr, session_length: of a session that closed: clicks by movies shown, log of its ratings
    """
    users, first, owner = np.unique(ratings.user_id, return_index=True, return_inverse=True)
    by_first = np.argsort(first)
    stars = ratings.half_stars / 2
    error = np.abs(ratings.predicted.astype(np.float64) - stars)
    volume = [0.0] * min(silent_days, _MOST_SILENT_DAYS) + [float(np.log1p(len(ratings)))]
    found = {
        "rating": _means(owner, stars)[by_first],
        "taste": turned[by_first],
        "abs_error": error,
        "new_user": np.array([user in new_users for user in users[by_first].tolist()], np.float64),
        "volume": np.array(volume),
    }
    if decile is not None:
        found["popularity"] = _means(owner, decile / (BINS - 1))[by_first]
    if len(feedback):
        pairs = np.stack([feedback.timestamp, feedback.user_id])
        _, first, session = np.unique(pairs, axis=1, return_index=True, return_inverse=True)
        shown = np.bincount(session, feedback.n_shown)
        clicked = np.bincount(session, feedback.n_clicked)
        by_first = np.argsort(first)
        found["ctr"] = (clicked / np.maximum(shown, 1))[by_first]
        found["session_length"] = np.log(np.maximum(feedback.n_ratings[first], 1))[by_first]
    return {name: units[np.isfinite(units)] for name, units in found.items()}


def _means(owner: Int64s, values: Floats) -> Floats:
    """Of each owner's values that are finite; NaN for one without any."""
    told = np.isfinite(values)
    n_owners = int(owner.max(initial=-1)) + 1
    counts = np.bincount(owner[told], minlength=n_owners)
    sums = np.bincount(owner[told], values[told], minlength=n_owners)
    means: Floats = np.divide(sums, counts, out=np.full(n_owners, np.nan), where=counts > 0)
    return means

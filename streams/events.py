"""The records that travel on the bus: one definition each, JSON on the wire, new fields always optional.

Identity is ``(source, event_id)``: a source numbers its records upwards in the order in which it publishes, so on one
partition a record whose id is not above the last one applied of its source is a duplicate. Records without identity
come from foreign producers and are taken as they come.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "ALERTS",
    "CONTROL",
    "DAY_S",
    "DEADLETTER",
    "EARLIEST_TIMESTAMP",
    "FEEDBACK",
    "HOUR_S",
    "IMPRESSIONS",
    "METRICS",
    "MODELS",
    "RATINGS",
    "RETRAIN",
    "TOPICS",
    "Alert",
    "Control",
    "DeadLetter",
    "Feedback",
    "Metric",
    "ModelEvent",
    "Rating",
    "RatingsRecord",
    "Slate",
    "Tick",
]

RATINGS = "ratings"
IMPRESSIONS = "impressions"
FEEDBACK = "feedback"
METRICS = "metrics"
ALERTS = "alerts"
CONTROL = "control"
DEADLETTER = "deadletter"
RETRAIN = "retrain"
"""Its record: ``streams.retrain``."""
MODELS = "models"
TOPICS = (RATINGS, IMPRESSIONS, FEEDBACK, METRICS, ALERTS, RETRAIN, MODELS, CONTROL, DEADLETTER)

HOUR_S = 3_600
DAY_S = 86_400
EARLIEST_TIMESTAMP = 631_152_000
"""1990-01-01T00:00:00Z: no recommender log is older, so an earlier rating is a broken clock."""


class Rating(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A user rated a movie. ``rating``: 0.5 to 5.0 in half stars; ``timestamp``: event time, seconds since the epoch.

    >>> msgspec.json.encode(Rating(user_id=1, movie_id=31, rating=2.5, timestamp=1260759144))
    b'{"user_id":1,"movie_id":31,"rating":2.5,"timestamp":1260759144}'
    """

    user_id: int
    movie_id: int
    rating: float
    timestamp: int
    source: str | None = None
    event_id: int | None = None


class Tick(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="tick"):
    """Event time has reached ``event_time`` (seconds since the epoch) on this partition.

    Boundary ticks stand at fixed event times (each event day) and close what ends there. Heartbeats
    (``heartbeat=True``) follow the wall clock in between: they raise the clock and close nothing, so that no result
    depends on how fast a run was replayed. ``event_id`` is the ordinal of the last rating before the tick; ticks
    are applied as a maximum, never deduplicated.
    """

    event_time: int
    source: str | None = None
    event_id: int | None = None
    heartbeat: bool = False
    end_of_run: bool = False


class RatingsRecord(msgspec.Struct, gc=False):
    """What a record of the ``ratings`` topic is decoded into: a rating unless its ``type`` says "tick".

    A field that is missing keeps a default that no valid record can have, so that one pass over columns finds it.
    """

    type: str = "rating"
    source: str | None = None
    event_id: int | None = None
    user_id: int = -1
    movie_id: int = -1
    rating: float = -1.0
    timestamp: int = -1
    event_time: int = -1
    heartbeat: bool = False
    end_of_run: bool = False


class Slate(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="slate"):
    """A list of movies as shown to a user, best first, made from what the user had rated before ``timestamp``.

    slate_id, session_id: the same each time this run is computed. variant: of the experiment the user is in.
    timestamp: event time of the rating that triggered it, seconds since the epoch. ``impressions`` holds these and,
    after everything that came before it, each boundary :class:`Tick` of the same partition of ``ratings``.
    """

    slate_id: str
    session_id: str
    user_id: int
    variant: str
    model_version: str
    movie_ids: list[int]
    timestamp: int
    source: str | None = None
    event_id: int | None = None


class Feedback(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="feedback"):
    """What came of a slate, told once, when its session closes.

    clicked: those of the shown movies that the user rated afterwards in the session, in that order. n_ratings,
    session_seconds: of the whole session, from its first rating to its last. timestamp: event time at which the session
    was over, its last rating plus the gap. simulated: the clicks are those of made-up users. ``feedback`` holds these
    and boundary ticks, as ``impressions`` does.
    """

    slate_id: str
    session_id: str
    user_id: int
    variant: str
    model_version: str
    n_shown: int
    clicked: list[int]
    n_ratings: int
    session_seconds: int
    timestamp: int
    source: str | None = None
    event_id: int | None = None
    simulated: bool = False


class ModelEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something happened to a trained version.

    model: its kind. request: id of the retrain event that this answers, None where nobody asked. event_time: from which
    on it holds (a promotion: serves from then on), seconds since the epoch. metrics: what decided, as JSON values.
    """

    kind: Literal["trained", "promoted", "rejected", "rolled_back", "failed"]
    model: str
    version: str | None
    event_time: int
    reason: str
    metrics: dict[str, Any] = {}
    request: str | None = None
    source: str | None = None
    event_id: int | None = None


class Metric(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measured value. ``event_time`` and ``emitted_at``: seconds since the epoch, in event and in wall time."""

    name: str
    value: float
    emitted_at: float
    labels: dict[str, str] = {}
    event_time: int | None = None
    source: str | None = None
    event_id: int | None = None


class Alert(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something to look at: a rule that began to fire (``kind`` "threshold"), or a detector that did ("drift").

    name: of the measure or the detector. evidence: what was measured, as JSON values. event_time: the end of the day
    that told, seconds since the epoch.
    """

    name: str
    severity: Literal["critical", "schedule", "investigate"]
    kind: Literal["threshold", "drift"]
    evidence: dict[str, Any]
    event_time: int
    source: str | None = None
    event_id: int | None = None


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that could not be processed: where it stood, why it was refused, and the record itself.

    ``payload`` is the value as text; ``encoding`` is "utf-8", or "base64" where the bytes were not text, or text that
    JSON would have to escape at length. Of a large record it is the first part only: ``size`` then says how many bytes
    the whole record has, which stands where it stood.
    """

    topic: str
    partition: int
    offset: int
    reason: str
    payload: str
    encoding: str = "utf-8"
    source: str | None = None
    event_id: int | None = None
    size: int | None = None


class Control(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request to the replayer of ``run``: ``action`` is "pause", "resume", "stop" or "speed" (with ``speed``)."""

    run: str
    action: str
    speed: float | None = None
    source: str | None = None
    event_id: int | None = None

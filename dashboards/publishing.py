"""What a person does on the pages, published as any other event: ratings, requests to the replayer, for retraining."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import msgspec

from dashboards.live import Live
from streams.bus import Bus
from streams.control import ask
from streams.deadletter_replay import Replayed, replay_letters
from streams.deadletters import PlacedLetter
from streams.errors import ConfigError
from streams.events import RATINGS, Rating
from streams.retrain import RetrainRequest, RetrainRequested, ask_for_retrain

__all__ = ["SHORTEST_JUSTIFICATION", "ask_replayer", "publish_ratings", "replay_letter", "request_retrain"]

SHORTEST_JUSTIFICATION = 10
"""Letters: a word is no reason that anybody could judge later."""


def publish_ratings(live: Live, user_id: int, stars: Sequence[tuple[int, float]]) -> list[Rating]:
    """Publish (movie id, stars) of a user at the run's current event time, and wait until all are durable.

    They carry the pages' own source, whose records go out in the order of their ids: one that was overtaken would be
    taken for a duplicate. Raises ConfigError before the run has reached any event time, BusError.
    """
    event_time = live.event_time
    if not event_time:
        raise ConfigError(
            "ratings: expected the run's event time, found none yet; wait until features have applied some"
        )
    ratings: list[Rating] = []

    async def publish(bus: Bus) -> None:
        async with bus.producer() as producer:
            for rating in ratings:
                await producer.send(RATINGS, msgspec.json.encode(rating), key=str(user_id).encode())
            await producer.flush()

    with live.publishing:
        ratings += [
            Rating(user_id, movie_id, given, event_time, source=live.source, event_id=live.next_id())
            for movie_id, given in stars
        ]
        live.subscriber.submit(publish)
    return ratings


def ask_replayer(live: Live, action: str, speed: float | None = None) -> None:
    """Ask the run's replayer for ``action`` ("pause", "resume", "speed"). Raises ConfigError, BusError."""
    live.subscriber.submit(lambda bus: ask(bus, live.target.run_id or "*", action, speed))


def request_retrain(live: Live, model: str, justification: str, *, asked_by: str, severity: str) -> RetrainRequested:
    """Publish the event that asks for ``model`` to be trained anew; returns it once it is durable.

    Raises ConfigError for a justification that says nothing, and before the run has reached any event time.
    """
    said = " ".join(justification.split())
    if len(said) < SHORTEST_JUSTIFICATION:
        raise ConfigError(
            f"justification: expected a reason of {SHORTEST_JUSTIFICATION} letters or more, found {said!r}; "
            "say why, for whoever reads the audit trail"
        )
    event_time = live.event_time
    if not event_time:
        raise ConfigError(
            "retrain: expected the run's event time, found none yet; wait until features have applied some"
        )
    request = RetrainRequest(
        reason="asked for on the pages",
        severity="critical" if severity == "critical" else "schedule",
        asked_by=asked_by,
        justification=said,
    )
    event = RetrainRequested.of(
        model,
        request,
        id=f"{live.source}/{live.next_id()}",
        source=live.source,
        time=datetime.fromtimestamp(event_time, UTC),
    )
    live.subscriber.submit(lambda bus: ask_for_retrain(bus, event))
    return event


def replay_letter(live: Live, placed: PlacedLetter, *, force: bool = False) -> Replayed:
    """Publish the record of one dead letter again, as ``streamlens deadletter replay`` does; what became of it."""

    async def alone() -> AsyncIterator[PlacedLetter]:
        yield placed

    async def replay(bus: Bus) -> Replayed:
        (done,) = [one async for one in replay_letters(bus, alone(), force=force)]
        return done

    return live.subscriber.submit(replay)

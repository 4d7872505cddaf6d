"""What a closed day publishes: alerts, and the retrain event. Pure: the same day gives the same records and ids."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from agents.day_log import Rejected
from agents.monitor import ClosedDay
from agents.retrain_decision import retrain_request
from featurestore.partition_writer import OutboxRecord
from streams.events import ALERTS, DEADLETTER, RETRAIN
from streams.records import TopicPartition
from streams.retrain import RetrainRequested

__all__ = ["MONITORS", "alert_records", "dead_letter_records", "retrain_event", "retrain_record", "source_of"]

MONITORS = "monitors"
"""The agent's name: its Faust app id and consumer group, and its rows in its store."""

_MOST_ALERTS = 1_000
"""Of a day: an alert's event_id is the day and its number within it, so that it rises from day to day."""


def source_of(run_id: str, tp: TopicPartition | None = None) -> str:
    """Who publishes; ``tp``: what it was made of, where that is one partition.

    >>> source_of("run"), source_of("run", TopicPartition("feedback", 2)), source_of("")
    ('run/monitors', 'run/monitors/feedback/2', 'monitors')
    """
    parts = ([run_id] if run_id else []) + [MONITORS] + ([tp.topic, str(tp.partition)] if tp else [])
    return "/".join(parts)


def alert_records(run_id: str, closed: ClosedDay) -> list[OutboxRecord]:
    """Alerts of a day as they go out, each under its name."""
    first = closed.metrics.day * _MOST_ALERTS
    return [
        OutboxRecord(
            0,
            ALERTS,
            alert.name.encode(),
            msgspec.json.encode(msgspec.structs.replace(alert, source=source_of(run_id), event_id=first + number)),
        )
        for number, alert in enumerate(closed.alerts)
    ]


def retrain_event(run_id: str, model: str, closed: ClosedDay) -> RetrainRequested:
    """The event that asks for a training of ``model``, which the day decided on. Raises ValueError where it did not."""
    return RetrainRequested.of(
        model,
        retrain_request(closed.decision),
        id=f"{source_of(run_id)}/{closed.metrics.day}",
        source=source_of(run_id),
        time=datetime.fromtimestamp(closed.metrics.event_time, UTC),
    )


def retrain_record(event: RetrainRequested) -> OutboxRecord:
    """An event as it goes out, under its model."""
    return OutboxRecord(0, RETRAIN, event.subject.encode(), msgspec.json.encode(event))


def dead_letter_records(run_id: str, rejected: Iterable[Rejected]) -> list[OutboxRecord]:
    """What was no record of ``impressions`` or ``feedback``; invalid ratings are dead-lettered by ``features``."""
    records = []
    for one in rejected:
        letter = msgspec.structs.replace(
            one.record.dead_letter(one.topic, one.partition),
            source=source_of(run_id, TopicPartition(one.topic, one.partition)),
            event_id=one.number,
        )
        key = f"{one.topic}/{one.partition}/{one.record.offset}".encode()
        records.append(OutboxRecord(0, DEADLETTER, key, msgspec.json.encode(letter)))
    return records

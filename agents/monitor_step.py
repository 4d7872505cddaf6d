"""What was closed since the monitors last wrote, and all that it asks for: one transaction's worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.day_log import DayRecords, Rejected
from agents.monitor import ClosedDay
from agents.monitor_events import alert_records, dead_letter_records, retrain_event, retrain_record
from agents.monitor_figures import figures_of
from agents.monitor_settings import Facts, MonitorSettings
from agents.monitor_store import ClosedFigures, Request
from agents.run_monitor import RunMonitor
from featurestore.aggregate import Cursor
from featurestore.partition_writer import OutboxRecord
from streams.events import RATINGS
from streams.records import TopicPartition

__all__ = ["ClosedStep"]


@dataclass(slots=True)
class ClosedStep:
    """What is closed and not yet written. cursors: of all partitions; None before a first close. state: of the end."""

    closed: int = 0
    cursors: dict[TopicPartition, Cursor] | None = None
    sources: dict[TopicPartition, set[str]] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    days: list[ClosedFigures] = field(default_factory=list)
    records: list[OutboxRecord] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    state: bytes = b""

    def add(
        self,
        records: DayRecords,
        closed: Sequence[ClosedDay],
        monitor: RunMonitor,
        settings: MonitorSettings,
        facts: Facts,
        *,
        decided: int,
    ) -> None:
        """One more close. decided: event time up to which all that was decided was said by an earlier step."""
        self.closed, self.cursors = records.event_time, records.cursors
        for tp, names in records.sources.items():
            self.sources.setdefault(tp, set()).update(names)
        self.rejected += [one for one in records.rejected if one.topic != RATINGS]
        for number, day in enumerate(closed, 1):
            self.days.append(figures_of(day, monitor, whole=number == len(closed)))
            if day.metrics.event_time > decided:
                self._emit(day, monitor.version, settings, facts)

    def _emit(self, day: ClosedDay, version: str | None, settings: MonitorSettings, facts: Facts) -> None:
        self.records += alert_records(settings.run_id, day)
        if not day.decision.retrain:
            return
        model = settings.model if version is None else facts.kind(version) or settings.model
        event = retrain_event(settings.run_id, model, day)
        self.records.append(retrain_record(event))
        due = day.metrics.event_time + settings.train_delay_s
        self.requests.append(Request(event.id, day.metrics.event_time, due, model))

    def end(self, monitor: RunMonitor, run_id: str) -> None:
        """Nothing more is added; it is to be written."""
        self.state = monitor.to_json()
        self.records += dead_letter_records(run_id, self.rejected)

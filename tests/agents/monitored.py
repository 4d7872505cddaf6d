"""Logs of ratings, impressions and feedback for tests of the monitors: made day by day, read in any portions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from agents.thresholds import Thresholds, default_thresholds
from streams.bus import OffsetRange, TopicInfo
from streams.events import DAY_S, FEEDBACK, IMPRESSIONS, RATINGS, Feedback, Rating, Slate, Tick
from streams.records import RecordBatch, TopicPartition, join_values

DAY_0, LIVE = 14_000, 14_005
TOPICS = (RATINGS, IMPRESSIONS, FEEDBACK)
PUBLISHED_MS = 2 * 10**12

ClicksOf = Callable[[int], int]


def tuned(**rules: dict[str, object]) -> Thresholds:
    """Small samples, windows of a day, only the rules named, no detectors."""
    default = default_thresholds()
    held = {
        name: msgspec.structs.replace(default.rules[name], **({"min_sample": 20, "window_days": 1} | changed))
        for name, changed in rules.items()
    }
    return msgspec.structs.replace(default, rules=held, detectors={}, baseline_days=3, longest_days=60)


@dataclass
class Logs:
    """Values by partition of each topic."""

    partitions: int = 2
    values: dict[TopicPartition, list[bytes]] = field(default_factory=dict)
    ids: dict[TopicPartition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for topic in TOPICS:
            for partition in range(self.partitions):
                self.values[TopicPartition(topic, partition)] = []

    def put(self, topic: str, partition: int, record: msgspec.Struct) -> None:
        tp = TopicPartition(topic, partition)
        if not isinstance(record, Tick):
            self.ids[tp] = self.ids.get(tp, 0) + 1
            source = "run" if topic == RATINGS else f"run/loop/{RATINGS}/{partition}"
            record = msgspec.structs.replace(record, source=source, event_id=self.ids[tp])
        self.values[tp].append(msgspec.json.encode(record))

    def tick(self, day: int, topics: Iterable[str] = TOPICS, *, end: bool = False) -> None:
        """The boundary at the start of ``day``, everywhere."""
        for topic in topics:
            for partition in range(self.partitions):
                self.put(topic, partition, Tick(day * DAY_S, "run", 1, end_of_run=end))

    def day(
        self,
        day: int,
        *,
        n: int = 40,
        clicks: int = 10,
        stars: float = 4.0,
        version: str = "ease-20080101-abcdef",
        slates: bool = True,
        variant_of: Callable[[int], str] = lambda user: "champion",
        clicks_of: Callable[[str], int] | None = None,
        simulated: bool = False,
    ) -> None:
        """The boundary before the day, and its records: ``n`` users, a rating, a slate and a session each."""
        self.tick(day)
        numbers: dict[str, int] = {}
        for user in range(n):
            at, partition = day * DAY_S + 60 * user, user % self.partitions
            self.put(RATINGS, partition, Rating(user, 1 + user % 10, stars, at))
            if not slates or day < LIVE:
                continue
            variant = variant_of(user)
            number = numbers[variant] = numbers.get(variant, 0) + 1
            wanted = clicks if clicks_of is None else clicks_of(variant)
            session = f"{user}-{at}"
            shown = list(range(1, 11))
            self.put(IMPRESSIONS, partition, Slate(session, session, user, variant, version, shown, at))
            told = Feedback(
                *(session, session, user, variant, version, 10),
                clicked=[1] if number <= wanted else [],
                n_ratings=1,
                session_seconds=0,
                timestamp=at + 1_800,
                simulated=simulated,
            )
            self.put(FEEDBACK, partition, told)

    def batches(self, size: int, seed: int = 0, since: dict[TopicPartition, int] | None = None) -> list[RecordBatch]:
        """All from ``since`` on in portions of at most ``size``; partitions take turns as the seed says."""
        random = np.random.default_rng(seed)
        position = dict.fromkeys(self.values, 0) | (since or {})
        found = []
        while waiting := [tp for tp, values in self.values.items() if position[tp] < len(values)]:
            tp = waiting[int(random.integers(len(waiting)))]
            values = self.values[tp][position[tp] : position[tp] + size]
            found.append(batch_of(tp, position[tp], values))
            position[tp] += len(values)
        return found

    def infos(self) -> dict[str, TopicInfo]:
        return {topic: TopicInfo(topic, self.partitions, None, f"log-{topic}") for topic in TOPICS}

    def ranges(self) -> dict[TopicPartition, OffsetRange]:
        return {tp: OffsetRange(0, len(values)) for tp, values in self.values.items()}


def batch_of(tp: TopicPartition, first: int, values: Sequence[bytes]) -> RecordBatch:
    held = list(values)
    offsets = np.arange(first, first + len(held))
    stamps = np.full(len(held), PUBLISHED_MS)
    return RecordBatch(*tp, offsets, stamps, first + len(held), join_values(held), held)


def falling(thresholds_days: int = 8, *, low: int = 5, n: int = 40, simulated: bool = False) -> Logs:
    """Five days of training, a live day of 20 clicks, then ``thresholds_days`` of ``low``."""
    logs = Logs()
    for day in range(DAY_0, LIVE):
        logs.day(day, n=n)
    logs.day(LIVE, n=n, clicks=20, simulated=simulated)
    for day in range(LIVE + 1, LIVE + 1 + thresholds_days):
        logs.day(day, n=n, clicks=low, simulated=simulated)
    logs.tick(LIVE + 1 + thresholds_days, end=True)
    return logs

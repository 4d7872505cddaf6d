"""A small run for tests of the loop: a log over two partitions, a feature store, a registry, and what others report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from agents.alignment import Gate, Progress
from agents.applied_features import Features
from agents.loop_steps import LoopSteps
from agents.loop_store import LoopWriter, loop_url
from agents.serving_plan import ServingPlan
from agents.variants import Experiment, Variant
from featurestore.writer import FeatureWriter
from models.interactions import Interactions
from models.kinds import make_model
from models.registry import Registry, Version
from models.versions import Manifest, write_manifest
from streams.batch import decode_ratings
from streams.bus import OffsetRange, TopicInfo
from streams.events import DAY_S, FEEDBACK, IMPRESSIONS, Feedback, Rating, Slate, Tick
from streams.records import RecordBatch, TopicPartition

T0 = 1_000_080_000 // DAY_S * DAY_S
LIVE = T0 + 10 * DAY_S
END = T0 + 20 * DAY_S
N_USERS, N_MOVIES, PARTITIONS = 24, 400, 2
LOG = TopicInfo("ratings", PARTITIONS, None, "log-1")
PUBLISHED_MS = 2 * 10**12
EXPERIMENT = Experiment(
    "test", (Variant("a", 50, "champion"), Variant("b", 25, "popularity"), Variant("c", 25, "decayed-popularity"))
)
DONE = Progress(monitors_closed=END, initial="done")

R = TypeVar("R", Slate, Feedback)
Record = Rating | Tick
Published = dict[tuple[str, int], list[bytes]]
"""Records by topic and partition."""


def ratings_of_world(seed: int = 0, *, late: int = 8) -> list[Rating]:
    """20 days of sessions, in the order of the log; some ratings come out of order, or late."""
    random = np.random.default_rng(seed)
    ratings: list[tuple[int, int, int]] = []
    for day in range(20):
        for user in range(N_USERS):
            if random.random() < 0.5:
                n = int(random.integers(1, 25))
                times = T0 + day * DAY_S + random.integers(0, DAY_S - 9_000) + np.cumsum(random.integers(0, 400, n))
                ratings += [
                    (int(t), user, int(m))
                    for t, m in zip(times, np.minimum(random.geometric(0.015, n), N_MOVIES), strict=True)
                ]
    ratings.sort()
    for _ in range(late):
        at, back = int(random.integers(len(ratings) // 2, len(ratings) - 40)), int(random.integers(1, 40))
        ratings.insert(at + back, ratings.pop(at))
    stars = random.integers(1, 11, len(ratings)) / 2
    return [
        Rating(user, movie, float(s), t, "run", i)
        for i, ((t, user, movie), s) in enumerate(zip(ratings, stars, strict=True))
    ]


def log_of(ratings: Sequence[Rating]) -> dict[int, list[Record]]:
    """By partition, with a boundary tick for each day on every one, and the end of the run."""
    log: dict[int, list[Record]] = {p: [] for p in range(PARTITIONS)}
    day = -1
    for rating in ratings:
        if rating.timestamp // DAY_S > day:
            day = rating.timestamp // DAY_S
            for part in log.values():
                part.append(Tick(day * DAY_S, "run", rating.event_id))
        log[rating.user_id % PARTITIONS].append(rating)
    for part in log.values():
        part.append(Tick(END, "run", len(ratings), end_of_run=True))
    return log


def batches_of(log: dict[int, list[Record]], size: int) -> list[RecordBatch]:
    """As fetched: in turns, ``size`` records each."""
    found = []
    for first in range(0, max(map(len, log.values())), size):
        for partition, records in log.items():
            part = records[first : first + size]
            if part:
                lines = b"\n".join(map(msgspec.json.encode, part))
                offsets = np.arange(first, first + len(part))
                published = np.full(len(part), PUBLISHED_MS)
                found.append(RecordBatch("ratings", partition, offsets, published, first + len(part), lines))
    return found


def ranges_of(log: dict[int, list[Record]]) -> dict[TopicPartition, OffsetRange]:
    return {TopicPartition("ratings", p): OffsetRange(0, len(records)) for p, records in log.items()}


def add_model(registry: Registry, kind: str, version_id: str, ratings: Sequence[Rating], as_of: int) -> Version:
    """A version that learnt from what came before ``as_of``."""
    known = [r for r in ratings if r.timestamp < as_of]
    columns: list[Any] = [[getattr(r, n) for r in known] for n in ("user_id", "movie_id", "rating", "timestamp")]
    model = make_model(kind).fit(Interactions(*columns))
    manifest = Manifest(
        version_id=version_id,
        kind=kind,
        created_at=datetime.fromtimestamp(as_of, UTC).isoformat(),
        as_of=as_of,
        seed=0,
        hyperparameters=model.hyperparameters,
        n_ratings=len(known),
        n_users=N_USERS,
        n_movies=N_MOVIES,
    )
    with registry.draft() as draft:
        model.save(draft / "version")
        write_manifest(draft / "version", manifest)
        return registry.add(draft / "version")


@dataclass
class World:
    """Everything of a run but the loop, which :meth:`loop` starts, again and again."""

    folder: Path
    ratings: list[Rating] = field(default_factory=ratings_of_world)
    progress: Progress = DONE

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.log = log_of(self.ratings)
        self.registry = Registry(self.folder / "models")
        if not self.registry.audit():
            add_model(self.registry, "popularity", "popularity-0", self.ratings, LIVE)
            add_model(self.registry, "decayed-popularity", "decayed-0", self.ratings, LIVE)
            ease = add_model(self.registry, "ease", "ease-0", self.ratings, LIVE)
            self.registry.promote(ease, by="test", why="first", effective=LIVE)
        self.features = FeatureWriter(self.store_url, agent="features", topic="ratings", run_id="run")
        self.features.assign(LOG, ranges_of(self.log))

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.folder}/features.db"

    def apply_features(self, batches: Sequence[RecordBatch] | None = None) -> None:
        """By default all there is."""
        self.features.apply([decode_ratings(batch) for batch in batches or batches_of(self.log, 1_000)])

    def loop(
        self, gate: Gate | None = None, *, records_at_once: int = 10_000, tells_feedback: bool = True
    ) -> LoopSteps:
        """A loop that goes on from its store; nothing is offered to it yet."""
        steps = LoopSteps(
            LoopWriter(loop_url(self.store_url)),
            Features(self.store_url),
            ServingPlan(self.folder / "models", EXPERIMENT),
            gate or Gate(LIVE),
            progress=lambda: self.progress,
            run_id="run",
            records_at_once=records_at_once,
            tells_feedback=tells_feedback,
        )
        steps.assign(LOG, ranges_of(self.log))
        return steps


def unread(log: dict[int, list[Record]], steps: LoopSteps, size: int) -> list[RecordBatch]:
    """What a consumer would fetch from the loop's offsets on."""
    cursors = steps.writer.cursors
    found = []
    for batch in batches_of(log, size):
        start = cursors[batch.partition].next_offset
        if batch.next_offset > start:
            found.append(batch.slice(max(0, start - batch.first_offset), len(batch)))
    return found


def run_out(steps: LoopSteps) -> None:
    """Do all that may be done."""
    while steps.advance():
        pass


def published(steps: LoopSteps) -> Published:
    """All that lies in the outbox, by topic and partition; it stays there."""
    found: Published = {}
    for row in steps.writer.outgoing(1 << 40):
        found.setdefault((row.topic, row.partition), []).extend(row.lines.split(b"\n"))
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "run")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """What the run gives in one go."""
    return in_one_go(World(tmp_path_factory.mktemp("expected") / "run"))


def in_one_go(world: World) -> Published:
    """What the run gives undisturbed."""
    world.apply_features()
    steps = world.loop()
    steps.offer(batches_of(world.log, 1_000))
    run_out(steps)
    assert not steps.waits
    return published(steps)


def slates_of(found: Published) -> list[Slate]:
    return _told(found, IMPRESSIONS, Slate)


def feedback_of(found: Published) -> list[Feedback]:
    return _told(found, FEEDBACK, Feedback)


def _told(found: Published, topic: str, kind: type[R]) -> list[R]:
    lines = [line for (name, _), lines in found.items() if name == topic for line in lines]
    records = [msgspec.json.decode(line, type=kind | Tick) for line in lines]
    return [record for record in records if isinstance(record, kind)]

"""The demo: a run of its own, the closed loop on it in child processes, watched from the log and the stores alone."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

from featurestore.features import PopularItem
from featurestore.reader import FeatureReader
from featurestore.verify import VerifyReport, verify
from streamlens.children import Child, running
from streamlens.demo_loop import CleanTwin, LoopProgress, loop_environment, loop_progress
from streamlens.loop_story import LoopStory
from streamlens.presence import announced
from streamlens.replay_run import PreparedReplay
from streamlens.run_status import features_status, latest_metrics
from streamlens.settings import Settings
from streams.bus import Bus, open_bus
from streams.errors import StoreMissing
from streams.events import DAY_S, RATINGS
from streams.topics import run_topics

__all__ = ["YEAR_S", "DemoProgress", "DemoSummary", "run_demo"]

YEAR_S = 365 * DAY_S
_LOOK_S = 0.25
_LOOK_AT_LOOP_S = 1.0
_RATE_WINDOW_S = 2.0
_POPULAR = 5


@dataclass(frozen=True, slots=True)
class DemoProgress:
    """What the store and the metrics say now.

    applied, total: ratings. events_per_s: applied, over the last two seconds. clock: event time, seconds since the
    epoch, 0 for none. p50_ms, p99_ms: publishing to stored, over the last half second in which anything came.
    """

    phase: str
    applied: int
    total: int
    events_per_s: float
    lag: int
    clock: int
    late: int
    duplicates: int
    dead_lettered: int
    p50_ms: float | None
    p99_ms: float | None
    loop: LoopProgress | None


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """How it ended. p50_ms, p99_ms: the medians, over the half seconds of the live part, of those quantiles.

    live_s: of the replay's live part. story: what happened in the loop.
    """

    last: DemoProgress
    elapsed_s: float
    live_s: float
    p50_ms: float | None
    p99_ms: float | None
    completed: bool
    report: VerifyReport
    clock: int
    popular: list[PopularItem]
    popular_a_year_ago: list[PopularItem]
    story: LoopStory


@dataclass(slots=True)
class _Watch:
    """Looks at bus and store, and keeps what the summary needs."""

    prepared: PreparedReplay
    settings: Settings
    bus: Bus
    began: float = field(default_factory=time.monotonic)
    live_since: float | None = None
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    p50s: dict[float, float] = field(default_factory=dict)
    p99s: dict[float, float] = field(default_factory=dict)
    replayed_at: float | None = None
    loop: LoopProgress | None = None
    _loop_seen: float = 0.0

    async def look(self) -> DemoProgress:
        held = await self.bus.offsets(RATINGS)
        now = time.monotonic()
        features = features_status(self.prepared.run.store_url, held, time.time())
        applied = features["ratings"] if features else 0
        live = applied >= self.prepared.plan.n_training
        if live and self.live_since is None:
            self.live_since = now
        if self.replayed_at is None and applied >= self.prepared.plan.n_total:
            self.replayed_at = now
        if now >= self._loop_seen + _LOOK_AT_LOOP_S:
            self._loop_seen = now
            run, cutoff = self.prepared.run, self.prepared.plan.split.cutoff
            self.loop = loop_progress(self.settings, run.store_url, run.path / "models", held, cutoff)
        p50, p99 = await self._latencies(live)
        return DemoProgress(
            phase="training" if not live else "live" if self.replayed_at is None else "replayed; the loop goes on",
            applied=applied,
            total=self.prepared.plan.n_total,
            events_per_s=self._rate(now, applied),
            lag=features["lag"] if features else sum(end for _, end in held.values()),
            clock=features["clock"] if features else 0,
            late=features["late"] if features else 0,
            duplicates=features["duplicates"] if features else 0,
            dead_lettered=features["dead_lettered"] if features else 0,
            p50_ms=p50,
            p99_ms=p99,
            loop=self.loop,
        )

    def _rate(self, now: float, applied: int) -> float:
        self.recent.append((now, applied))
        while len(self.recent) > 2 and self.recent[1][0] <= now - _RATE_WINDOW_S:
            self.recent.popleft()
        since, before = self.recent[0]
        return (applied - before) / (now - since) if now > since else 0.0

    async def _latencies(self, live: bool) -> tuple[float | None, float | None]:
        metrics = await latest_metrics(self.bus)
        found: list[float | None] = []
        for quantile, kept in (("p50", self.p50s), ("p99", self.p99s)):
            metric = metrics.get(f"features.latency_ms{{quantile={quantile}}}")
            if metric and live:
                kept[metric["emitted_at"]] = metric["value"]
            found.append(metric["value"] if metric else None)
        return found[0], found[1]


async def run_demo(
    prepared: PreparedReplay,
    settings: Settings,
    stopping: asyncio.Event,
    show: Callable[[DemoProgress], None],
    *,
    pages_port: int | None = None,
) -> DemoSummary | None:
    """Replay ``prepared`` with the closed loop on it until its end, or until ``stopping`` is set; then verify.

    settings: those of the loop, see :func:`streamlens.demo_loop.loop_settings`. pages_port: where the live pages are
    served meanwhile, None for nowhere. None where it was stopped before there
    was a store, so that nothing can be said of it. Raises ChildFailed with what a process said that ended early.
    """
    with announced(
        prepared.run.path, "demo"
    ):  # before there is a log: a worker that waits for one shall leave it to us
        twin = CleanTwin.of(prepared, settings)
        try:
            async with AsyncExitStack() as beside:
                if pages_port is not None:
                    await beside.enter_async_context(_pages(prepared, pages_port))
                return await _replay_and_verify(prepared, settings, twin, stopping, show)
        finally:
            twin.give_up()


async def _replay_and_verify(
    prepared: PreparedReplay,
    settings: Settings,
    twin: CleanTwin,
    stopping: asyncio.Event,
    show: Callable[[DemoProgress], None],
) -> DemoSummary | None:
    run = prepared.run
    async with open_bus(run.bus_url) as bus:
        await bus.create_topics(*run_topics(prepared.options.partitions))
        watch = _Watch(prepared, settings, bus)
        async with AsyncExitStack() as children:
            started = [await children.enter_async_context(child) for child in _children(prepared, settings)]
            twin.start()
            completed = await _watch_until_end(watch, stopping, show, started)
        last = await watch.look()
        show(last)
        ended = time.monotonic()
        if not completed:
            twin.give_up()
        try:
            report = await verify(bus, run.store_url)
        except StoreMissing:
            if completed:
                raise
            return None
        story = await twin.story(bus, settings)
    with FeatureReader(run.store_url) as reader:
        clock = reader.clock()
        popular = reader.popular(YEAR_S, k=_POPULAR)
        before = reader.popular(YEAR_S, as_of=clock - YEAR_S, k=_POPULAR)
    return DemoSummary(
        last=last,
        elapsed_s=ended - watch.began,
        live_s=(watch.replayed_at or ended) - (watch.live_since or ended),
        p50_ms=_median(watch.p50s),
        p99_ms=_median(watch.p99s),
        completed=completed,
        report=report,
        clock=clock,
        popular=popular,
        popular_a_year_ago=before,
        story=story,
    )


def _pages(prepared: PreparedReplay, port: int) -> AbstractAsyncContextManager[Child]:
    """Nobody looks after it: the demo is whole without."""
    run = prepared.run
    command = ("dashboard", "--no-browser", "--port", str(port), "--run", run.run_id)
    return running("pages", run.path / "pages.log", *command)


def _children(prepared: PreparedReplay, settings: Settings) -> list[AbstractAsyncContextManager[Child]]:
    """The trainer first, which is stopped last: it answers what the others may still wait for."""
    run, environment = prepared.run, loop_environment(settings)

    def child(name: str, *arguments: str) -> AbstractAsyncContextManager[Child]:
        command = (*arguments, "--run", run.run_id, "--quiet")
        return running(name, run.path / f"{name}.log", *command, environment=environment)

    return [
        child("trainer", "worker", "--role", "trainer"),
        child("worker", "worker", "--until-end"),
        child("loop", "worker", "--role", "loop", "--until-end"),
        child("monitors", "worker", "--role", "monitors", "--until-end"),
        child("replayer", "replay"),
    ]


async def _watch_until_end(
    watch: _Watch, stopping: asyncio.Event, show: Callable[[DemoProgress], None], children: list[Child]
) -> bool:
    """Show progress until all children but the first, which serves them, are done (True) or ``stopping`` is set
    (False)."""
    while not stopping.is_set():
        show(await watch.look())
        states = [child.finished() for child in children]  # each is asked, so that no failure hides
        if all(states[1:]):
            return True
        try:
            await asyncio.wait_for(stopping.wait(), _LOOK_S)
        except TimeoutError:
            continue
    return False


def _median(values: dict[float, float]) -> float | None:
    return statistics.median(values.values()) if values else None

"""Answers say how old they are, and that they are stale where they are older than their TTL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from featurestore.embeddings import EmbeddingVersion
from featurestore.freshness import (
    VIEWS,
    FreshnessLimits,
    LogAhead,
    StoreProgress,
    embedding_freshness,
    event_age_s,
    view_freshness,
)
from featurestore.log_ahead import log_ahead
from featurestore.reader import AppliedOffset
from streams.bus import Bus, TopicSpec, open_bus
from streams.events import DAY_S, RATINGS, Rating, Tick

T0 = 15_000 * DAY_S
NOW_S = 2_000_000_000.0
LIMITS = FreshnessLimits()
RUNNING, COMPLETE = StoreProgress(T0, complete=False), StoreProgress(T0, complete=True)
NOTHING_WAITS = LogAhead(n_partitions=2)


def waiting(*, seconds: float = 0.0, event_s: int = 0) -> LogAhead:
    """A record that has waited for ``seconds``, ``event_s`` of event time ahead of the store."""
    return LogAhead(2, (int((NOW_S - seconds) * 1_000),), T0 + event_s)


def applied(partition: int = 0, *, next_offset: int = 0, clock: int = T0, end: bool = False) -> AppliedOffset:
    nothing = dict.fromkeys(("ratings", "duplicates", "late", "invalid", "published_ms", "applied_ms"), 0)
    return AppliedOffset("features", RATINGS, partition, "log-1", 1, next_offset, clock, clock, end, **nothing)


@pytest.mark.parametrize("view", VIEWS)
def test_a_store_that_has_applied_all_there_is_is_fresh(view: str) -> None:
    found = view_freshness(view, RUNNING, LIMITS, now_s=NOW_S, ahead=NOTHING_WAITS)
    assert (found.stale, found.event_age_s, found.wall_age_s) == (False, 0, 0.0)


def test_each_view_has_a_ttl_of_its_own_and_keeps_it_to_the_second() -> None:
    for view, ttl_s in (("users", DAY_S), ("items", DAY_S), ("popular", 7 * DAY_S)):
        at_ttl = view_freshness(view, RUNNING, LIMITS, now_s=NOW_S, ahead=waiting(event_s=ttl_s))
        past = view_freshness(view, RUNNING, LIMITS, now_s=NOW_S, ahead=waiting(event_s=ttl_s + 1))
        assert (at_ttl.stale, at_ttl.event_age_s) == (False, ttl_s)
        assert past.stale
        assert past.why == f"{ttl_s / DAY_S:.1f} days of event time behind now"


def test_a_record_that_waits_past_its_ttl_makes_every_view_stale() -> None:
    for view in VIEWS:
        assert not view_freshness(view, RUNNING, LIMITS, now_s=NOW_S, ahead=waiting(seconds=60)).stale
        late = view_freshness(view, RUNNING, LIMITS, now_s=NOW_S, ahead=waiting(seconds=90))
        assert (late.wall_age_s, late.why) == (90.0, "a published record has waited 90 s to be applied")


def test_both_reasons_are_said() -> None:
    both = view_freshness("users", RUNNING, LIMITS, now_s=NOW_S, ahead=waiting(seconds=7_200, event_s=2 * DAY_S))
    assert both.why == "2.0 days of event time behind now; a published record has waited 2.0 h to be applied"


def test_a_complete_run_is_never_stale_by_event_time() -> None:
    """Nothing follows it; a rating that somebody adds after it may still wait too long."""
    ahead = waiting(event_s=900 * DAY_S)
    assert not view_freshness("users", COMPLETE, LIMITS, now_s=NOW_S, ahead=ahead).stale
    assert not view_freshness("users", COMPLETE, LIMITS, now_s=NOW_S, as_of=T0 + 900 * DAY_S).stale
    assert view_freshness("users", COMPLETE, LIMITS, now_s=NOW_S, ahead=waiting(seconds=61)).stale


def test_a_read_of_the_past_is_not_touched_by_what_waits() -> None:
    ahead = waiting(seconds=9_999, event_s=90 * DAY_S)
    past = view_freshness("users", RUNNING, LIMITS, now_s=NOW_S, ahead=ahead, as_of=T0)
    assert (past.stale, past.event_age_s) == (False, 0)
    future = view_freshness("users", RUNNING, LIMITS, now_s=NOW_S, ahead=NOTHING_WAITS, as_of=T0 + 2 * DAY_S)
    assert future.why == "2.0 days of event time behind the time asked for"


def test_without_a_log_only_a_time_that_is_asked_for_has_an_age() -> None:
    unknown = view_freshness("items", RUNNING, LIMITS, now_s=NOW_S)
    assert (unknown.stale, unknown.event_age_s, unknown.wall_age_s) == (False, 0, None)
    assert view_freshness("items", RUNNING, LIMITS, now_s=NOW_S, as_of=T0 + 2 * DAY_S).stale


def test_the_progress_of_a_store_is_that_of_its_slowest_partition() -> None:
    both = [applied(0, clock=T0 + 5, end=True), applied(1, clock=T0)]
    assert StoreProgress.of(both) == StoreProgress(T0, complete=False)
    assert StoreProgress.of([both[0]]) == StoreProgress(T0 + 5, complete=True)
    assert StoreProgress.of([both[0]], NOTHING_WAITS) == StoreProgress(0, complete=False)
    assert StoreProgress.of([]) == StoreProgress(0, complete=False)


@pytest.mark.parametrize(
    ("progress", "as_of", "age_days"),
    [
        (RUNNING, None, 40),  # "now" is the store's clock
        (RUNNING, T0 - 12 * DAY_S, 28),
        (RUNNING, T0 - 50 * DAY_S, 0),
        (RUNNING, T0 + 10 * DAY_S, 50),
        (COMPLETE, T0 + 10 * DAY_S, 40),  # nothing to be known came after the end
    ],
)
def test_embeddings_age_with_the_event_time_asked(progress: StoreProgress, as_of: int | None, age_days: int) -> None:
    version = EmbeddingVersion("user", "mf", "1", T0 - 40 * DAY_S, int(NOW_S * 1_000) - 5_000, 9, 8, "")
    found = embedding_freshness(version, progress, LIMITS, now_s=NOW_S, as_of=as_of)
    assert (found.event_age_s, found.wall_age_s) == (age_days * DAY_S, 5.0)
    assert found.stale == (age_days > 28)
    assert not found.stale or f"{age_days}.0 days" in found.why


@pytest.fixture
async def bus() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        await bus.create_topics(TopicSpec(RATINGS, 2))
        yield bus


async def publish(bus: Bus, partition: int, *records: Rating | Tick | bytes, published_s: float = NOW_S) -> None:
    async with bus.producer() as producer:
        for record in records:
            value = record if isinstance(record, bytes) else msgspec.json.encode(record)
            await producer.send(RATINGS, value, partition=partition, timestamp_ms=int(published_s * 1_000))


async def ahead_of(bus: Bus, *rows: AppliedOffset) -> LogAhead | None:
    log_id = (await bus.topics())[RATINGS].log_id
    return await log_ahead(bus, [replace(row, log_id=log_id) for row in rows])


async def test_what_waits_is_found_on_the_log(bus: Bus) -> None:
    await publish(bus, 0, Rating(1, 1, 3.0, T0), published_s=NOW_S - 9)
    await publish(bus, 0, Rating(1, 2, 3.0, T0 + 50), Tick(T0 + 60), published_s=NOW_S - 5)
    await publish(bus, 1, Rating(2, 1, 3.0, T0 + 70), published_s=NOW_S - 2)
    rows = [applied(0, next_offset=1), applied(1, next_offset=1)]
    assert await ahead_of(bus, *rows) == LogAhead(2, (int(NOW_S - 5) * 1_000,), T0 + 60)
    all_applied = [applied(0, next_offset=3), applied(1, next_offset=1)]
    assert await ahead_of(bus, *all_applied) == NOTHING_WAITS
    no_store = await ahead_of(bus)
    assert no_store is not None
    assert len(no_store.waiting_since_ms) == 2
    assert no_store.newest_event_time == T0 + 70


async def test_garbage_and_a_rating_from_years_ahead_move_no_time(bus: Bus) -> None:
    usual = [Rating(1, n, 3.0, T0 + n) for n in range(9)]
    await publish(bus, 0, *usual, Rating(1, 1, 3.0, T0 + 3_000 * DAY_S), b"garbage")
    ahead = await ahead_of(bus, applied(0), applied(1))
    assert ahead is not None
    assert event_age_s(RUNNING, ahead) < 10


async def test_another_log_or_none_tells_nothing_of_the_store(bus: Bus) -> None:
    assert await log_ahead(bus, [applied(0)]) is None
    async with open_bus("memory://") as empty:
        assert await log_ahead(empty, []) is None

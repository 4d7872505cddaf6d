"""The loop's core finds the sessions, slates and clicks that offline evaluation finds, however the stream is cut."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.loop_store import _packed, _session
from agents.sessions import Boundary, LiveRatings, PartitionSessions, Session, ShownSlate
from models.slates import SESSION_GAP_S, SLATE_SIZE, clicked_slates, find_sessions
from streams.ticks import boundary_ticks

T0 = 1_000_000_000
N_MOVIES = 14


def fixed_list(user_id: int, timestamp: int, n_before: int) -> list[int]:
    """A model that is nothing but a hash."""
    seed = zlib.crc32(f"{user_id}/{timestamp}/{n_before}".encode())
    listed: list[int] = np.random.default_rng(seed).permutation(N_MOVIES)[:SLATE_SIZE].tolist()
    return listed


Told = list[tuple[object, ...]]


def told_by(sessions: PartitionSessions, ratings: LiveRatings) -> tuple[Told, int]:
    """What a step tells, as plain values."""
    step = sessions.begin(ratings)
    for slate in step.due:
        slate.movie_ids = fixed_list(slate.session.user_id, slate.timestamp, slate.n_before)
    step.finish()
    told: Told = []
    for one in step.told:
        if isinstance(one, ShownSlate):
            told.append(("slate", one.slate_id, one.timestamp, one.moment))
        elif isinstance(one, Session):
            clicked = [(slate.slate_id, tuple(slate.clicked)) for slate in one.slates]
            told.append(("closed", one.session_id, one.n, one.last, tuple(clicked)))
        else:
            told.append(("boundary", one.event_time, one.ends_run))
    return told, step.late


def restarted(sessions: PartitionSessions) -> PartitionSessions:
    """As from the store."""
    kept = [_session(s.user_id, s.start, s.last, s.n, _packed(s)) for s in sessions.open.values()]
    kept.sort(key=lambda session: session.user_id)
    return PartitionSessions(kept, closed=sessions.closed, live_from=sessions.live_from)


def stream_of(users: np.ndarray, movies: np.ndarray, times: np.ndarray) -> LiveRatings:
    """With a boundary tick before each day's first rating, and the end."""
    ticks = boundary_ticks(times, None)
    boundaries = [
        (int(at), Boundary(int(time), False)) for at, time in zip(ticks.position, ticks.event_time, strict=True)
    ]
    boundaries.append((len(users), Boundary(int(times[-1]) // 86_400 * 86_400 + 86_400, True)))
    return LiveRatings(users.tolist(), movies.tolist(), times.tolist(), boundaries)


def parts_of(stream: LiveRatings, cuts: list[int]) -> list[LiveRatings]:
    """The stream cut before the ratings ``cuts``; a tick there goes to the part before."""
    parts = []
    edges = [0, *cuts, len(stream.user_ids)]
    for first, end in pairwise(edges):
        columns = (column[first:end] for column in (stream.user_ids, stream.movie_ids, stream.timestamps))
        own = [(at - first, tick) for at, tick in stream.boundaries if first < at <= end or (at == first == 0)]
        parts.append(LiveRatings(*columns, own))
    return parts


@st.composite
def streams(draw: st.DrawFn) -> LiveRatings:
    n = draw(st.integers(1, 120))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    gap = random.choice([0, 1, 60, 900, SESSION_GAP_S - 1, SESSION_GAP_S, SESSION_GAP_S + 1, 90_000], n)
    return stream_of(random.integers(0, 4, n), random.integers(0, N_MOVIES, n), T0 + np.cumsum(gap))


@given(streams())
def test_slates_and_clicks_are_those_of_offline_evaluation(stream: LiveRatings) -> None:
    told, late = told_by(PartitionSessions(), stream)
    users, movies, times = (np.array(c) for c in (stream.user_ids, stream.movie_ids, stream.timestamps))
    sessions = find_sessions(users, times)
    at = sessions.triggers
    ids, lists = [], []
    for i in at.tolist():
        n_before = int(sessions.n_before[i])
        start = int(times[sessions.session == sessions.session[i]].min())
        ids.append(f"{users[i]}-{start}-{n_before}")
        lists.append(fixed_list(int(users[i]), int(times[i]), n_before))
    clicked = clicked_slates(sessions.session, movies, sessions.session[at], at, np.array(lists))
    expected = {slate_id: tuple(movies[clicked == k].tolist()) for k, slate_id in enumerate(ids)}
    assert late == 0
    assert [slate_id for kind, slate_id, *_ in told if kind == "slate"] == ids
    closed = [one for one in told if one[0] == "closed"]
    assert {slate_id: clicks for *_, slates in closed for slate_id, clicks in slates} == expected  # type: ignore[attr-defined]
    assert sum(int(one[2]) for one in closed) == len(users)  # type: ignore[call-overload]


@given(streams(), st.data())
def test_cuts_and_restarts_change_nothing(stream: LiveRatings, data: st.DataObject) -> None:
    shuffled = data.draw(st.booleans())
    if shuffled:  # ratings out of order, and some late
        order = np.random.default_rng(len(stream.user_ids)).permutation(len(stream.user_ids))
        columns = ([column[i] for i in order] for column in (stream.user_ids, stream.movie_ids, stream.timestamps))
        stream = LiveRatings(*columns, stream.boundaries)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream.user_ids)))))
    whole = told_by(PartitionSessions(), stream)
    sessions, told, late = PartitionSessions(), [], 0
    for part in parts_of(stream, cuts):
        more, n_late = told_by(sessions, part)
        told += more
        late += n_late
        if data.draw(st.booleans()):
            sessions = restarted(sessions)
    assert (told, late) == whole
    assert not sessions.open


def rated(*ratings: tuple[int, int] | Boundary) -> LiveRatings:
    """Ratings of user 1 as (movie, seconds after T0), and boundaries, in log order."""
    users, movies, times, boundaries = [], [], [], []
    for one in ratings:
        if isinstance(one, Boundary):
            boundaries.append((len(users), one))
        else:
            users.append(1)
            movies.append(one[0])
            times.append(T0 + one[1])
    return LiveRatings(users, movies, times, boundaries)


def test_one_within_the_session_belongs_to_it_though_it_comes_out_of_order() -> None:
    told, late = told_by(
        PartitionSessions(), rated((1, 0), (2, 1_000), (3, 500), (4, 2_700), Boundary(T0 + 9_000, False))
    )
    (closed,) = (one for one in told if one[0] == "closed")
    assert closed[1:4] == (f"1-{T0}", 4, T0 + 2_700)
    assert late == 0


@pytest.mark.parametrize(
    "ratings",
    [
        [(1, 5_000), (2, 4_999)],
        [(1, 5_000), (2, 0)],
        [(1, 5_000), Boundary(T0 + 10_000, False), (2, 9_999)],
        [Boundary(T0 + 10_000, False), (1, 9_999)],
    ],
    ids=["just before its session", "long before", "after its session was closed", "without a session"],
)
def test_a_late_rating_triggers_clicks_and_closes_nothing(ratings: list[tuple[int, int] | Boundary]) -> None:
    without = told_by(PartitionSessions(), rated(*ratings[:-1], Boundary(T0 + 90_000, False)))
    told, late = told_by(PartitionSessions(), rated(*ratings, Boundary(T0 + 90_000, False)))
    assert (told, late) == (without[0], 1)


@pytest.mark.parametrize(("over_at", "closed"), [(0, True), (1, False)])
def test_a_boundary_closes_what_is_over_by_then(over_at: int, closed: bool) -> None:
    end = T0 + SESSION_GAP_S - over_at
    told, _ = told_by(PartitionSessions(), rated((1, 0), Boundary(end, False)))
    assert ([one[0] for one in told][1:] == ["closed", "boundary"]) == closed


def test_a_tick_that_falls_opens_nothing_again() -> None:
    """As of another run that was appended to the log."""
    ticks = (Boundary(T0 + 90_000, False), Boundary(T0 + 10_000, False))
    told, late = told_by(PartitionSessions(), rated((1, 0), *ticks, (2, 20_000)))
    assert ([one[0] for one in told], late) == (["slate", "closed", "boundary", "boundary"], 1)


def test_the_end_of_the_run_closes_all() -> None:
    told, _ = told_by(PartitionSessions(), rated((1, 0), Boundary(T0 + 1, True)))
    assert [one[0] for one in told] == ["slate", "closed", "boundary"]


def test_who_serves_is_decided_by_the_boundary_before_and_the_start_of_the_live_part() -> None:
    sessions = PartitionSessions(live_from=T0)
    told, _ = told_by(sessions, rated((1, 0), Boundary(T0 + 10_000, False), (1, 10_000)))
    assert [one[3] for one in told if one[0] == "slate"] == [T0, T0 + 10_000]


def test_the_store_keeps_a_session_as_it_is() -> None:
    session = Session(7, T0, T0 + 5, 12)
    session.show(ShownSlate(session, 0, T0, 0, T0, "a", "v1", [1, 2, 3], [2]))
    session.show(ShownSlate(session, 10, T0 + 4, 0, T0, "a", "v1", [2, 3, 4], [4]))
    again = _session(7, T0, T0 + 5, 12, _packed(session))
    assert again.shown == session.shown == {1: 0, 2: 1, 3: 1, 4: -1}

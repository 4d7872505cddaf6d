"""The pure core of the loop: sessions in event time, when slates are due, which ratings click them, what came of each.

One :class:`PartitionSessions` holds the open sessions of a partition. A step takes ratings in log order with the
boundary ticks between them: :meth:`PartitionSessions.begin` finds the slates that are due, whoever makes them fills
them in, and :meth:`Step.finish` tells everything in the order of the log. Results are the same however a log is cut
into steps. What sessions, slates and clicks are: :mod:`models.slates`.

Ratings may come out of order. One within its user's open session belongs to it; one from before that session's start is
late, and so is one from before the last boundary tick where its user has no open session: it triggers, clicks and
closes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from models.slates import SESSION_GAP_S, SLATE_EVERY

__all__ = ["Boundary", "LiveRatings", "PartitionSessions", "Session", "ShownSlate", "Step"]


@dataclass(slots=True, eq=False)
class ShownSlate:
    """A slate of a session. n_before: ratings of the session before the one that triggered it, at ``timestamp``.

    at: position of that rating within its step. moment: event time of the last boundary tick before it, or of the end
    of the training part where that is later: which models serve is decided by it. variant, model_version, movie_ids:
    filled in by whoever makes the list. clicked: those of the movies that were, in that order.
    """

    session: Session
    n_before: int
    timestamp: int
    at: int
    moment: int
    variant: str = ""
    model_version: str = ""
    movie_ids: list[int] = field(default_factory=list)
    clicked: list[int] = field(default_factory=list)

    @property
    def slate_id(self) -> str:
        return f"{self.session.session_id}-{self.n_before}"


class Session:
    """An open session. start, last: event times of its first and its latest rating; n: how many it has.

    shown: of each movie shown, the place of the newest slate that shows it, -1 once it was clicked there.
    """

    __slots__ = ("last", "n", "shown", "slates", "start", "user_id")

    def __init__(self, user_id: int, start: int, last: int, n: int) -> None:
        self.user_id = user_id
        self.start = start
        self.last = last
        self.n = n
        self.slates: list[ShownSlate] = []
        self.shown: dict[int, int] = {}

    @property
    def session_id(self) -> str:
        return f"{self.user_id}-{self.start}"

    @property
    def over_at(self) -> int:
        """Event time from which on no rating can belong to it."""
        return self.last + SESSION_GAP_S

    def show(self, slate: ShownSlate) -> None:
        """From now on ``slate`` is its newest; what it has been clicked for already counts."""
        place = len(self.slates)
        self.slates.append(slate)
        for movie_id in slate.movie_ids:
            self.shown[movie_id] = place
        for movie_id in slate.clicked:
            self.shown[movie_id] = -1


class Boundary(NamedTuple):
    """A boundary tick."""

    event_time: int
    ends_run: bool


@dataclass(frozen=True, slots=True)
class LiveRatings:
    """Ratings of one partition that count, in log order, and ``boundaries`` as (how many stand before it, tick)."""

    user_ids: list[int]
    movie_ids: list[int]
    timestamps: list[int]
    boundaries: list[tuple[int, Boundary]]


Told = ShownSlate | Session | Boundary
"""A slate made, a session closed, a boundary passed."""


@dataclass(slots=True, eq=False)
class Step:
    """What happened, in the order of the log: ``told`` holds each slate where it is due, each session where it closes,
    and each boundary. due: the slates, to be filled in before :meth:`finish`. late: ratings that were. touched: the
    users whose open session may have changed.
    """

    movie_ids: list[int]
    owners: list[Session | None]
    told: list[Told]
    due: list[ShownSlate]
    late: int
    touched: dict[int, None]

    def finish(self) -> None:
        """Find the clicks: what is ``told`` is complete then."""
        waiting = iter(self.due)
        slate = next(waiting, None)
        for at, (session, movie_id) in enumerate(zip(self.owners, self.movie_ids, strict=True)):
            if session is None:
                continue
            if slate is not None and slate.at == at:
                session.show(slate)
                slate = next(waiting, None)
            place = session.shown.get(movie_id, -1)
            if place >= 0:
                session.slates[place].clicked.append(movie_id)
                session.shown[movie_id] = -1


class PartitionSessions:
    """The open sessions of a partition by user. closed: event time of the last boundary tick. live_from: event time of
    the end of the training part, ratings from before which make no session; they are not to be given.
    """

    def __init__(self, sessions: Iterable[Session] = (), *, closed: int = 0, live_from: int = 0) -> None:
        self.open = {session.user_id: session for session in sessions}
        self.closed = closed
        self.live_from = live_from

    def begin(self, ratings: LiveRatings) -> Step:
        """Place the ratings into sessions. Open sessions are as after the step from then on, but for its slates."""
        step = Step(ratings.movie_ids, [], [], [], 0, {})
        first = 0
        for position, boundary in ratings.boundaries:
            self._place(step, ratings, first, position)
            first = position
            self._pass(step, boundary)
        self._place(step, ratings, first, len(ratings.user_ids))
        return step

    def _place(self, step: Step, ratings: LiveRatings, first: int, end: int) -> None:
        """Ratings ``first`` to ``end``, between two boundaries. A loop that many million ratings go through."""
        if first == end:
            return
        sessions, owners, told, due = self.open, step.owners, step.told, step.due
        closed, moment = self.closed, max(self.closed, self.live_from)
        users, times = ratings.user_ids[first:end], ratings.timestamps[first:end]
        for at, user_id, timestamp in zip(range(first, end), users, times, strict=True):
            session = sessions.get(user_id)
            if session is not None and timestamp < session.last + SESSION_GAP_S:
                if timestamp < session.start:
                    owners.append(None)
                    step.late += 1
                    continue
                if timestamp > session.last:
                    session.last = timestamp
                n_before = session.n
                session.n = n_before + 1
            elif session is None and timestamp < closed:
                owners.append(None)
                step.late += 1
                continue
            else:
                if session is not None:
                    told.append(session)
                session = sessions[user_id] = Session(user_id, timestamp, timestamp, 1)
                n_before = 0
            owners.append(session)
            if n_before % SLATE_EVERY == 0:
                slate = ShownSlate(session, n_before, timestamp, at, moment)
                told.append(slate)
                due.append(slate)
        step.touched.update(dict.fromkeys(users))

    def _pass(self, step: Step, boundary: Boundary) -> None:
        """Close what is over by the boundary, the one that was over first first; at the end of the run, all."""
        self.closed = max(self.closed, boundary.event_time)
        over = [s for s in self.open.values() if s.over_at <= boundary.event_time or boundary.ends_run]
        over.sort(key=attrgetter("over_at", "user_id"))
        for session in over:
            del self.open[session.user_id]
            step.touched[session.user_id] = None
        step.told += over
        step.told.append(boundary)

"""A partition's part of a step of the loop: its records taken through its sessions, and what that changes in the store.

Pure but for the sessions, which are as after the step from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agents.alignment import Gate, needed_boundary
from agents.backlog import Backlog, Waiting, pass_times
from agents.lines import Lines
from agents.loop_store import LoopChanges, PartitionState
from agents.sessions import Boundary, LiveRatings, PartitionSessions, Step
from agents.slate_records import records_of
from agents.tally import Tally
from featurestore.aggregate import Cursor, admit
from streams.records import Int64s

__all__ = ["HeldPartition", "Part", "part_of"]


@dataclass(slots=True)
class HeldPartition:
    """What is known of a partition that is held. entered: event time up to which nothing need be waited for any more.

    waits: what its next record waits for. tallies, boundaries, stored_users: as they are in the store.
    """

    backlog: Backlog
    sessions: PartitionSessions
    tallies: dict[str, Tally]
    boundaries: list[int]
    stored_users: set[int]
    entered: int = -1
    waits: str = ""

    @classmethod
    def of(cls, state: PartitionState, closed: int, live_from: int, backlog: Backlog) -> HeldPartition:
        sessions = PartitionSessions(state.sessions, closed=closed, live_from=live_from)
        return cls(backlog, sessions, state.tallies, state.boundaries, set(sessions.open))

    def committed(self, changes: LoopChanges) -> None:
        """The store holds ``changes`` now."""
        self.tallies |= changes.tallies
        self.stored_users = set(self.sessions.open)
        gone = set(changes.forgotten)
        self.boundaries = [b for b in (*self.boundaries, *changes.boundaries) if b not in gone]


@dataclass(slots=True)
class Part:
    """after: the partition's cursor then. Columns (n,) of its live ratings. records, gained: of the finished step."""

    after: Cursor
    sources: set[str]
    step: Step
    movie_ids: Int64s
    half_stars: Int64s
    published_ms: Int64s
    n_records: int
    records: list[Lines] = field(default_factory=list)
    gained: dict[str, Tally] = field(default_factory=dict)

    def finish(self, source: str, *, tells: bool) -> None:
        """Once all its slates are filled in: find the clicks, and put everything down as records.

        source, tells: as :func:`agents.slate_records.records_of` has them.
        """
        self.step.finish()
        self.records, emitted, self.gained = records_of(self.step, source, self.after.emitted, tells=tells)
        self.after = replace(self.after, emitted=emitted)

    def changes(self, held: HeldPartition, gate: Gate) -> LoopChanges:
        """Of a finished part, what is to be stored."""
        sessions, touched = held.sessions.open, self.step.touched
        passed = list(held.boundaries)
        told = (one.event_time for one in self.step.told if isinstance(one, Boundary))
        pass_times(told, passed[-1] if passed else 0, passed)
        needed = needed_boundary(passed, held.sessions.closed, gate.train_delay_s) or 0
        known = set(held.boundaries)
        return LoopChanges(
            sessions=[sessions[user] for user in touched if user in sessions],
            closed_users=[user for user in touched if user in held.stored_users and user not in sessions],
            tallies={variant: held.tallies.get(variant, Tally()) + gain for variant, gain in self.gained.items()},
            boundaries=[b for b in passed if b >= needed and b not in known],
            forgotten=[b for b in held.boundaries if b < needed],
            records=self.records,
        )

    @property
    def slates_published_ms(self) -> Int64s:
        """When the rating that triggered each slate was published."""
        return self.published_ms[[slate.at for slate in self.step.due]]


def part_of(held: HeldPartition, cursor: Cursor, waiting: Sequence[Waiting]) -> Part:
    """Take the partition's sessions through what waits of it, from the cursor on."""
    columns: list[list[Int64s]] = []
    boundaries: list[tuple[int, Boundary]] = []
    sources: set[str] = set()
    n = n_records = 0
    for one in waiting:
        batch = one.batch
        admitted = admit(batch, cursor, lateness_s=0)
        live = admitted.counts & (batch.timestamp >= held.sessions.live_from)
        n_before = np.concatenate(([0], np.cumsum(live)))
        for i in np.flatnonzero(batch.tick_boundary & (batch.tick_offset >= cursor.next_offset)).tolist():
            tick = Boundary(int(batch.tick_time[i]), bool(batch.tick_ends_run[i]))
            boundaries.append((n + int(n_before[batch.tick_position[i]]), tick))
        own = (batch.user_id, batch.movie_id, batch.timestamp, batch.half_stars, one.published_ms)
        columns.append([column[live] for column in own])
        n += int(n_before[-1])
        n_records += batch.next_offset - max(batch.first_offset, cursor.next_offset)
        sources.update(batch.sources)
        cursor = replace(admitted.after, late=cursor.late, invalid=cursor.invalid)
    users, movies, times, half_stars, published_ms = (np.concatenate(own) for own in zip(*columns, strict=True))
    step = held.sessions.begin(LiveRatings(users.tolist(), movies.tolist(), times.tolist(), boundaries))
    cursor = replace(cursor, late=cursor.late + step.late)
    return Part(cursor, sources, step, movies, half_stars, published_ms, n_records)

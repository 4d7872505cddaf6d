"""The loop's work: ratings in, slates and feedback out, one transaction for all that may be done at once.

Records wait here for their turn: until the features agent has applied them, and in aligned mode until monitors and
trainer are far enough. A partition that waits holds up no other one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agents.alignment import Features, Progress, ProgressReader, needed_boundary, waits_for
from agents.backlog import Backlog, Taken, Waiting, pass_times
from agents.lines import Lines
from agents.loop_stats import LoopStats
from agents.loop_store import LOOP, LoopChanges, LoopWriter
from agents.serving_plan import ServingPlan
from agents.sessions import Boundary, LiveRatings, PartitionSessions, ShownSlate, Step
from agents.slate_lists import fill_slates
from agents.slate_records import records_of
from agents.tally import Tally, add_tallies
from featurestore.aggregate import Cursor, admit
from streams.bus import OffsetRange, TopicInfo
from streams.errors import StoreUnavailable
from streams.records import Int64s, RecordBatch, TopicPartition

__all__ = ["NO_CHAMPION", "Gate", "LoopSteps"]

NO_CHAMPION = "a champion: the trainer makes one, and so does `streamlens train --model NAME --promote`"


@dataclass(frozen=True, slots=True)
class Gate:
    """How far the loop may go. live_from: event time at which the training part ends. aligned: see
    :mod:`agents.alignment`; else who serves is who is champion now. train_delay_s: from a retrain event to its answer.
    """

    live_from: int = 0
    aligned: bool = True
    train_delay_s: int = 86_400


@dataclass(slots=True)
class _Partition:
    """What is known of a held partition. entered: event time up to which nothing need be waited for any more.

    waits: what its next record waits for. tallies, boundaries, stored_users: as they are in the store.
    """

    backlog: Backlog
    sessions: PartitionSessions
    tallies: dict[str, Tally]
    boundaries: list[int]
    stored_users: set[int]
    entered: int = -1
    waits: str = ""


@dataclass(slots=True)
class _Part:
    """A partition's part of a step. after: its cursor then. Columns (n,) of its live ratings."""

    after: Cursor
    sources: set[str]
    step: Step
    movie_ids: Int64s
    half_stars: Int64s
    published_ms: Int64s
    n_records: int
    records: list[Lines] = field(default_factory=list)
    gained: dict[str, Tally] = field(default_factory=dict)


class LoopSteps:
    """One thread at a time, which may be another each time; :meth:`offer` and what only tells may be called meanwhile.

    records_at_once: about the most of a partition in one step. progress: how far monitors and trainer are.
    tells_feedback: whether what came of the slates is told here, or by others.
    """

    def __init__(
        self,
        writer: LoopWriter,
        features: Features,
        plan: ServingPlan,
        gate: Gate,
        *,
        progress: Callable[[], Progress],
        close_progress: Callable[[], None] = lambda: None,
        run_id: str = "",
        records_at_once: int = 10_000,
        tells_feedback: bool = True,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.writer = writer
        self.gate = gate
        self.stats = LoopStats()
        self._features = features
        self._plan = plan
        self._progress = progress
        self._close_progress = close_progress
        self._run_id = run_id
        self._records_at_once = records_at_once
        self._tells_feedback = tells_feedback
        self._wall_ms = wall_ms
        self._held: dict[int, _Partition] = {}

    @classmethod
    def of_store(
        cls,
        store_url: str,
        writer: LoopWriter,
        plan: ServingPlan,
        gate: Gate,
        *,
        run_id: str = "",
        records_at_once: int = 10_000,
        tells_feedback: bool = True,
    ) -> LoopSteps:
        """Beside the feature store at ``store_url``, and the stores of monitors and trainer there."""
        progress = ProgressReader(store_url)
        return cls(
            writer,
            Features(store_url),
            plan,
            gate,
            progress=progress.read,
            close_progress=progress.close,
            run_id=run_id,
            records_at_once=records_at_once,
            tells_feedback=tells_feedback,
        )

    # Partitions

    def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        start = self.writer.assign(log, ranges)
        self._held |= {tp.partition: self._load(tp.partition, Backlog()) for tp in ranges}
        return start

    def _load(self, partition: int, backlog: Backlog) -> _Partition:
        state, cursor = self.writer.load(partition), self.writer.cursors[partition]
        sessions = PartitionSessions(state.sessions, closed=cursor.closed, live_from=self.gate.live_from)
        return _Partition(backlog, sessions, state.tallies, state.boundaries, set(sessions.open))

    def release(self, partitions: Iterable[int]) -> None:
        """Do nothing more for these partitions, and forget what waits of them."""
        gone = set(partitions)
        self.writer.release(gone)
        self._held = {p: held for p, held in self._held.items() if p not in gone}

    def close(self) -> None:
        self._features.close()
        self._close_progress()
        self.writer.close()

    def offer(self, batches: Iterable[RecordBatch]) -> None:
        """Let them wait for their turn; those of partitions that are not held are left alone."""
        for batch in batches:
            if (held := self._held.get(batch.partition)) is not None:
                held.backlog.add(batch)

    @property
    def waits(self) -> dict[int, str]:
        """What each partition waits for whose records do; empty for the next step."""
        return {p: held.waits for p, held in self._held.items() if held.backlog}

    @property
    def backlogs(self) -> dict[int, int]:
        """How many records of each partition wait."""
        return {p: held.backlog.n_records for p, held in self._held.items()}

    @property
    def tallies(self) -> dict[str, Tally]:
        """Counts of each variant by its name, of the partitions held, over the store's life."""
        return add_tallies([dict(held.tallies) for held in self._held.values()])

    # A step

    def advance(self) -> bool:
        """Do what may be done now, in one transaction; False where nothing may.

        Raises what a PartitionWriter does; then all is as it was before, and the same call may be made again.
        """
        held = {p: one for p, one in sorted(self._held.items()) if one.backlog}
        if not held:
            return False
        try:
            progress = self._progress() if self.gate.aligned else Progress()
        except StoreUnavailable as error:
            for one in held.values():
                one.waits = str(error)
            return False
        self._plan.refresh()  # after the progress: what an answer has decided is there
        applied = self._features.applied()
        taken = {p: self._take(p, one, applied.get(p, 0), progress) for p, one in held.items()}
        parts = {p: one.parts for p, one in taken.items() if one.parts}
        if not parts:
            return False
        done = False
        try:
            done = self._step(parts)
        finally:
            if done:
                for partition in parts:
                    held[partition].backlog.done(taken[partition])
            else:  # what the step has changed in memory is read again
                self._reload(parts)
        return True

    def _reload(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if partition in self.writer.cursors:
                self._held[partition] = self._load(partition, self._held[partition].backlog)

    def _take(self, partition: int, held: _Partition, applied: int, progress: Progress) -> Taken:
        def enter(moment: int, boundaries: Sequence[int]) -> str:
            if moment <= held.entered:
                return ""
            why = self._waits_for(moment, boundaries, progress)
            if not why and self.gate.aligned:
                held.entered = moment
            return why

        taken = held.backlog.take(
            self.writer.cursors[partition],
            applied=applied,
            most=self._records_at_once,
            live_from=self.gate.live_from,
            boundaries=held.boundaries,
            enter=enter,
        )
        held.waits = taken.why
        return taken

    def _waits_for(self, moment: int, boundaries: Sequence[int], progress: Progress) -> str:
        if not self.gate.aligned:
            return "" if self._plan.at(None) else NO_CHAMPION
        why = waits_for(moment, boundaries, progress, train_delay_s=self.gate.train_delay_s)
        return why or ("" if self._plan.at(moment) else f"{NO_CHAMPION}; its first training left none")

    def _step(self, taken: Mapping[int, Sequence[Waiting]]) -> bool:
        """False where the store was further than this loop knew, by its own doing: nothing was done then."""
        parts = {p: self._part(p, waiting) for p, waiting in taken.items()}
        self._make_lists(parts)
        after, changes = self.writer.cursors, {}
        for partition, part in parts.items():
            part.step.finish()
            source = f"{self._run_id}/{LOOP}/{self.writer.topic}/{partition}"
            part.records, emitted, part.gained = records_of(
                part.step, source, part.after.emitted, tells=self._tells_feedback
            )
            after[partition] = replace(part.after, emitted=emitted)
            changes[partition] = self._changes(self._held[partition], part)
        if not self.writer.commit_step(after, {p: part.sources for p, part in parts.items()}, changes):
            return False
        for partition in parts:
            held = self._held[partition]
            held.tallies |= changes[partition].tallies
            held.stored_users = set(held.sessions.open)
            gone = set(changes[partition].forgotten)
            held.boundaries = [b for b in (*held.boundaries, *changes[partition].boundaries) if b not in gone]
        published_ms = [part.published_ms[[slate.at for slate in part.step.due]] for part in parts.values()]
        self.stats.add(sum(part.n_records for part in parts.values()), self._wall_ms() - np.concatenate(published_ms))
        return True

    def _part(self, partition: int, waiting: Sequence[Waiting]) -> _Part:
        """Take the partition's sessions through what waits."""
        cursor = self.writer.cursors[partition]
        columns: list[list[Int64s]] = []
        boundaries: list[tuple[int, Boundary]] = []
        sources: set[str] = set()
        n = n_records = 0
        for one in waiting:
            batch = one.batch
            admitted = admit(batch, cursor, lateness_s=0)
            live = admitted.counts & (batch.timestamp >= self.gate.live_from)
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
        ratings = LiveRatings(users.tolist(), movies.tolist(), times.tolist(), boundaries)
        step = self._held[partition].sessions.begin(ratings)
        cursor = replace(cursor, late=cursor.late + step.late)
        return _Part(cursor, sources, step, movies, half_stars, published_ms, n_records)

    def _make_lists(self, parts: Mapping[int, _Part]) -> None:
        """Fill in all slates that are due; every user's ratings are read once."""
        due = {p: part for p, part in parts.items() if part.step.due}
        for partition, part in due.items():
            users = {slate.session.user_id for slate in part.step.due}
            logged = self._features.histories(sorted(users), partition)
            of_version: dict[str, list[ShownSlate]] = {}
            for slate in part.step.due:
                slate.variant = self._plan.experiment.variant_of(slate.session.user_id).name
                slate.model_version = self._versions_at(slate.moment)[slate.variant]
                of_version.setdefault(slate.model_version, []).append(slate)
            for version_id, slates in of_version.items():
                fill_slates(self._plan.model(version_id), logged, slates, part.movie_ids, part.half_stars)

    def _versions_at(self, moment: int) -> Mapping[str, str]:
        found = self._plan.at(moment if self.gate.aligned else None)
        if found is None:
            raise StoreUnavailable(f"loop: expected {NO_CHAMPION}; the one there was is gone")
        return found

    def _changes(self, held: _Partition, part: _Part) -> LoopChanges:
        sessions, touched = held.sessions.open, part.step.touched
        passed = list(held.boundaries)
        told = (one.event_time for one in part.step.told if isinstance(one, Boundary))
        pass_times(told, passed[-1] if passed else 0, passed)
        needed = needed_boundary(passed, held.sessions.closed, self.gate.train_delay_s) or 0
        known = set(held.boundaries)
        tallies = {variant: held.tallies.get(variant, Tally()) + gain for variant, gain in part.gained.items()}
        return LoopChanges(
            sessions=[sessions[user] for user in touched if user in sessions],
            closed_users=[user for user in touched if user in held.stored_users and user not in sessions],
            tallies=tallies,
            boundaries=[b for b in passed if b >= needed and b not in known],
            forgotten=[b for b in held.boundaries if b < needed],
            records=part.records,
        )

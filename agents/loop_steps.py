"""The loop's work: ratings in, slates and feedback out, one transaction for all that may be done at once.

Records wait here for their turn: until the features agent has applied them, and in aligned mode until monitors and
trainer are far enough. A partition that waits holds up no other one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from agents.alignment import NO_CHAMPION, Gate, Progress, no_champion, waits_for
from agents.applied_features import Features
from agents.backlog import Backlog, Taken, Waiting
from agents.loop_part import HeldPartition, Part, part_of
from agents.loop_stats import LoopStats
from agents.loop_store import LOOP, LoopWriter
from agents.progress_reader import ProgressReader
from agents.serving_plan import ServingPlan
from agents.sessions import ShownSlate
from agents.slate_lists import fill_slates
from agents.tally import Tally, add_tallies
from streams.bus import OffsetRange, TopicInfo
from streams.errors import StoreUnavailable
from streams.records import RecordBatch, TopicPartition

__all__ = ["LoopSteps"]


class LoopSteps:
    """One thread at a time, which may be another each time; :meth:`offer` and what only tells may be called meanwhile.

    records_at_once: about the most of a partition in one step. progress: how far monitors and trainer are.
    tells_feedback: whether what came of the slates is told here, or by others. no_champion: why nothing can be served
    and the trainer will not change that, empty for anything else.
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
        self.no_champion = ""
        self._held: dict[int, HeldPartition] = {}

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
        loaded = {tp.partition: self._load(tp.partition, Backlog()) for tp in ranges}
        self._held = self._held | loaded  # a new one: others may be looking through it
        return start

    def _load(self, partition: int, backlog: Backlog) -> HeldPartition:
        closed = self.writer.cursors[partition].closed
        return HeldPartition.of(self.writer.load(partition), closed, self.gate.live_from, backlog)

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
            progress = self._look()
        except StoreUnavailable as error:
            for one in held.values():
                one.waits = str(error)
            return False
        self.no_champion = ""
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

    def _look(self) -> Progress:
        """At the others, and at the registry; without aligned mode the others are of interest for a champion alone."""
        if not self.gate.aligned:
            self._plan.refresh()
            if self._plan.at(None):
                return Progress()
        progress = self._progress()
        self._plan.refresh()  # after the progress: what an answer has decided is there
        return progress

    def _reload(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if partition in self.writer.cursors:
                self._held[partition] = self._load(partition, self._held[partition].backlog)

    def _take(self, partition: int, held: HeldPartition, applied: int, progress: Progress) -> Taken:
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
        if self.gate.aligned:
            why = waits_for(moment, boundaries, progress, train_delay_s=self.gate.train_delay_s)
            if why:
                return why
        if self._serving(moment):
            return ""
        self.no_champion = no_champion(progress)
        return NO_CHAMPION + (f"; {self.no_champion}" if self.no_champion else "")

    def _serving(self, moment: int) -> Mapping[str, str] | None:
        return self._plan.at(moment if self.gate.aligned else None)

    def _step(self, taken: Mapping[int, Sequence[Waiting]]) -> bool:
        """False where the store was further than this loop knew, by its own doing: nothing was done then."""
        parts = {p: part_of(self._held[p], self.writer.cursors[p], waiting) for p, waiting in taken.items()}
        self._make_lists(parts)
        for partition, part in parts.items():
            source = f"{self._run_id}/{LOOP}/{self.writer.topic}/{partition}"
            part.finish(source, tells=self._tells_feedback)
        changes = {p: part.changes(self._held[p], self.gate) for p, part in parts.items()}
        after = self.writer.cursors | {p: part.after for p, part in parts.items()}
        if not self.writer.commit_step(after, {p: part.sources for p, part in parts.items()}, changes):
            return False
        for partition, changed in changes.items():
            self._held[partition].committed(changed)
        published_ms = np.concatenate([part.slates_published_ms for part in parts.values()])
        self.stats.add(sum(part.n_records for part in parts.values()), self._wall_ms() - published_ms)
        return True

    def _make_lists(self, parts: Mapping[int, Part]) -> None:
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
        found = self._serving(moment)
        if found is None:
            raise StoreUnavailable(f"loop: expected {NO_CHAMPION}; the one there was is gone")
        return found

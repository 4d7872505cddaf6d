"""An agent whose steps leave batches of records in its store: the steps on a thread of their own, patiently."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from agents.lines_store import LinesWriter, OutgoingRow
from agents.store_thread import StoreStats, StoreThread
from streams.bus import OffsetRange, TopicInfo
from streams.records import TopicPartition

__all__ = ["LinesIngest", "LinesSteps"]


class LinesSteps(Protocol):
    """What an agent does, one thread at a time."""

    @property
    def writer(self) -> LinesWriter: ...
    @property
    def stats(self) -> StoreStats: ...

    def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]: ...
    def release(self, partitions: Iterable[int]) -> None: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=LinesSteps)


class LinesIngest(Generic[S]):
    """Takes the steps of ``name`` on a thread of their own. store_patience_s: how long its store may be away."""

    def __init__(self, name: str, steps: S, *, store_patience_s: float = 30.0) -> None:
        self.steps = steps
        self.stored = asyncio.Event()
        """Set by each step: there may be something to publish."""
        self.store = StoreThread(f"{name}-store", patience_s=store_patience_s, stats=steps.stats)

    async def assign(self, log: TopicInfo, ranges: Mapping[TopicPartition, OffsetRange]) -> dict[TopicPartition, int]:
        """Become the writer of these partitions; returns the offset each goes on from."""
        start = await self.store.patiently(self.steps.assign, log, ranges)
        self.stored.set()  # not before: whoever looked meanwhile saw none of what a predecessor has left
        return start

    async def release(self, partitions: Iterable[int]) -> None:
        """Write nothing more of these partitions; returns once nothing of them is under way."""
        await self.store.run(self.steps.release, partitions)

    async def check(self) -> None:
        """Raise StoreSetBack where the store has lost what was done, StoreUnavailable where it is away."""
        await self.store.run(self.steps.writer.check)

    async def outgoing(self) -> list[OutgoingRow]:
        """The oldest records still to be published."""
        return await self.store.run(self.steps.writer.outgoing)

    async def sent(self, rows: Iterable[OutgoingRow]) -> None:
        """Forget what the bus has acknowledged."""
        await self.store.run(self.steps.writer.sent, rows)

    def close(self) -> None:
        """Wait for the step under way, then close the stores."""
        self.store.close()
        self.steps.close()
